"""A rollout is the device's own step over a recording, with everything inside it kept."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from convert.convert_run import Conversion
from convert.twins import float_twin, roll_pair
from edge_runtime.bundle.manifest import PARTS, Memory
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.cell import build_model
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.kernels import available_kernels
from edge_runtime.detector.score import score_parts
from edge_runtime.detector.step import initial_state, step
from edge_runtime.errors import GruardError
from edge_runtime.learning.rollout import (
    Rollout,
    errors_in,
    joined,
    records_of,
    remeasured,
    rescored,
    roll,
    roll_all,
    stepwise,
    stretch,
)
from edge_runtime.learning.run import Run
from edge_runtime.learning.score import parts_of_rows
from edge_runtime.learning.shipped import shipped_model, unchanging
from edge_runtime.record import Flag, Sample

ROWS = 150


@pytest.fixture(scope="module")
def detector(tiny_bundle: Path) -> Detector:
    return Detector(read_bundle(tiny_bundle))


@pytest.fixture(scope="module")
def rows(tiny_run: Run) -> np.ndarray:
    rows = tiny_run.rows["test"][0][:ROWS].copy()
    rows[110:115] = np.nan
    rows[120:, 1] = 55.0
    return rows


@pytest.fixture(scope="module")
def rolled(detector: Detector, rows: np.ndarray) -> Rollout:
    return roll(detector.model, rows)


def same(core: Rollout, reference: Rollout) -> None:
    """Every field to the last bit, and of the same type."""
    for name in (field.name for field in fields(Rollout)):
        a, b = getattr(core, name), getattr(reference, name)
        if name == "inputs":
            assert a.keys() == b.keys()
            for key in a:
                np.testing.assert_array_equal(a[key], b[key], strict=True)
        else:
            np.testing.assert_array_equal(a, b, strict=True, err_msg=name)


def spoiled(rows: np.ndarray) -> np.ndarray:
    """Every tier, a gap to bridge, an outage, a stuck channel, values of any size."""
    rows = np.concatenate([rows] * 6)[:900].copy()
    rows[210:213] = np.nan
    rows[300:360] = np.nan
    rows[420:470, 2] = rows[420, 2]
    rows[520:600, 1] += 60
    rows[640:644] = [[1e30, -1e30, np.inf], [0, 0, 0], [-0.0, 1e-40, -np.inf], [5e8, np.nan, 1]]
    return rows


@pytest.mark.parametrize("kind", ["gated", "linear", "float twin", "another kernel"])
def test_the_core_gives_every_bit_of_the_reference(
    kind: str, rows: np.ndarray, conversion: Conversion, linear_bundle: Path
) -> None:
    kernels = available_kernels()
    if kind == "linear":
        model = Detector(read_bundle(linear_bundle)).model
    elif kind == "float twin":
        model = float_twin(conversion.manifest, conversion.float_model)
    else:
        kernel = kernels[-1] if kind == "another kernel" else kernels[0]
        known = next(iter(conversion.manifest.thresholds.values()))
        manifest = replace(conversion.manifest, thresholds={kernel: known})
        model = shipped_model(manifest, conversion.model, kernel)
    reference = stepwise(model, spoiled(rows))
    assert {*reference.tier} == {1, 2, 3}
    same(roll(model, spoiled(rows)), reference)


def test_a_graph_that_fails_ends_the_rolling(detector: Detector, rows: np.ndarray) -> None:
    class Broken:
        kernel_id, gated, state_sizes = "tflite-builtin", True, (8,)

        def __call__(self, inputs: object) -> dict[str, np.ndarray]:
            raise ZeroDivisionError("the third step")

    with pytest.raises(ZeroDivisionError, match="the third step"):
        roll(replace(detector.model, graph=Broken()), rows)


def test_without_the_core_numpy_rolls(
    detector: Detector, rows: np.ndarray, rolled: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise GruardError("was not built on this machine")

    records = records_of(detector.model, rows)
    monkeypatch.setattr("edge_runtime.native.engine.core_module", absent)
    same(rolled, roll(detector.model, rows))
    assert records_of(detector.model, rows) == records


def test_the_score_of_rows_is_that_of_each_step(detector: Detector, rolled: Rollout) -> None:
    constants = detector.model.score
    errors = errors_in(rolled)
    found = parts_of_rows(errors, rolled.value, rolled.doubt, rolled.mask, constants)
    steps = zip(errors, rolled.value, rolled.doubt, rolled.mask, strict=True)
    single = [score_parts(*step, constants) for step in steps]
    for i in range(2):
        np.testing.assert_array_equal(found[i], np.array([each[i] for each in single]))


def test_the_records_are_those_of_the_device(
    tiny_bundle: Path, detector: Detector, rolled: Rollout, rows: np.ndarray
) -> None:
    device = Detector(read_bundle(tiny_bundle))
    records = [device.step(Sample(index, None, row)) for index, row in enumerate(rows)]
    found = records_of(detector.model, rows)
    assert [record.to_json() for record in found] == [record.to_json() for record in records]
    np.testing.assert_array_equal(rolled.tier, [record.tier for record in records])
    np.testing.assert_array_equal(rolled.flags, [record.flags for record in records])
    np.testing.assert_array_equal(rolled.alarm, [record.alarm for record in records])


def test_the_traces_are_those_of_each_step(
    detector: Detector, rolled: Rollout, rows: np.ndarray
) -> None:
    model = detector.model
    state, fallback = initial_state(model), Fallback(model.manifest, "")
    for index, row in enumerate(rows):
        sample = Sample(index, None, row)
        _, state, traces = step(model, sample, state, fallback.step(sample))
        for name in ("value", "mask", "forecast", "own", "ahead", "gate", "trusted", "doubt"):
            np.testing.assert_array_equal(getattr(rolled, name)[index], getattr(traces, name))
        np.testing.assert_array_equal(rolled.hidden[index], np.concatenate(traces.hidden))
        np.testing.assert_array_equal(rolled.parts[index], state.score.parts)
        np.testing.assert_array_equal(rolled.terms[index], state.score.terms)


def test_the_score_is_the_models_own_also_where_the_fallback_answers(
    detector: Detector, rolled: Rollout, rows: np.ndarray
) -> None:
    tiers = rolled.tier
    assert {1, 3} <= set(tiers)
    scores = np.array([record.score for record in records_of(detector.model, rows)])
    np.testing.assert_array_equal(rolled.score[tiers != 3], scores[tiers != 3])
    assert (rolled.score[tiers == 3] != scores[tiers == 3]).any()


def test_rows_settle_after_the_warm_up(detector: Detector, rolled: Rollout) -> None:
    warmup = detector.model.manifest.tiers.warmup
    assert not rolled.settled[:warmup].any() and rolled.settled[warmup : warmup + 20].all()
    tiers = rolled.tier
    np.testing.assert_array_equal(rolled.settled, (tiers == 1) & rolled.measured)
    assert not rolled.settled[110:115].any() and rolled.settled[-1]


def test_every_array_has_one_row_per_sample(rolled: Rollout) -> None:
    for name in (field.name for field in fields(Rollout) if field.name != "inputs"):
        assert len(getattr(rolled, name)) == ROWS, name
    memories = len(rolled.parts[0])
    assert rolled.parts.shape == (ROWS, memories, len(PARTS)) and memories in (1, 2, 3)
    assert rolled.terms.shape == (ROWS, 3, 3)
    assert ((rolled.saturated >= 0) & (rolled.saturated <= 1)).all()


def test_each_recording_starts_from_a_fresh_state(detector: Detector, rows: np.ndarray) -> None:
    first, second = roll_all(detector.model, [rows[:40], rows[:40]])
    np.testing.assert_array_equal(first.hidden, second.hidden)
    np.testing.assert_array_equal(first.score, second.score)
    later = roll(detector.model, rows[40:60])
    assert not np.array_equal(later.hidden[0], roll(detector.model, rows[:60]).hidden[40])


@pytest.mark.parametrize("kind", ["gate and GRU", "linear"])
@pytest.mark.parametrize("level", [0.0, 0.7])
def test_rescoring_is_rolling_anew_under_the_new_constants(
    tiny_bundle: Path, linear_bundle: Path, tiny_run: Run, kind: str, level: float
) -> None:
    bundle = tiny_bundle if kind == "gate and GRU" else linear_bundle
    model = unchanging(Detector(read_bundle(bundle)).model)
    rows = np.concatenate([tiny_run.rows["test"][0], tiny_run.rows["validate"][0]])
    rows[60:75] = np.nan
    rows[150:160, 1] = 45.0
    old, score = roll(model, rows), model.manifest.score
    changed = replace(
        score,
        weights=(0.8, 0.7, 1.3, level, 0.9, 0.6),
        memories=tuple(
            Memory(
                0.4 * memory.attack,
                0.02,
                tuple(0.8 * x for x in memory.ceiling),
                tuple(0.9 * x + 0.01 for x in memory.mean),
                tuple(1.2 * x + 0.01 for x in memory.std),
            )
            for memory in score.memories
        ),
        residual_mean=tuple(0.5 * x for x in score.residual_mean),
    )
    still = replace(model.manifest, score=changed, change=None)
    other = build_model(still, model.graph, model.model_hash)
    anew, quickly = roll(other, rows), rescored(old, other.score)
    for name in ("parts", "terms", "score"):
        np.testing.assert_array_equal(getattr(quickly, name), getattr(anew, name), err_msg=name)
        assert not np.array_equal(getattr(anew, name), getattr(old, name)), name
    for name in ("value", "forecast", "trusted", "settled"):
        np.testing.assert_array_equal(getattr(quickly, name), getattr(old, name))
    assert quickly.flags is old.flags and quickly.inputs is old.inputs


def test_rescoring_with_the_same_constants_changes_nothing(
    detector: Detector, rolled: Rollout
) -> None:
    again = rescored(rolled, detector.model.score)
    for name in ("parts", "terms", "score"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rolled, name))


def test_the_warm_up_leaves_all_but_the_level_at_its_centre(
    detector: Detector, rolled: Rollout
) -> None:
    warming = (rolled.flags & Flag.WARMUP) > 0
    forecasts = [i for i, name in enumerate(PARTS) if name != "level"]
    centre = detector.model.score.mean
    assert warming.any()
    for parts in rolled.parts[warming]:
        np.testing.assert_array_equal(parts[:, forecasts], centre[:, forecasts])
    assert (rolled.parts != centre)[:, :, PARTS.index("level")].all()
    assert (rolled.parts[~warming] != centre).any(axis=(1, 2)).all()


def test_measuring_anew_is_rolling_anew_under_other_shapes(
    detector: Detector, rolled: Rollout, rows: np.ndarray
) -> None:
    model = detector.model
    score = model.manifest.score
    wider = tuple(tuple(0.5 * x for x in row) for row in score.level_root)
    changed = replace(
        score,
        error_scale=tuple(tuple(1.5 * x for x in row) for row in score.error_scale),
        absent=tuple(tuple(3 * x for x in row) for row in score.absent),
        distance_root=tuple(tuple(2 * x for x in row) for row in score.distance_root),
        level_root=wider,
    )
    other = build_model(replace(model.manifest, score=changed), model.graph, model.model_hash)
    anew, quickly = roll(other, rows), remeasured(rolled, other.score)
    for name in ("raw_parts", "raw_terms"):
        np.testing.assert_array_equal(getattr(quickly, name), getattr(anew, name), err_msg=name)
        assert not np.array_equal(getattr(anew, name), getattr(rolled, name)), name
    smooth = rescored(quickly, other.score)
    for name in ("parts", "terms", "score"):
        np.testing.assert_array_equal(getattr(smooth, name), getattr(anew, name), err_msg=name)


def test_a_rollout_cut_and_joined_again_is_the_same(rolled: Rollout) -> None:
    pieces = [stretch(rolled, *span) for span in ((0, 1), (1, 70), (70, ROWS))]
    assert [len(piece.score) for piece in pieces] == [1, 69, ROWS - 70]
    same(joined(pieces), rolled)


def test_a_pair_starts_afresh_at_a_seam(detector: Detector, rows: np.ndarray) -> None:
    model, seam = detector.model, 60
    pair = roll_pair(model, model, rows, (seam,))
    for found in (pair.quantised, pair.reference):
        assert len(found.score) == len(rows)
        for part, piece in ((slice(0, seam), rows[:seam]), (slice(seam, None), rows[seam:])):
            np.testing.assert_array_equal(found.hidden[part], roll(model, piece).hidden)
    assert pair.quantised.flags[seam] & Flag.WARMUP
    assert (roll_pair(model, model, rows).quantised.hidden[seam:] != found.hidden[seam:]).any()
