"""A rollout is the device's own step over a recording, with everything inside it kept."""

from pathlib import Path

import numpy as np
import pytest

from convert.rollout import Rollout, roll, roll_all
from edge_runtime.bundle import read_bundle
from edge_runtime.detector import Detector
from edge_runtime.fallback import Fallback
from edge_runtime.record import Sample
from edge_runtime.step import initial_state, step
from train.run_folder import Run

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


def test_the_records_are_those_of_the_device(
    tiny_bundle: Path, rolled: Rollout, rows: np.ndarray
) -> None:
    device = Detector(read_bundle(tiny_bundle))
    records = [device.step(Sample(index, None, row)) for index, row in enumerate(rows)]
    assert [record.to_json() for record in rolled.records] == [r.to_json() for r in records]


def test_the_traces_are_those_of_each_step(
    detector: Detector, rolled: Rollout, rows: np.ndarray
) -> None:
    model = detector.model
    state, fallback = initial_state(model), Fallback(model.manifest, "")
    for index, row in enumerate(rows):
        sample = Sample(index, None, row)
        _, state, traces = step(model, sample, state, fallback.step(sample))
        for name in ("value", "mask", "forecast", "gate", "doubt"):
            np.testing.assert_array_equal(getattr(rolled, name)[index], getattr(traces, name))
        np.testing.assert_array_equal(rolled.hidden[index], np.concatenate(traces.hidden))
        np.testing.assert_array_equal(rolled.parts[index], state.score.parts)
        np.testing.assert_array_equal(rolled.terms[index], state.score.terms)


def test_the_score_is_the_models_own_also_where_the_fallback_answers(rolled: Rollout) -> None:
    tiers = np.array([record.tier for record in rolled.records])
    assert {1, 3} <= set(tiers)
    scores = np.array([record.score for record in rolled.records])
    np.testing.assert_array_equal(rolled.score[tiers != 3], scores[tiers != 3])
    assert (rolled.score[tiers == 3] != scores[tiers == 3]).any()


def test_rows_settle_after_the_warm_up(detector: Detector, rolled: Rollout) -> None:
    warmup = detector.model.manifest.tiers.warmup
    assert not rolled.settled[:warmup].any() and rolled.settled[warmup : warmup + 20].all()
    tiers = np.array([record.tier for record in rolled.records])
    np.testing.assert_array_equal(rolled.settled, tiers != 3)


def test_every_array_has_one_row_per_sample(rolled: Rollout) -> None:
    for name in ("records", "traces", "value", "parts", "terms", "score", "settled", "saturated"):
        assert len(getattr(rolled, name)) == ROWS, name
    assert rolled.parts.shape == (ROWS, 4) and rolled.terms.shape == (ROWS, 3, 3)
    assert ((rolled.saturated >= 0) & (rolled.saturated <= 1)).all()


def test_each_recording_starts_from_a_fresh_state(detector: Detector, rows: np.ndarray) -> None:
    first, second = roll_all(detector.model, [rows[:40], rows[:40]])
    np.testing.assert_array_equal(first.hidden, second.hidden)
    np.testing.assert_array_equal(first.score, second.score)
    later = roll(detector.model, rows[40:60])
    assert not np.array_equal(later.hidden[0], roll(detector.model, rows[:60]).hidden[40])
