"""A fault that lasts for days is distinguished from seasons, rhythms and noise."""

from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.learning.creep import (
    BEYOND,
    FIRST_DAYS,
    LAG,
    Creeping,
    beyond_usual,
    creeping,
    daily_levels,
    day_numbers,
)
from edge_runtime.learning.past import Past

PERIOD, DAYS = 600.0, 24
DAY = round(86400 / PERIOD)
ROWS = DAYS * DAY
TIME = np.arange(ROWS) / DAY
ALL = np.ones(ROWS, bool)


def machine(seed: int) -> np.ndarray:
    """Load with a daily and a weekly rhythm, heat that follows it and the season, and vibration."""
    rng = np.random.default_rng(seed)
    load = np.sin(2 * np.pi * TIME) * np.where(TIME % 7 < 5, 1, 0.6) + 0.1 * rng.normal(size=ROWS)
    season = 0.05 * TIME + np.sin(2 * np.pi * (TIME - 0.2))
    heat = 2 * load + 3 * season + 0.2 * rng.normal(size=ROWS)
    vibration = 0.5 * load + 0.2 * rng.normal(size=ROWS)
    return np.stack([load, season, heat, vibration], axis=1).astype(np.float32)


def found(
    values: np.ndarray,
    accepted: float | None = None,
    days: int = DAYS,
    answered: Collection[int] = (),
) -> Creeping:
    stop = days * DAY
    past = Past(86400 * 20_000 + PERIOD * np.arange(stop), values[:stop], PERIOD)
    told = [] if accepted is None else [past.times[0] + 86400 * accepted]
    watched = np.array([True, False, True, True])
    return creeping(past, ALL[:stop], watched, told, {20_000 + each for each in answered})


def rising(size: float, first: float, last: float) -> np.ndarray:
    return (size * np.clip((TIME - first) / (last - first), 0, 1) * (last > TIME)).astype(
        np.float32
    )


@pytest.mark.parametrize("seed", range(5))
def test_rhythms_and_a_season_are_no_creep(seed: int) -> None:
    creeps = found(machine(seed))
    assert creeps.now == () and creeps.rows.mean() < 0.3


@pytest.mark.parametrize("channel", [2, 3])
@pytest.mark.parametrize("way", [1, -1])
def test_a_fault_that_grows_for_ten_days_is_named(channel: int, way: int) -> None:
    values = machine(7)
    values[:, channel] += way * rising(3.0, 12, 24)
    (worst, *_) = found(values).now
    assert worst.channel == channel and worst.up == (way > 0) and worst.days >= 5


def risen(values: np.ndarray) -> float:
    """How far the level of the vibration has risen in the end."""
    levels = daily_levels(Past(PERIOD * np.arange(ROWS), values, PERIOD), ALL)
    assert levels is not None
    return float(levels.level[-1, 3] - levels.level[8, 3])


def test_a_season_that_moves_with_the_fault_does_not_explain_it() -> None:
    values, course = machine(7), rising(3.0, 12, 24)
    values[:, 3] += course
    alone = risen(values)
    values[:, 1] += course
    values[:, 2] += 3 * course
    assert risen(values) > 0.7 * alone


def test_its_days_are_left_out_after_the_repair() -> None:
    values = machine(7)
    values[:, 3] += rising(3.0, 8, 18)
    creeps = found(values)
    assert creeps.now == ()
    assert creeps.rows[13 * DAY : 18 * DAY].all() and not creeps.rows[19 * DAY :].any()


@pytest.mark.parametrize("size", [3.0, -3.0])
def test_a_step_that_stays_is_named_until_it_is_accepted(size: float) -> None:
    values = machine(7)
    values[20 * DAY :, 3] += np.float32(size)
    (worst, *_) = found(values).now
    assert worst.channel == 3 and worst.up == (size > 0) and worst.days in (4, 5)
    assert found(values, accepted=22.0).now == ()


@pytest.mark.parametrize("at", [20.0, 20.8])
def test_a_step_whose_alarm_was_false_is_healthy(at: float) -> None:
    values = machine(7)
    values[round(at * DAY) :, 3] += 3
    creeps = found(values, answered=[20])
    assert creeps.now == () and creeps.days == ()


def test_false_alarms_do_not_make_a_slow_fault_healthy() -> None:
    values = machine(7)
    values[:, 3] += rising(3.0, 12, 24)
    assert found(values, answered=range(DAYS)).now


def test_an_accepted_creep_is_the_new_normal() -> None:
    values = machine(7)
    values[:, 3] += rising(3.0, 4, 14) + np.float32(3) * (TIME >= 14)
    assert found(values, days=15).now
    assert found(values, accepted=14.0).now == ()
    assert found(values, accepted=15.0, days=15).now == ()  # the last reading is before it


def test_a_channel_without_readings_and_few_days_are_no_trouble() -> None:
    values = machine(7)
    values[:, 2] = np.nan
    assert found(values).now == () and found(values, days=3).now == ()


def test_days_that_crept_are_named_so_that_they_can_be_remembered() -> None:
    values = machine(7)
    values[:, 3] += rising(3.0, 8, 18)
    creeps = found(values)
    numbers = day_numbers(86400 * 20_000 + PERIOD * np.arange(ROWS))
    assert creeps.days and set(numbers[creeps.rows]) == set(creeps.days)


courses = st.lists(st.floats(-1e6, 1e6), min_size=FIRST_DAYS + 1, max_size=40).map(np.array)


@settings(deadline=None, max_examples=50)
@given(courses, st.floats(-1e3, 1e3))
def test_a_course_has_no_origin_and_no_sign(course: np.ndarray, origin: float) -> None:
    number = np.arange(len(course))
    whole = np.round(course)  # exact, whatever is added
    beyond = beyond_usual(number, whole)
    assert (beyond_usual(number, whole + round(origin)) == beyond).all()
    assert (beyond_usual(number, -whole) == -beyond).all()


@settings(deadline=None, max_examples=50)
@given(st.floats(0.01, BEYOND), st.integers(0, 10))
def test_no_rise_within_the_lag_is_too_slow(step: float, calm: int) -> None:
    """However small its steps, a level is noticed that rises far enough within two weeks."""
    rise = step * np.arange(1, LAG + 1)
    course = np.concatenate([np.zeros(FIRST_DAYS + calm), rise])
    beyond = beyond_usual(np.arange(len(course)), course)
    assert (beyond != 0).any() == (rise[-1] >= BEYOND)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1), st.integers(1, 60))
def test_levels_within_a_narrow_band_are_usual(width: float, seed: int) -> None:
    course = np.random.default_rng(seed).uniform(0, width, 60)
    assert not beyond_usual(np.arange(60), course).any()
