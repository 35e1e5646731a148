"""The verdict: a good conversion passes, and for every check there is a harm that fails it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_model

from convert.checks.arithmetic import (
    export_checks,
    one_step_checks,
    rollout_checks,
    state_check,
    state_errors,
    states_along,
    trained_model,
)
from convert.checks.behaviour import clean_checks, detection_checks
from convert.convert_run import Conversion
from convert.detection import detect
from convert.export import export_int8
from convert.twins import Pair
from convert.validate import Verdict
from edge_runtime import numerics
from edge_runtime.bundle.flatbuffer import read_graph
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.detector.cell import Model, build_model
from edge_runtime.detector.interpreter import Int8Graph
from edge_runtime.detector.kernels import KERNEL_ID
from edge_runtime.learning.check import Check
from edge_runtime.learning.rollout import inputs_at, roll
from edge_runtime.learning.run import Run
from edge_runtime.learning.shipped import shipped_model
from train.cell_config import CellConfig

if TYPE_CHECKING:
    from conftest import Trial

Checks = dict[str, Check]
Weights = dict[str, np.ndarray]


def judged(trial: "Trial", model: Model, states: np.ndarray | None = None) -> Checks:
    """All checks of a validation, on short streams; states: of `model` along the long rows."""
    states = states_along(model, trial.long) if states is None else states
    clean = Pair(roll(model, trial.clean), trial.float_clean)
    faulty = Pair(roll(model, trial.stream.rows), trial.float_faulty)
    apart = state_errors(faulty.quantised.hidden, faulty.reference.hidden)
    found = detect(model, trial.reference, "faults", faulty, trial.stream)
    checks = [
        *export_checks(trained_model(trial.run), trial.reference, trial.float_faulty),
        *one_step_checks(model, trial.reference, clean.quantised, faulty.quantised),
        *rollout_checks(state_errors(states, trial.float_long), len(trial.clean)),
        *clean_checks(model, [clean]),
        state_check("faults", apart),
        *detection_checks(found, must_find=True),
    ]
    return {check.name: check for check in checks}


def failed(checks: Checks) -> set[str]:
    return {name for name, check in checks.items() if not check.passed}


@pytest.mark.slow
def test_a_good_conversion_passes(conversion: Conversion) -> None:
    assert conversion.verdict.passed and conversion.manifest.validation.passed
    assert not conversion.manifest.validation.forced
    assert len(conversion.verdict.checks) == 18
    evidence = conversion.verdict.evidence
    assert evidence is not None and len(evidence.state_errors) >= tiny_model.SHORT_ROLLOUT


@pytest.mark.slow
def test_a_good_conversion_passes_on_the_short_streams_too(
    conversion: Conversion, trial: "Trial"
) -> None:
    checks = judged(trial, trial.quantised, trial.int8_long)
    assert [*checks, STANDOUT] == [check.name for check in conversion.verdict.checks]
    assert failed(checks) == set()


def other_graph(conversion: Conversion, model: bytes, scales: dict[str, float]) -> Model:
    """The step around another int8 file; the scale of an output may be read wrongly."""
    graph = read_graph(model, "spoiled")
    tensors = list(graph.tensors)
    for name, factor in scales.items():
        index = graph.outputs[name]
        tensors[index] = replace(tensors[index], scales=(tensors[index].scales[0] * factor,))
    logit = graph.tensors[graph.outputs["logit"]]
    softplus = numerics.softplus_table(logit.scales[0], logit.zero_points[0])
    spoiled = replace(graph, tensors=tuple(tensors))
    return build_model(conversion.manifest, Int8Graph(model, spoiled, softplus), "")


def zeroed_gate(weights: Weights) -> None:
    weights["logit_kernel"][:] = 0


def shut_gate(weights: Weights) -> None:
    weights["logit_bias"][:] = -6


def stuck_state(weights: Weights) -> None:
    half = weights["gru_0_bias"].shape[0] // 2
    weights["gru_0_bias"][:half] = 40.0  # update gate forced to 1: the old state stays


def noisy_correction(weights: Weights) -> None:
    kernel = weights["correction_kernel"]
    kernel += np.random.default_rng(0).normal(0, 0.5, kernel.shape).astype(np.float32)


def permuted_channels(weights: Weights) -> None:
    for name in ("logit", "correction"):
        for part in ("kernel", "bias"):
            weights[f"{name}_{part}"][...] = np.roll(weights[f"{name}_{part}"], 1, axis=-1)


def threshold_times(factor: float) -> Callable[[Manifest], Manifest]:
    def change(manifest: Manifest) -> Manifest:
        old = manifest.thresholds[KERNEL_ID]
        new = replace(old, value=old.value * factor, clear=old.clear * factor)
        return replace(manifest, thresholds={KERNEL_ID: new})

    return change


def deaf_score(manifest: Manifest) -> Manifest:
    """Hears the level only, however loud the errors are."""
    return replace(manifest, score=replace(manifest.score, weights=(0.0, 0.0, 0.0, 1.0, 0.0, 0.0)))


GATE, FORECAST, WORST = "one step: gate, max", "one step: forecast, RMS", "one step: forecast, max"
STATE, LONG, GROWTH = (
    "one step: state, RMS",
    "rollout: state, RMS",
    "rollout: state, last pass over first",
)
VARIANCE, DISAGREE = "clean: residual variance, worst channel", "clean: gates that disagree"
RANKS, AUC, RECALL = (
    "clean: score rank correlation",
    "faults: AUC lost",
    "faults: event recall lost",
)
SAME, KAPPA, DELAY = "faults: alarm agreement", "faults: alarm kappa", "faults: delay shift, p95"
FAULTY = "faults: state, RMS"
STANDOUT = "calibration: strangest row, over the usual"
EXPORTED = {"export: forecast, max", "export: gate, max"}

WEIGHTS: list[tuple[Callable[[Weights], None], set[str]]] = [
    (zeroed_gate, {GATE}),
    (shut_gate, {GATE, DISAGREE}),
    (stuck_state, {STATE, LONG, FAULTY}),
    (noisy_correction, {FORECAST, WORST, VARIANCE}),
    (permuted_channels, {GATE, FORECAST}),
]
SCALES: list[tuple[str, set[str]]] = [
    ("correction", {FORECAST, VARIANCE}),
    ("gate_next", {GATE}),
    ("candidate_0", {STATE, LONG}),
    ("update_0", {STATE}),
]
MANIFESTS: list[tuple[str, Callable[[Manifest], Manifest], set[str]]] = [
    ("threshold too low", threshold_times(0.2), {SAME, KAPPA}),
    ("threshold too high", threshold_times(16), {SAME, KAPPA, RECALL, DELAY}),
    ("score deaf", deaf_score, {RANKS, AUC}),
]
DRIFT = {GROWTH}


def some_long(cases: Sequence[tuple[Any, set[str]]], *usual: str) -> list[Any]:
    """The cases as parameters; all but the `usual` ones take long, one after the other."""
    named = [(case, getattr(case[0], "__name__", case[0])) for case in cases]
    return [
        pytest.param(*case, id=name, marks=[] if name in usual else pytest.mark.long)
        for case, name in named
    ]


@pytest.mark.long
@pytest.mark.parametrize(("harm", "bitten"), some_long(WEIGHTS, "zeroed_gate", "noisy_correction"))
def test_spoiled_weights_fail(
    tiny_run: Run,
    conversion: Conversion,
    trial: "Trial",
    harm: Callable[[Weights], None],
    bitten: set[str],
) -> None:
    weights = {name: array.copy() for name, array in tiny_run.weights.items()}
    harm(weights)
    samples = inputs_at(trial.float_faulty, range(0, len(trial.float_faulty.score), 5))
    model = export_int8(weights, CellConfig(**tiny_run.config.sizes), samples)
    assert bitten <= failed(judged(trial, other_graph(conversion, model, {})))


@pytest.mark.slow
@pytest.mark.parametrize(("output", "bitten"), some_long(SCALES, "candidate_0"))
def test_a_shifted_scale_of_any_output_fails(
    conversion: Conversion, trial: "Trial", output: str, bitten: set[str]
) -> None:
    model = other_graph(conversion, conversion.model, {output: 1.7})
    assert bitten <= failed(judged(trial, model))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "bitten"), [case[1:] for case in MANIFESTS], ids=[case[0] for case in MANIFESTS]
)
def test_a_spoiled_manifest_fails(
    conversion: Conversion,
    trial: "Trial",
    harm: Callable[[Manifest], Manifest],
    bitten: set[str],
) -> None:
    model = shipped_model(harm(conversion.manifest), conversion.model)
    found = failed(judged(trial, model))
    assert bitten <= found
    assert not found & {GATE, FORECAST, WORST, STATE}


@pytest.mark.slow
def test_states_that_drift_apart_fail(trial: "Trial") -> None:
    good = trial.int8_long - trial.float_long
    growing = np.linspace(0, 0.04, len(good), dtype=np.float32)[:, np.newaxis]

    def found(apart: np.ndarray) -> Checks:
        errors = state_errors(trial.float_long + apart, trial.float_long)
        return {c.name: c for c in rollout_checks(errors, len(trial.clean))}

    assert failed(found(good + growing)) == DRIFT
    assert not failed(found(np.full_like(good, 0.04)))


@pytest.mark.slow
def test_a_twin_that_is_not_the_trained_model_fails(conversion: Conversion, trial: "Trial") -> None:
    """A weight that training has and the export has not, and a highway that only the host has."""
    run = trial.run
    for name, bitten in (("logit_bias", EXPORTED), ("highway", {"export: forecast, max"})):
        weights = {**run.weights, name: run.weights[name] + np.float32(0.3)}
        trained = trained_model(replace(run, weights=weights))
        checks = export_checks(trained, trial.reference, trial.float_faulty)
        assert bitten <= {check.name for check in checks if not check.passed}


@pytest.mark.slow
def test_every_check_is_shown_to_fail(conversion: Conversion) -> None:
    bitten = set.union(DRIFT, EXPORTED, *(case[-1] for case in (*WEIGHTS, *SCALES, *MANIFESTS)))
    # test_spoiled.py puts an anomaly among the rows to calibrate.
    assert bitten | {STANDOUT} == {check.name for check in conversion.verdict.checks}


@pytest.mark.slow
def test_a_stream_without_a_single_hit_cannot_pass(conversion: Conversion, trial: "Trial") -> None:
    deaf = shipped_model(threshold_times(1e6)(conversion.manifest), conversion.model)
    silent = replace(trial.float_faulty, alarm=np.zeros_like(trial.float_faulty.alarm))
    found = detect(deaf, trial.reference, "faults", Pair(silent, silent), trial.stream)
    checks = {check.name: check for check in detection_checks(found, must_find=True)}
    assert np.isnan(checks[DELAY].value) and not checks[DELAY].passed


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_never_passes(value: float) -> None:
    check = Check("name", value, -float("inf"), float("inf"), "anything")
    assert not check.passed
    assert check.to_dict()["value"] is None and check.to_dict()["passed"] is False


def test_limits_are_inclusive_and_one_failure_fails_the_verdict() -> None:
    good = [Check("low", 1.0, 1.0, 2.0, ""), Check("high", 2.0, 1.0, 2.0, "")]
    bad = [Check("low", 0.999, 1.0, 2.0, ""), Check("high", 2.001, 1.0, 2.0, "")]
    assert all(check.passed for check in good) and not any(check.passed for check in bad)
    assert Verdict("k", tuple(good)).passed and not Verdict("k", (*good, bad[0])).passed
