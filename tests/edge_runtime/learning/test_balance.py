"""The parts of the score reach the threshold equally often, and it keeps the target lately."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.bundle.manifest import AlarmRule
from edge_runtime.calibration import debounce, peaks
from edge_runtime.learning.balance import (
    MOST_SCALE,
    AllowedAlarms,
    last,
    level_with,
    part_scales,
)

RULE = AlarmRule(m=2, n=3, clear_after=10)
DAY = 1440


def noise(days: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=round(days * DAY))


def bursts(scores: np.ndarray, height: float, every: int, first: int = 0) -> np.ndarray:
    """Scores [n] that are so high for five rows now and then."""
    found = scores.copy()
    for start in range(first, len(found), every):
        found[start : start + 5] = height
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 40), st.integers(0, 10_000), st.integers(1, 4))
def test_no_more_alarms_exceed_a_level_than_it_is_for(alarms: int, seed: int, pieces: int) -> None:
    scores = np.array_split(noise(2, seed), pieces)
    level = level_with(scores, alarms, RULE)
    assert sum(len(peaks(debounce(each, RULE), level, RULE)) for each in scores) <= alarms


def test_what_began_lately_raises_a_level_though_it_is_rare_in_all_rows() -> None:
    calm, allowed = noise(40), AllowedAlarms(0.5, DAY, RULE)
    new = bursts(calm, 9.0, DAY // 2, first=37 * DAY)
    once = bursts(calm, 9.0, 10**9, first=20 * DAY)
    assert allowed.level([new]) == 9.0 and allowed.level([once]) < 5.0


def test_a_part_that_usual_events_disturb_is_scaled_and_the_others_are_heard() -> None:
    z = np.stack([noise(20, seed) for seed in range(6)], axis=1).reshape(-1, 1, 6)
    z[:, 0, 2] = bursts(z[:, 0, 2], 9.0, DAY // 2)
    scale = part_scales([z], AllowedAlarms(0.5, DAY, RULE))
    assert scale[0, 2] > 1.8 and np.delete(scale[0], 2) == pytest.approx(1, abs=0.3)
    balanced = (z / scale).max(axis=(1, 2))
    assert AllowedAlarms(0.5, DAY, RULE).level([balanced]) < 6.0


def test_scales_have_bounds_and_a_part_without_weight_has_none() -> None:
    z = np.stack([noise(20, seed) for seed in range(6)], axis=1).reshape(-1, 1, 6)
    z[:, 0, 0] *= 100
    z[:, 0, 1] /= 100
    z[:, 0, 5] = -np.inf
    scale = part_scales([z], AllowedAlarms(0.5, DAY, RULE))
    assert scale[0, [0, 1, 5]].tolist() == [MOST_SCALE, 1.0, 1.0]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 9), max_size=6), st.integers(0, 60))
def test_the_last_rows_are_those_at_the_end(lengths: list[int], rows: int) -> None:
    edges = np.cumsum([0, *lengths])
    pieces = [np.arange(a, b, dtype=float) for a, b in pairwise(edges.tolist())]
    end = np.arange(max(edges[-1] - rows, 0), edges[-1])
    assert np.concatenate([np.zeros(0), *last(pieces, rows)]).tolist() == end.tolist()


def test_pieces_that_are_too_short_for_an_alarm_decide_nothing() -> None:
    assert level_with([np.zeros(2), np.zeros(0)], 3, RULE) == -np.inf
