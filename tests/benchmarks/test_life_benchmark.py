"""The simulated machines, and what the bars of the benchmark say."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.life import LifeOutcome, bars, kept_weeks, schedule_of, table
from benchmarks.life_rig import CHANNELS, FAULT_UNIT, SLOW_DAYS, simulate

GOOD = LifeOutcome(0, "relearn", (1, 7, 0), 0.005, (1.0, None), (False, True), 0, (0, 3), {})
ORACLE = replace(GOOD, strategy="oracle")


@pytest.mark.parametrize(
    ("mine", "missed"),
    [
        (GOOD, 0),
        (replace(GOOD, false_alarms=(1, 8, 0)), 1),
        (replace(GOOD, alarmed=0.02), 1),
        (replace(GOOD, absorbed=1), 1),
        (replace(GOOD, delays=(None, None)), 1),
    ],
)
def test_a_bar_that_is_missed_is_said(mine: LifeOutcome, missed: int) -> None:
    assert bars([mine, ORACLE]).count("**no**") == missed


def test_a_week_may_have_as_many_false_alarms_as_the_target_allows() -> None:
    assert kept_weeks([replace(GOOD, false_alarms=(7, 8))]) == 0.5
    assert "| relearn | 0.38 | 100% | 0.50% | 1.00 |" in table([GOOD])


def test_a_machine_has_its_faults_and_none_at_first() -> None:
    life, again = simulate(5, 240.0), simulate(5, 240.0)
    assert np.array_equal(life.values, again.values, equal_nan=True)
    slow = [fault for fault in life.faults if fault.slow]
    assert len(slow) == 2 and len(life.faults) == 8
    assert all(f.stop - f.start == SLOW_DAYS * life.rows_a_day for f in slow)
    assert life.healthy[: 3 * life.rows_a_day].all()
    assert np.isnan(life.values).any(axis=1).mean() == pytest.approx(0.02, abs=0.005)
    fault = slow[0]
    rise = life.values[fault.start : fault.stop, fault.channel]
    day = life.rows_a_day
    grown = np.nanmean(rise[-day:]) - np.nanmean(rise[:day])
    assert grown > 0.3 * FAULT_UNIT[fault.channel] and CHANNELS[fault.channel] in (
        "bearing",
        "vibration",
    )


def test_the_schedule_is_daily_in_the_first_week() -> None:
    assert schedule_of(7)[:7] == (3, 4, 5, 6, 7, 8, 15)
