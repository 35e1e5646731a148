"""Of many clean rows a linear detector is fitted on some; its limits are those of all of them."""

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.columns import NOTHING_SAID
from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.learning import calibrated as calibrated_module
from edge_runtime.learning import fallback_limits, thinning
from edge_runtime.learning.calibrated import Calibrated
from edge_runtime.learning.fallback_limits import LargestViews
from edge_runtime.learning.learn import linear_run, measure
from edge_runtime.learning.recording import Dataset, Recording
from edge_runtime.learning.request import Data
from edge_runtime.learning.rollout import roll, roll_all
from edge_runtime.learning.settings import load_settings
from edge_runtime.learning.shipped import shipped_model
from edge_runtime.learning.smoothing import smoothed
from edge_runtime.learning.split import split_by_time
from edge_runtime.learning.thinning import (
    BLOCK,
    MOST_ROWS,
    fitted_rows,
    fitted_spans,
    rest_spans,
)

sys.path.insert(0, str(Path(__file__).parents[1]))
from relearn_rig import DAY, NAMES, PERIOD, machine

LENGTHS = st.lists(st.integers(0, 3 * MOST_ROWS), min_size=1, max_size=12)
SHORT = st.lists(st.integers(0, 50), min_size=600, max_size=900)
FEW = 1000


def silent(sentence: str) -> None:
    """Discard progress."""


@pytest.mark.long
@settings(deadline=None)
@given(st.one_of(LENGTHS, SHORT))
def test_each_row_is_fitted_or_in_the_rest(lengths: list[int]) -> None:
    fitted, rest = fitted_spans(lengths), rest_spans(lengths)
    seen = [np.zeros(length, int) for length in lengths]
    for number, start, stop in [*fitted, *rest]:
        assert 0 < stop - start <= MOST_ROWS
        seen[number][start:stop] += 1
    assert all((rows == 1).all() for rows in seen)
    assert fitted == sorted(fitted) and rest == sorted(rest)
    count = sum(stop - start for _, start, stop in fitted)
    if sum(lengths) <= MOST_ROWS:
        assert count == sum(lengths) and not rest
    else:
        assert MOST_ROWS / 2 <= count <= 1.5 * MOST_ROWS


def test_fitted_rows_are_of_all_hours() -> None:
    day = 1440
    hours = np.arange(300 * day) % day // 60
    (rows,) = {len(hours)}
    found = {int(h) for _, start, stop in fitted_spans([rows]) for h in hours[start:stop]}
    assert found == set(range(24))


def learned(
    values: np.ndarray, every: bool = False, say: Callable[[str], None] = silent
) -> Calibrated:
    recording = Recording("machine", NAMES, None, values, None, PERIOD)
    data = Data(
        Dataset((recording,)),
        split_by_time([recording], gap=8, margin=8),
        load_settings(None, NAMES),
        PERIOD,
        (),
        NOTHING_SAID,
    )
    return measure(linear_run(data, "pump", 0, silent, every), 1, 1.0, say)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are many already."""
    monkeypatch.setattr(thinning, "MOST_ROWS", FEW)


def restless(days: int, seed: int) -> np.ndarray:
    """A machine whose errors come in clusters, so that no ceiling bounds the score."""
    values, rng = machine(days, seed), np.random.default_rng(seed)
    restlessness = np.exp(smoothed(rng.normal(size=len(values)), 0.02) * 6)
    values[:, 1:] = values[:, 1:] - values[:, :1] * (2, 0)
    values[:, 1:] *= restlessness[:, np.newaxis]
    values[:, 1] += 2 * values[:, 0]
    return values


def rare(values: np.ndarray, size: float) -> np.ndarray:
    """What a healthy machine does some times a day, outside of the rows that are fitted."""
    values, count = values.copy(), round(0.9 * len(values))
    for _, start, stop in rest_spans([count]):
        for row in range(start + 20, stop - 20, DAY // 4):
            values[row : row + 6, 1] += size
    return values


@pytest.mark.usefixtures("few")
def test_rare_rows_that_were_not_fitted_raise_threshold_and_fallback_limits() -> None:
    calm = restless(20, 1)
    usual, raised = learned(calm), learned(rare(calm, 8.0))
    before, after = (
        next(iter(each.manifest.thresholds.values())).value for each in (usual, raised)
    )
    assert after > 1.5 * before
    limits = [each.manifest.fallback.range[1] for each in (usual, raised)]
    assert limits[1] > 1.3 * limits[0]
    later = rare(restless(20, 2), 8.0)
    alarms = [
        len(alarm_stretches(roll(shipped_model(each.manifest, b""), later).alarm))
        for each in (usual, raised)
    ]
    assert alarms[0] > 20 > 5 > alarms[1]  # the target is one a day


@pytest.mark.usefixtures("few")
def test_the_statement_says_what_was_fitted_and_counts_all_rows() -> None:
    found = learned(machine(20, 1)).calibration
    rows = found.threshold.clean_days * DAY
    assert rows > 0.85 * 20 * DAY
    (count,) = {sum(map(len, fitted_rows([np.zeros((20 * DAY, 3), np.float32)])))}
    assert count <= FEW + BLOCK
    assert "with the model fitted on " in found.threshold.statement


@pytest.mark.long
@pytest.mark.usefixtures("few")
def test_all_rows_are_fitted_where_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    values = machine(8, 1)
    found = learned(values, every=True)
    monkeypatch.setattr(thinning, "MOST_ROWS", MOST_ROWS)
    assert found.manifest == learned(values).manifest != learned(machine(8, 2)).manifest


@pytest.mark.usefixtures("few")
def test_the_scoring_of_the_rest_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    said, seconds = list[str](), itertools.count(0.0, 6.0)
    clock = SimpleNamespace(monotonic=seconds.__next__)
    monkeypatch.setattr(calibrated_module, "time", clock)
    learned(machine(20, 1), say=said.append)
    lines = [line for line in said if "rows scored" in line]
    done = [int(line.split()[0].replace(",", "")) for line in lines]
    (total,) = {int(line.split()[2].replace(",", "")) for line in lines}
    assert total > 0.9 * 20 * DAY - 2 * FEW and done == sorted(set(done)) and len(done) > 3
    assert total - done[-1] <= thinning.PIECE  # the last piece ends it


def test_the_statement_of_few_rows_says_nothing_of_it() -> None:
    assert "fitted" not in learned(machine(4, 1)).calibration.threshold.statement


@pytest.mark.usefixtures("few")
def test_one_anomaly_among_the_rest_does_not_decide_the_threshold() -> None:
    calm = restless(20, 1)
    dirty = calm.copy()
    (_, start, stop) = rest_spans([round(0.9 * len(calm))])[1]
    dirty[(start + stop) // 2 :][:8] += 400
    usual, found = learned(calm).calibration, learned(dirty).calibration
    assert found.threshold.value < 1.2 * usual.threshold.value
    assert "like no others left out" in found.threshold.statement


@pytest.mark.long
@pytest.mark.parametrize("at_once", [1, 500, 10**9])
def test_many_pieces_have_the_largest_views_of_each_by_itself(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(fallback_limits, "_AT_ONCE", at_once)
    rows = machine(3, 1)
    rows[50:60, 0], rows[200:230, 1] = np.nan, rows[200, 1]
    model = shipped_model(learned(machine(4, 2)).manifest, b"")
    rollouts = roll_all(model, [rows[:70], rows[70:400], rows[400:401], rows[401:]])
    together, alone = LargestViews(model.manifest.channels), []
    for rollout in rollouts:
        together.add(rollout)
        each = LargestViews(model.manifest.channels)
        each.add(rollout)
        alone.append(each.found())
    assert (together.found() == np.max(alone, axis=0)).all()
    doubled = LargestViews(model.manifest.channels)
    doubled.add(replace(rollouts[1], value=2 * rollouts[1].value))
    assert (doubled.found() != alone[1]).any()
