"""A conversion is no dead end: the first candidate that passes ships, and everything says why."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from spoiling import coarse_ranges

from convert import candidates as module
from convert.bundle_writer import write_bundle
from convert.candidates import (
    Choice,
    candidate_of,
    candidates,
    convert_first_fit,
    linear,
    name_of,
    ungated,
)
from convert.convert_run import Assessment, Conversion, assessed, completed
from convert.proof import Outcome
from convert.report.facts import choice_facts, choice_text
from convert.revalidate import revalidate
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.kernels import available_kernels
from edge_runtime.errors import UnfitError
from edge_runtime.learning.check import PLAIN, reason
from edge_runtime.learning.prepare import scaled
from edge_runtime.learning.run import Run
from train.cell_config import CellConfig
from train.train_run import train_run
from train.training_request import Budget, TrainingRequest, read_training_data

pytestmark = pytest.mark.long

GATED, UNGATED, LINEAR = "gated network", "network without a gate", "linear detector"
STRANGE = "rows 10 to 20 are unlike the rest"  # what training says of a recording
STREAM_CHECKS = ("state, RMS", "AUC", "event", "alarm", "delay")


def silent(sentence: str) -> None:
    pass


@dataclass(frozen=True)
class Judged:
    """Every candidate of the good run, converted; all of them pass."""

    run: Run
    assessments: Mapping[str, Assessment]
    conversions: Mapping[str, Conversion]


@pytest.fixture(scope="module")
def good(good_run: Run) -> Judged:
    good_run = replace(good_run, config=replace(good_run.config, strange=(STRANGE,)))
    with pytest.MonkeyPatch.context() as patch:
        coarse_ranges(patch)
        patch.setattr("convert.convert_run.available_kernels", lambda: available_kernels()[:1])
        found = {name_of(run): assessed(run, 1, 1.0, silent) for run in candidates(good_run)}
        made = {name: completed(each, silent) for name, each in found.items()}
    return Judged(good_run, found, made)


def failing(found: Assessment, name: str) -> Assessment:
    """`found` with limits of the check `name` that its value cannot keep."""
    checks = found.verdict.checks
    assert name in [check.name for check in checks]
    harmed = [
        replace(c, low=c.value + 1, high=c.value + 2) if c.name == name else c for c in checks
    ]
    return replace(found, verdict=replace(found.verdict, checks=tuple(harmed)))


Convert = Callable[..., Choice]


@pytest.fixture
def convert(good: Judged, monkeypatch: pytest.MonkeyPatch) -> Convert:
    """Convert the good run with the assessments of some candidates replaced, or refused."""

    def of(force: bool = False, **replaced: Assessment | UnfitError) -> Choice:
        known = {GATED: "gated", UNGATED: "ungated", LINEAR: "linear"}

        def assess(run: Run, *_: object) -> Assessment:
            found = replaced.get(known[name_of(run)], good.assessments[name_of(run)])
            if isinstance(found, UnfitError):
                raise found
            return found

        def complete(found: Assessment, _: object, outcomes: tuple[Outcome, ...]) -> Conversion:
            made = good.conversions[name_of(found.run)]
            proof = replace(made.proof, verdict=found.verdict, outcomes=outcomes)
            marks = replace(
                made.manifest.validation,
                passed=found.verdict.passed,
                forced=not found.verdict.passed,
            )
            return replace(made, proof=proof, manifest=replace(made.manifest, validation=marks))

        monkeypatch.setattr(module, "assessed", assess)
        monkeypatch.setattr(module, "completed", complete)
        return convert_first_fit(good.run, 1, 1.0, silent, force)

    return of


def test_every_candidate_repeats_what_training_left_out(good: Judged, convert: Convert) -> None:
    assert [made.verdict.warnings[0] for made in good.conversions.values()] == 3 * [STRANGE]
    choice = convert()
    assert f"warning: {STRANGE}" in choice_text(choice)
    assert choice_facts(choice)["warnings"][0] == STRANGE


NETWORK_CHECKS = [
    f"faults: {name}" if name.startswith(STREAM_CHECKS) else name
    for name in PLAIN
    if not name.startswith("linear")
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORK_CHECKS)
def test_whatever_check_a_network_fails_a_smaller_candidate_ships(
    good: Judged, convert: Convert, name: str
) -> None:
    spoiled = failing(good.assessments[GATED], name)
    choice = convert(gated=spoiled)
    assert choice.passed and [o.name for o in choice.outcomes] == [GATED, UNGATED]
    (check,) = choice.outcomes[0].failed
    assert check.name == name
    assert choice.sentence == f"{GATED}: failed, {reason(check)}; {UNGATED}: passed"
    assert f"{check.value:.4g}" in choice.sentence and f"{check.low:g}" in choice.sentence
    if "gate, max" in name:
        return  # the others have none
    choice = convert(gated=spoiled, ungated=failing(good.assessments[UNGATED], name))
    assert choice.passed and [o.name for o in choice.outcomes] == [GATED, UNGATED, LINEAR]
    assert choice.conversion and choice.conversion.manifest.linear


@pytest.mark.slow
def test_every_check_of_a_conversion_has_plain_words(good: Judged) -> None:
    for found in good.assessments.values():
        for check in found.verdict.checks:
            unknown = reason(replace(check, value=float("nan")))
            assert unknown.startswith(f"{check.name} has no value")
            assert ("no fault in common" in unknown) == ("delay" in check.name)
            assert "(at most" in reason(replace(check, value=1e9))


@pytest.mark.slow
def test_a_run_that_passes_is_taken_as_it_is(good: Judged, convert: Convert) -> None:
    choice = convert()
    assert choice.sentence == f"{GATED}: passed"
    assert choice.conversion and choice.conversion.verdict is good.assessments[GATED].verdict


@pytest.mark.slow
def test_a_network_that_cannot_be_judged_is_one_that_failed(convert: Convert) -> None:
    short = UnfitError("no clean sample is left")
    choice = convert(gated=short, ungated=short)
    assert choice.passed and choice.sentence.startswith(
        f"{GATED}: failed, no clean sample is left;"
    )
    assert [outcome.verdict is None for outcome in choice.outcomes] == [True, True, False]
    with pytest.raises(UnfitError, match="no clean sample is left"):
        convert(gated=short, ungated=short, linear=short)


@pytest.mark.slow
def test_where_none_passes_nothing_or_the_first_is_made(good: Judged, convert: Convert) -> None:
    off = "linear: forecast off the formula, max"
    spoiled = {
        "gated": UnfitError("no clean sample is left"),
        "ungated": failing(good.assessments[UNGATED], "faults: alarm agreement"),
        "linear": failing(good.assessments[LINEAR], off),
    }
    choice = convert(**spoiled)
    assert not choice.passed and choice.conversion is None
    facts = choice_facts(choice)
    assert facts["passed"] is False and facts["threshold"] == ""
    assert "train again without the channel" in facts["advice"]
    spoiled["linear"] = UnfitError("the clean rows end; record for longer")
    assert choice_facts(convert(**spoiled))["advice"].endswith("end; record for longer")
    forced = convert(force=True, **spoiled)
    assert not forced.passed and forced.conversion
    assert forced.conversion.manifest.validation.forced and not forced.conversion.manifest.linear


@pytest.mark.slow
def test_text_json_and_report_tell_every_candidate(
    good: Judged, convert: Convert, tmp_path: Path
) -> None:
    choice = convert(gated=failing(good.assessments[GATED], "faults: alarm agreement"))
    assert choice.conversion
    first, failed, second, *_, last = choice_text(choice).splitlines()
    assert (first, second, last) == (f"{GATED}:", f"{UNGATED}:", choice.sentence)
    assert failed.startswith("FAIL  faults: alarm agreement")
    facts = json.loads(json.dumps(choice_facts(choice)))
    written = write_bundle(choice.conversion, tmp_path, force=False)
    report = json.loads((written / "report.json").read_text())
    for told in (facts, report):
        assert told["choice"] == choice.sentence
        first, second = told["candidates"]
        assert (first["name"], first["passed"]) == (GATED, False)
        assert [check["name"] for check in first["failed"]] == ["faults: alarm agreement"]
        assert (second["name"], second["passed"], second["failed"]) == (UNGATED, True, [])
    page = (written / "report.html").read_text()
    assert choice.sentence in page and f"<h2>{choice.outcomes[0].sentence}</h2>" in page


# The candidates themselves.


def test_a_network_has_smaller_candidates_and_a_linear_run_none(
    tiny_run: Run, linear_run: Run
) -> None:
    assert [name_of(run) for run in candidates(tiny_run)] == [GATED, UNGATED, LINEAR]
    assert [name_of(run) for run in candidates(ungated(tiny_run))] == [UNGATED, LINEAR]
    assert list(candidates(linear_run)) == [linear_run]
    gate_only = CellConfig(**{**tiny_run.config.sizes, "gru_layers": 0})
    half = replace(tiny_run, config=replace(tiny_run.config, sizes=gate_only.to_dict()))
    assert [name_of(run) for run in candidates(half)] == [GATED, LINEAR]


def test_a_linear_candidate_is_what_training_makes_of_the_same_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    high = rng.random(600) < 0.5  # modes that come and go
    rows = rng.normal(size=(600, 3)) + np.where(high, 50, 0)[:, np.newaxis]
    rows[:, 0] = np.where(high, 70, 30)
    file = tmp_path / "rows.csv"
    np.savetxt(file, rows, delimiter=",", header="set,b,c", comments="")
    (tmp_path / "channels.yaml").write_text("channels:\n  set: {exogenous: true}\n")
    request = TrainingRequest(
        data=(file,), out=tmp_path / "run", name="pump", period=1.0, model="linear"
    )
    run = train_run(
        request,
        read_training_data(request),
        CellConfig(0),
        Budget(steps=1),
        silent,
        lambda *_: None,
    )
    network = CellConfig(**{**run.config.sizes, "gru_layers": 1, "gate_layers": 1})
    channels = scaled(run.config.channels, run.rows["train"])
    assert all(c.modes for c in run.config.channels) and not any(c.modes for c in channels)
    config = replace(run.config, channels=channels, sizes=network.to_dict(), taught=5)
    found = linear(replace(run, config=config, weights={}))
    assert found.config == run.config and found.weights.keys() == run.weights.keys()
    for name, array in run.weights.items():
        np.testing.assert_array_equal(found.weights[name], array)


@pytest.mark.long
def test_a_bundle_of_any_candidate_is_judged_again_with_its_run(
    good: Judged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("convert.revalidate.available_kernels", lambda: ())
    for name in (UNGATED, LINEAR):
        made = good.conversions[name]
        assert name_of(candidate_of(good.run, made.manifest)) == name
        bundle = write_bundle(made, tmp_path / name, force=False)
        verdict = revalidate(bundle, good.run.path).verdict
        assert verdict.passed, verdict.failed
    with pytest.raises(UnfitError, match="holds no model of the kind"):
        candidate_of(ungated(good.run), good.conversions[GATED].manifest)


# A model that is really spoiled.


def converted(run: Run) -> Choice:
    with pytest.MonkeyPatch.context() as patch:
        coarse_ranges(patch)
        patch.setattr("convert.convert_run.available_kernels", lambda: available_kernels()[:1])
        return convert_first_fit(run, 1, 1.0, silent)


def spoiled(run: Run, name: str, factor: float) -> Run:
    return replace(run, weights={**run.weights, name: run.weights[name] * np.float32(factor)})


@pytest.mark.long
def test_a_gate_that_int8_cannot_follow_is_left_out(good_run: Run, tmp_path: Path) -> None:
    choice = converted(spoiled(good_run, "logit_kernel", 30))
    first, second = choice.outcomes
    assert "one step: gate, max" in [check.name for check in first.failed] and second.passed
    assert choice.conversion
    bundle = read_bundle(write_bundle(choice.conversion, tmp_path, force=False))
    assert "correction" in bundle.manifest.outputs and "logit" not in bundle.manifest.outputs
    assert bundle.manifest.validation.passed


@pytest.mark.long
def test_a_network_that_int8_cannot_follow_leaves_the_linear_detector(
    good_run: Run, tmp_path: Path
) -> None:
    choice = converted(spoiled(good_run, "correction_kernel", 60))
    assert [outcome.name for outcome in choice.outcomes] == [GATED, UNGATED, LINEAR]
    for outcome in choice.outcomes[:2]:
        assert "one step: forecast, RMS" in [check.name for check in outcome.failed]
    assert choice.conversion
    bundle = read_bundle(write_bundle(choice.conversion, tmp_path, force=False))
    assert bundle.manifest.linear and bundle.manifest.validation.passed
