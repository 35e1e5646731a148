"""The model of a type: learned from several assets, taken by an asset where it is better."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from small_fleet import Once

from edge_runtime.bundle.manifest import UNLIMITED
from edge_runtime.errors import GruardError
from edge_runtime.learning.learn import Learned, write_learned
from edge_runtime.learning.recording import write_recording
from edge_runtime.learning.request import Data, Request, read_data
from edge_runtime.plain import write_sealed
from fleet import shared
from fleet.shared import (
    ALIGNMENT,
    SharedModel,
    choose,
    learn_type,
    read_shared,
    shared_for,
)
from fleet.simulate import differing
from train.simulate import simulate

COLUMNS = (0, 1, 2)  # set_point, speed, current
SETTINGS = "period: 1\nchannels:\n  set_point: {exogenous: true}\n"
MEMBERS, ROWS = 5, 160


def pump(folder: Path, number: int, rows: int, columns: Sequence[int] = COLUMNS) -> Data:
    """The data of one pump of the type, from a file with every fourth sample of a run."""
    whole = differing(simulate(4 * rows, number), number)
    names, values = tuple(whole.channels[i] for i in columns), whole.values[::4, columns]
    file = folder / f"pump-{number}-{rows}-{len(names)}.csv"
    write_recording(file, replace(whole, channels=names, values=values, times=None))
    (folder / "channels.yaml").write_text(SETTINGS)
    return read_data(Request((file,), fewest=shared.FEWEST_SHARED_ROWS))


def say(sentence: str) -> None:
    """Nothing is shown."""


@pytest.fixture(scope="module")
def model(once: Once) -> SharedModel:
    """The model of five pumps, read back."""

    def write(folder: Path) -> None:
        found = learn_type([pump(folder, n, ROWS) for n in range(MEMBERS)], "pump", 1, 1.0, say)
        assert found.assets == MEMBERS and found.learned.passed
        write_learned(found.learned, folder, force=False)
        write_sealed(folder / ALIGNMENT, found.alignment)

    return read_shared(once("fleet-type", write) / "pump-1.gruard")


def test_an_asset_with_few_rows_has_the_model_of_its_type(
    model: SharedModel, tmp_path: Path
) -> None:
    chosen = choose(model, pump(tmp_path, 100, 60), "new", 3, 1.0, say)
    manifest = chosen.learned.manifest
    assert chosen.shared and "rows are few for a model of its own" in chosen.reason
    assert chosen.learned.passed and (manifest.name, manifest.version) == ("new", 3)
    assert manifest.forecast == model.manifest.forecast
    assert manifest.channels[0] == model.manifest.channels[0]
    assert manifest.channels[1].center != model.manifest.channels[1].center
    (threshold,) = manifest.thresholds.values()
    assert threshold.value > 1.2 * model.threshold.value, "raised, for few rows"
    assert manifest.provenance.data_sha256 != model.manifest.provenance.data_sha256
    assert write_learned(chosen.learned, tmp_path, force=False).is_dir(), "a bundle like any other"


def test_an_asset_that_does_not_fit_its_type_has_its_own_model(
    model: SharedModel, tmp_path: Path
) -> None:
    other = pump(tmp_path, 101, 200, columns=(0, 1, 4))
    chosen = choose(model, other, "other", 1, 1.0, say)
    assert not chosen.shared and "channels are not those of its type" in chosen.reason
    with pytest.raises(GruardError, match="30 rows are too few"):
        choose(model, pump(tmp_path, 101, 30, columns=(0, 1, 4)), "short", 1, 1.0, say)
    data = pump(tmp_path, 101, 200)
    for strange, reason in (
        (replace(data, period=7.0), "period"),
        (replace(data, settings=replace(data.settings, channels={
            name: replace(each, exogenous=False)
            for name, each in data.settings.channels.items()})), "exogenous"),
    ):  # fmt: skip
        assert reason in shared.why_not_shared(model, strange)
    assert not shared.why_not_shared(model, data)


def with_threshold(learned: Learned, factor: float) -> Learned:
    """The detector with another threshold, which makes it deaf or restless."""
    thresholds = {
        kernel: replace(each, value=factor * each.value, clear=factor * each.clear)
        for kernel, each in learned.manifest.thresholds.items()
    }
    return replace(learned, manifest=replace(learned.manifest, thresholds=thresholds))


def test_the_better_model_is_judged_on_rows_that_neither_has_seen(
    model: SharedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "JUDGED_ROWS", 5000)
    known = pump(tmp_path, 102, 200)
    data = replace(known, split=replace(known.split, test=known.dataset.recordings))
    good = with_threshold(shared_for(model, data, "a", 1, 1.0, say), 0.4)
    deaf, restless = with_threshold(good, 100.0), with_threshold(good, 0.01)
    better, reason = shared.compared(good, deaf, data, 1.0)
    assert better and "its own 0%" in reason
    better, reason = shared.compared(deaf, good, data, 1.0)
    assert not better and "its type's 0%" in reason
    assert not shared.compared(good, good, data, 1.0)[0], "its own model, if they are as good"
    better, reason = shared.compared(restless, deaf, data, 1.0)
    assert not better and "alarms in" in reason
    better, reason = shared.compared(good, deaf, known, 1.0)
    assert not better and "too few to judge" in reason


def test_a_raised_threshold_stays_below_what_ceilings_allow(model: SharedModel) -> None:
    memories = model.manifest.score.memories
    assert 1.0 < shared._raise(model) < shared.FEW_ROWS_RAISE, "the score of this model is bounded"
    free = tuple(replace(each, ceiling=(UNLIMITED,) * len(each.ceiling)) for each in memories)
    score = replace(model.manifest.score, memories=free)
    unbounded = replace(model, manifest=replace(model.manifest, score=score))
    assert shared._raise(unbounded) == shared.FEW_ROWS_RAISE


def test_a_type_needs_assets_that_are_alike(tmp_path: Path) -> None:
    members = [pump(tmp_path, n, ROWS) for n in range(MEMBERS - 1)]
    members.append(pump(tmp_path, 9, ROWS, columns=(0, 1, 4)))
    with pytest.raises(GruardError, match=r"type pump: 4 assets .* 5 are needed"):
        learn_type(members, "pump", 1, 1.0, say)
    with pytest.raises(GruardError, match="type pump: 0 assets"):
        learn_type([], "pump", 1, 1.0, say)


def test_a_type_without_its_alignment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GruardError, match=r"alignment.json: is missing"):
        read_shared(tmp_path / "pump-1.gruard")
