"""An alarm that began at this time of day on earlier days is marked; no other, and none is lost."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import faulty_worker
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_runtime.detector.alarm import PAUSE, alarm_stretches
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.recurring_alarms import (
    CAPACITY,
    DAY,
    FEWEST_DAYS,
    MOST_DAYS,
    SHARE,
    WINDOW,
    AlarmHistory,
    AlarmStart,
    RecurringAlarms,
)
from edge_runtime.sinks.outbox import Changes, message
from edge_runtime.supervision.summary import Summary

NONE = Flag(0)
CALM = PAUSE + 1
"""Records without alarm after which the next one begins an alarm."""
NIGHTS = [day * DAY + 7200.0 for day in range(1, 30)]


def start(time: float, *blamed: str) -> AlarmStart:
    return AlarmStart(time, blamed or ("flow",))


def history(times: Iterable[float], *blamed: str) -> AlarmHistory:
    return AlarmHistory(tuple(start(time, *blamed) for time in times))


# The rule.

_seconds = st.integers(-5 * 86400, 40 * 86400)
_clustered = st.builds(
    lambda day, second: day * 86400 + 7200 + second,
    st.integers(0, 30),
    st.integers(-2 * int(WINDOW), 2 * int(WINDOW)),
)
_starts = st.builds(
    AlarmStart, (_seconds | _clustered).map(float), st.sampled_from([("flow",), ("flow", "heat")])
)
_histories = st.lists(_starts, max_size=12).map(lambda starts: AlarmHistory(tuple(starts)))


def by_definition(known: Sequence[AlarmStart], new: AlarmStart) -> bool:
    """Day by day, as the module's first paragraph has it."""
    days, near, like = 0, 0, 0
    for day in range(1, MOST_DAYS + 1):
        same_time = new.time - day * DAY
        found = [
            each
            for each in known
            if set(each.blamed) == set(new.blamed) and abs(each.time - same_time) <= WINDOW
        ]
        days, near = days + bool(found), near + len(found)
    oldest, newest = new.time - MOST_DAYS * DAY - WINDOW, new.time - DAY + WINDOW
    like = sum(e.blamed == new.blamed and oldest <= e.time <= newest for e in known)
    return days >= FEWEST_DAYS and near >= SHARE * like


@given(known=_histories, new=_starts)
@example(known=history([0.0, DAY]), new=start(2 * DAY + WINDOW))
@example(known=history([0.0, DAY]), new=start(2 * DAY + WINDOW + 1))
@example(known=history([0.0, 60.0]), new=start(DAY))  # twice, but on one day
def test_it_is_the_rule_as_it_is_written(known: AlarmHistory, new: AlarmStart) -> None:
    assert known.recurs(new) == by_definition(known.starts, new)


@given(known=_histories, new=_starts, shift=st.integers(-(10**9), 10**9))
def test_midnight_is_nothing_special(known: AlarmHistory, new: AlarmStart, shift: int) -> None:
    moved = AlarmHistory(tuple(replace(e, time=e.time + shift) for e in known.starts))
    assert moved.recurs(replace(new, time=new.time + shift)) == known.recurs(new)


@given(known=_histories, new=_starts, data=st.data())
def test_the_order_in_which_alarms_came_says_nothing(
    known: AlarmHistory, new: AlarmStart, data: st.DataObject
) -> None:
    """So a clock that ran backwards for an hour leaves no trace."""
    other = AlarmHistory(tuple(data.draw(st.permutations(known.starts))))
    assert other.recurs(new) == known.recurs(new)


@given(known=_histories, new=_starts, others=st.lists(_seconds, max_size=20))
def test_alarms_on_other_channels_change_nothing(
    known: AlarmHistory, new: AlarmStart, others: list[int]
) -> None:
    more = (*history(map(float, others), "pressure").starts, *known.starts)
    assert AlarmHistory(more).recurs(new) == known.recurs(new)


@given(times=st.lists(st.floats(0, DAY - WINDOW - 1), max_size=20), age=st.floats(0, 1))
def test_the_same_day_is_no_earlier_day(times: list[float], age: float) -> None:
    assert not history(times).recurs(start(age * (DAY - WINDOW - 1)))


def test_two_nights_make_the_third_one_recur() -> None:
    assert [history(NIGHTS[:n]).recurs(start(NIGHTS[n])) for n in range(5)] == [
        False, False, True, True, True,
    ]  # fmt: skip
    assert not history(NIGHTS[:5], "flow").recurs(start(NIGHTS[5], "flow", "heat"))
    assert not history(NIGHTS[:5]).recurs(start(NIGHTS[5] + 2 * WINDOW))
    assert not history(NIGHTS[:2]).recurs(start(NIGHTS[2 + MOST_DAYS]))


def test_what_comes_at_all_hours_hardly_ever_recurs() -> None:
    """Three a day at any time: there is nearly always one within half an hour two days ago."""
    rng = np.random.default_rng(3)
    marked = alarms = 0
    for rate in (0.3, 1, 3, 10):
        for _ in range(200):
            earlier = rng.uniform(0, 14 * DAY, rng.poisson(14 * rate))
            marked += history(map(float, earlier)).recurs(start(14 * DAY + 7200))
            alarms += 1
    assert 0 < marked < 0.05 * alarms


@given(times=st.lists(st.floats(-1e15, 1e15), max_size=20), before=st.integers(0, 2 * CAPACITY))
def test_the_memory_is_bounded_and_keeps_the_newest(times: list[float], before: int) -> None:
    known, times = AlarmHistory(), [0.0] * before + times
    for time in times:
        known.recurs(start(time))
        known = known.after(start(time))
    assert known == history(times[-CAPACITY:])


# The records of a stream.


def record(
    index: int, time: float | None, alarm: bool, flags: Flag = NONE, blamed: str = "flow"
) -> Record:
    answer = faulty_worker.model_record(Sample(index, time, np.zeros(1, np.float32)), flags)
    return replace(answer, alarm=alarm, blamed=tuple(blamed.split()) if alarm else ())


def night(time: float | None, flags: Flag = NONE, blamed: str = "flow") -> list[Record]:
    """Calm records before an alarm of three that begins at `time`."""
    calm = [record(0, None, False)] * CALM
    return calm + [record(0, time, True, flags, blamed)] * 3


def marks(alarms: RecurringAlarms, records: Iterable[Record]) -> list[bool]:
    """Whether each record in alarm is marked."""
    told = [alarms.mark(each) for each in records]
    return [Flag.RECURRING in each.flags for each in told if each.alarm]


def test_all_records_in_alarm_are_marked_and_no_other() -> None:
    alarms = RecurringAlarms(1.0)
    for time in NIGHTS[:2]:
        assert not any(marks(alarms, night(time)))
    pausing = [*night(NIGHTS[2]), record(0, None, False), record(0, None, True, blamed="heat")]
    told = [alarms.mark(each) for each in pausing]
    assert [Flag.RECURRING in each.flags for each in told] == [each.alarm for each in pausing]


def test_all_blamed_channels_count_and_their_order_does_not() -> None:
    alarms = RecurringAlarms(1.0)
    for time, blamed in zip(NIGHTS, ("flow heat", "heat flow"), strict=False):
        assert not any(marks(alarms, night(time, blamed=blamed)))
    assert all(marks(alarms, night(NIGHTS[2], blamed="flow heat")))
    assert not any(marks(alarms, night(NIGHTS[3], blamed="flow")))


_times = st.none() | st.floats() | _clustered.map(float)
_flags = st.sampled_from([Flag(0), Flag.TIMING, Flag.WARMUP, Flag.GAP | Flag.TIMING])
_pieces = st.lists(
    st.tuples(st.integers(0, 2 * CALM), st.integers(1, 4), _times, _flags,
              st.sampled_from(["flow", "flow heat", ""])), max_size=12,
)  # fmt: skip


@given(pieces=_pieces, period=st.sampled_from([None, 1.0, 300.0, 1e5]), live=st.booleans())
def test_a_mark_is_all_that_is_ever_changed(
    pieces: list[tuple[int, int, float | None, Flag, str]], period: float | None, live: bool
) -> None:
    """Whatever the clocks say: the same record, and one decision for each alarm."""
    records = [
        each
        for calm, length, time, flags, blamed in pieces
        for each in [
            *[record(0, None, False)] * calm,
            *[record(0, time, True, flags, blamed)] * length,
        ]
    ]
    alarms = RecurringAlarms(period, (lambda: 7200.0) if live else None)
    told = [alarms.mark(each) for each in records]
    for before, after in zip(records, told, strict=True):
        assert replace(after, flags=after.flags & ~Flag.RECURRING) == before or math.isnan(
            before.time or 0.0
        )
        assert after.alarm or Flag.RECURRING not in after.flags
    for begin, stop in alarm_stretches([each.alarm for each in records]):
        found = {Flag.RECURRING in each.flags for each in told[begin:stop] if each.alarm}
        assert len(found) == 1
    for known in alarms.history.starts:
        assert math.isfinite(known.time) and known.blamed


@pytest.mark.parametrize("lie", [math.nan, math.inf, -math.inf, 1e300])
def test_a_time_that_is_none_begins_nothing_and_disturbs_nothing(lie: float) -> None:
    alarms = RecurringAlarms(1.0)
    for time in (NIGHTS[0], lie, NIGHTS[1], lie):
        assert not any(marks(alarms, night(time)))
    assert alarms.history == history(NIGHTS[:2])
    assert all(marks(alarms, night(NIGHTS[2])))


def test_a_time_that_is_not_to_be_believed_neither() -> None:
    alarms = RecurringAlarms(1.0)
    for time in NIGHTS[:4]:
        assert not any(marks(alarms, night(time, Flag.TIMING)))
    assert alarms.history == AlarmHistory()


def test_a_clock_that_jumps_a_year_and_back_forgets_nothing() -> None:
    alarms, year = RecurringAlarms(None), 365 * DAY
    for time in (NIGHTS[0], NIGHTS[1], NIGHTS[2] + year, NIGHTS[2] - year):
        assert not any(marks(alarms, night(time)))
    assert all(marks(alarms, night(NIGHTS[3])))


def test_a_clock_that_stands_still_or_runs_backwards_finds_no_earlier_day() -> None:
    for times in ([7200.0] * 9, NIGHTS[8::-1]):
        alarms = RecurringAlarms(1.0)
        assert not any(any(marks(alarms, night(time))) for time in times)


def test_a_local_clock_in_summer_time_shifts_by_an_hour_and_is_known_again() -> None:
    alarms = RecurringAlarms(1.0)
    times = [*NIGHTS[:3], *(time + 3600 for time in NIGHTS[3:6])]
    assert [all(marks(alarms, night(time))) for time in times] == [
        False, False, True, False, False, True,
    ]  # fmt: skip


def test_without_times_the_index_tells_the_time_of_day_if_the_period_is_known() -> None:
    def told(period: float | None) -> list[bool]:
        alarms = RecurringAlarms(period)
        each_day = [[replace(r, index=288 * day) for r in night(None)] for day in range(4)]
        return [all(marks(alarms, records)) for records in each_day]

    assert told(300.0) == [False, False, True, True]
    assert told(299.0) == [False, False, True, True]  # an hour off in two weeks
    assert told(200.0) == told(None) == [False] * 4


def test_without_times_a_live_source_has_the_time_of_the_host() -> None:
    now = iter(NIGHTS)
    alarms = RecurringAlarms(1.0, lambda: next(now))
    assert [all(marks(alarms, night(None))) for _ in range(4)] == [False, False, True, True]


def test_samples_that_are_hours_apart_tell_no_time_of_day() -> None:
    """One a day is at the same time each day, whatever it says."""
    for period, recurs in ((2 * WINDOW, True), (DAY, False)):
        alarms = RecurringAlarms(period)
        assert [all(marks(alarms, night(time))) for time in NIGHTS[:3]][2] is recurs


@pytest.mark.parametrize("before", [
    [], [record(0, None, False)] * (CALM - 1), [record(0, None, False, Flag.WARMUP)] * 3 * CALM,
])  # fmt: skip
def test_an_alarm_that_is_on_at_the_start_began_at_no_known_time(before: list[Record]) -> None:
    """A fault that lasts, on a host that restarts each night, is not what recurs."""
    known = history(NIGHTS[:5])
    alarms = RecurringAlarms(1.0, history=known)
    assert not any(marks(alarms, [*before, *night(NIGHTS[5])[CALM:]]))
    assert alarms.history == known
    assert all(marks(alarms, night(NIGHTS[6])))


# Whoever counts or announces them.


def a_week() -> list[Record]:
    alarms = RecurringAlarms(1.0)
    return [alarms.mark(each) for time in NIGHTS[:5] for each in night(time)]


def test_they_are_counted_apart() -> None:
    summary = Summary()
    for each in a_week():
        summary.add(each, 0.0)
    fields = json.loads(summary.to_json())
    assert (fields["alarms"], fields["recurring"]) == (5, 3)
    assert fields["flags"] == {"RECURRING": 9}
    assert "alarms       5 (3 recurring)\n" in summary.to_text()
    assert "5 alarms (3 recurring) so far" in summary.status()


def test_they_are_announced_like_any_other_and_say_so() -> None:
    wanted = Changes()
    sent = [m for m in (message("r", each) for each in a_week()) if wanted(m)]
    begun = [fields for fields in map(json.loads, sent) if fields["alarm"]]
    assert ["RECURRING" in fields["flags"] for fields in begun] == [False] * 2 + [True] * 3
