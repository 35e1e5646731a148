"""A slow fault is distinguished from seasons, rhythms, steps and noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.learning.creep import Creeping, creeping, crept_days, daily_levels
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


def found(values: np.ndarray, accepted: float | None = None, days: int = DAYS) -> Creeping:
    stop = days * DAY
    past = Past(86400 * 20_000 + PERIOD * np.arange(stop), values[:stop], PERIOD)
    told = [[] if accepted is None else [past.times[0] + 86400 * accepted]] * values.shape[1]
    watched = np.array([True, False, True, True])
    return creeping(past, ALL[:stop], watched, told)


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


def test_a_step_is_no_creep() -> None:
    values = machine(7)
    values[15 * DAY :, 3] += 3
    assert found(values).now == ()


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


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1e6, 1e6), min_size=0, max_size=40))
def test_a_flat_course_after_any_other_is_no_new_creep(course: list[float]) -> None:
    levels = np.array([*course, *[0.0] * 20])
    start, crept = crept_days(np.arange(len(levels)), levels)
    assert (start[crept] < len(course)).all()
