"""The tail of clean scores: clusters, the fit by hand, and what its upper limit promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bundle.manifest import AlarmRule
from edge_runtime.calibration import (
    FEWEST_PEAKS,
    LEVELS,
    UPPER_LIMIT,
    Tail,
    fit_tail,
    peaks,
    tail_of,
)
from edge_runtime.detector.alarm import AlarmCourse, AlarmState, update_alarm

ALARM = AlarmRule(m=1, n=1, clear_after=10)
FAR = 50  # samples from one peak to the next of the same alarm, at most


def test_an_alarm_is_one_peak() -> None:
    scores = np.zeros(300)
    scores[[10, 12, 12 + FAR]] = [2, 5, 3]
    scores[[13 + 2 * FAR, 200]] = [4, 1]
    assert peaks(scores, 0.5, ALARM).tolist() == [5, 4, 1]
    assert peaks(scores, 1.5, ALARM).tolist() == [5, 4]
    assert peaks(scores, 5.0, ALARM).tolist() == []


@given(
    scores=st.lists(st.integers(-3, 3), max_size=200),
    level=st.integers(-3, 3),
    spread=st.integers(1, 60),
)
def test_there_are_as_many_peaks_as_alarms_on_the_device(
    scores: list[int], level: int, spread: int
) -> None:
    stretched = np.full(len(scores) * spread, -9.0)
    stretched[::spread] = scores
    state, course, tops = AlarmState(), AlarmCourse(), list[float]()
    for score in stretched.tolist():
        state = update_alarm(score, level, level, ALARM.m, ALARM.n, ALARM.clear_after, state)
        begun, course = course.going_on, course.after(state.active)
        if course.going_on and not begun:
            tops.append(score)
        elif course.going_on:
            tops[-1] = max(tops[-1], score)
    assert peaks(stretched, level, ALARM).tolist() == tops


def test_a_tail_by_hand() -> None:
    tail = fit_tail(np.array([3.0, 4.0, 8.0]), 2.0, 1.5)
    assert tail == Tail(level=2.0, count=3, days=1.5, scale=3.0)
    assert tail.reached(2.0) == 2.0 and tail.reached(5.0) == 2.0
    assert tail.reached(0.2) == pytest.approx(2 + 3 * np.log(10))


def events(heights: np.ndarray) -> np.ndarray:
    """Scores at 0 but for an event of each height, far apart: ten rows that rise to it."""
    scores = np.zeros((len(heights), 200))
    scores[:, 90:100] = heights[:, np.newaxis] * np.linspace(0.1, 1, 10)
    return scores.ravel()


def test_peaks_that_are_all_alike_raise_the_level() -> None:
    varied = np.random.default_rng(1).exponential(1.0, 40)
    tail, found = tail_of([events(varied)], 1.0, ALARM)
    assert tail and tail.level < 0.1 and tail.count == len(found) == 40
    alike = events(8 + varied)
    tail, found = tail_of([alike], 1.0, ALARM)
    assert tail and tail.level == np.quantile(alike, LEVELS[-1]) > 4
    assert tail == fit_tail(found, tail.level, 1.0)


def test_too_few_peaks_make_no_tail() -> None:
    heights = np.random.default_rng(2).exponential(1.0, FEWEST_PEAKS)
    tail, found = tail_of([events(heights)], 1.0, ALARM)
    assert tail and tail.count == len(found) == FEWEST_PEAKS
    tail, found = tail_of([events(heights[1:])], 1.0, ALARM)
    assert tail is None and len(found) == FEWEST_PEAKS - 1


def test_the_upper_limit_holds_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), []
    for _ in range(600):
        found = 1 + rng.exponential(1.0, max(rng.poisson(40), 1))
        limit = fit_tail(found, 1.0, 4.0).upper(0.5)
        held.append(limit >= 1 + np.log(10 / 0.5))  # truly 10 peaks a day of mean excess 1
    assert np.mean(held) == pytest.approx(UPPER_LIMIT, abs=0.04)


@given(count=st.integers(1, 500), per_day=st.tuples(*(st.floats(0.01, 1000),) * 2))
def test_rarer_alarms_never_lower_the_limit(count: int, per_day: tuple[float, float]) -> None:
    tail = Tail(level=1.0, count=count, days=2.0, scale=0.7)
    few, many = sorted(per_day)
    assert tail.upper(few) >= tail.upper(many) >= 1.0
    assert tail.upper(few) == tail.upper(few)  # the same bootstrap every time


def test_more_peaks_say_more() -> None:
    spare = [
        Tail(1.0, count, count / 10, 1.0).upper(0.1)
        - Tail(1.0, count, count / 10, 1.0).reached(0.1)
        for count in (10, 100, 1000)
    ]
    assert spare[0] > spare[1] > spare[2] > 0
