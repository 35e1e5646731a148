"""One event is one alarm: what counts alarms, announces or lists them bridges the same pauses."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.detector.alarm import PAUSE, AlarmCourse, alarm_stretches
from edge_runtime.sinks.outbox import Changes

lengths = st.lists(st.tuples(st.booleans(), st.integers(1, 2 * PAUSE)), max_size=12)


def message(alarm: bool, run: str = "a", tier: int = 1, flags: object = ()) -> bytes:
    fields = {"run": run, "index": 0, "tier": tier, "valid": True, "alarm": alarm, "flags": flags}
    return json.dumps(fields).encode()


def rows(stretches: list[tuple[bool, int]]) -> np.ndarray:
    return np.repeat([on for on, _ in stretches], [n for _, n in stretches]).astype(bool)


def test_a_pause_of_the_longest_length_is_bridged_and_one_more_is_not() -> None:
    assert alarm_stretches([1, *[0] * PAUSE, 1, 1, 0]) == [(0, PAUSE + 3)]
    assert alarm_stretches([1, *[0] * (PAUSE + 1), 1]) == [(0, 1), (PAUSE + 2, PAUSE + 3)]
    assert alarm_stretches([0, 0]) == alarm_stretches([]) == []


@given(lengths)
def test_all_at_once_is_record_by_record(stretches: list[tuple[bool, int]]) -> None:
    alarm, course, starts = rows(stretches), AlarmCourse(), []
    for index, on in enumerate(alarm.tolist()):
        begun, course = course.going_on, course.after(on)
        if course.going_on and not begun:
            starts.append(index)
    found = alarm_stretches(alarm)
    assert [start for start, _ in found] == starts
    assert all(alarm[start] and alarm[stop - 1] for start, stop in found)
    assert sum(int(alarm[start:stop].sum()) for start, stop in found) == alarm.sum()


@given(lengths)
def test_a_receiver_of_changes_hears_of_each_alarm_once_and_of_its_end(
    stretches: list[tuple[bool, int]],
) -> None:
    alarm, wanted = rows(stretches), Changes()
    heard = [on for on in alarm.tolist() if wanted(message(on))]
    assert heard[1:] == [not on for on in heard[:-1]]
    assert sum(heard) == len(alarm_stretches(alarm))
    if len(alarm) and alarm[-1]:
        assert heard[-1]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=200))
def test_changes_of_tier_are_no_alarms(records: list[tuple[bool, int]]) -> None:
    steady, flapping = Changes(), Changes()
    for alarm, tier in records:
        assert steady(message(alarm)) == flapping(message(alarm, tier=tier))


@pytest.mark.parametrize("alarm", [True, False])
def test_another_run_begins_anew(alarm: bool) -> None:
    wanted = Changes()
    assert wanted(message(True)) and wanted(message(alarm, run="b"))
    assert wanted(message(True, run="b")) is not alarm


def test_an_alarm_that_goes_on_is_told_again_where_a_mute_begins_and_ends() -> None:
    wanted, muted = Changes(), ["MUTED"]
    told = [
        wanted(message(True)), wanted(message(True, flags=muted)), wanted(message(False)),
        wanted(message(True, flags=muted)), wanted(message(True)), wanted(message(True)),
    ]  # fmt: skip
    assert told == [True, True, False, False, True, False]
    assert wanted(message(True, flags="MUTED")) is False  # of a version that has no list
