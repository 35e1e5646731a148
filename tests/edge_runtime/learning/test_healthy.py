"""Which rows of the past count as healthy, and which never do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.learning.answers import AnsweredAlarm, OwnerAnswers, TimeSpan
from edge_runtime.learning.healthy import AROUND, BEFORE_REAL, health_of
from edge_runtime.learning.past import JudgedPast, Past

PERIOD, ROWS = 600.0, 2000
AROUND_ROWS = max(round(AROUND / PERIOD), 60)
PAST = Past(PERIOD * np.arange(ROWS), np.zeros((ROWS, 1), np.float32), PERIOD)
NONE = np.zeros(ROWS, bool)


def rows(start: int, stop: int) -> np.ndarray:
    """Whether each row is from `start` up to `stop`."""
    return (np.arange(ROWS) >= start) & (np.arange(ROWS) < stop)


def span(start: int, stop: int) -> TimeSpan:
    return TimeSpan(PERIOD * start, PERIOD * (stop - 1))


def answered(start: int, stop: int, real: bool | None) -> OwnerAnswers:
    return OwnerAnswers((AnsweredAlarm(span(start, stop), real),), -np.inf)


def test_a_past_without_alarms_is_healthy() -> None:
    assert health_of(PAST, JudgedPast(NONE, NONE), OwnerAnswers()).healthy.all()


@given(st.integers(0, ROWS - 2), st.integers(1, 300), st.sampled_from([True, None]), st.booleans())
def test_an_alarm_that_is_not_false_is_never_learned(
    start: int, length: int, real: bool | None, seen: bool
) -> None:
    stop = min(start + length, ROWS)
    judged = JudgedPast(rows(start, stop) if seen else NONE, NONE)
    found = health_of(PAST, judged, answered(start, stop, real))
    assert not found.healthy[max(start - AROUND_ROWS, 0) : stop + AROUND_ROWS].any()
    assert found.healthy[stop + AROUND_ROWS :].all()
    assert found.faulty == (real is True and stop == ROWS)


def test_a_day_before_a_real_alarm_is_left_out() -> None:
    healthy = health_of(PAST, JudgedPast(NONE, NONE), answered(1000, 1010, True)).healthy
    assert not healthy[1000 - round(BEFORE_REAL / PERIOD) : 1000].any()


@given(st.integers(0, ROWS - 2), st.integers(1, 300))
def test_a_false_alarm_is_healthy_and_goes_in(start: int, length: int) -> None:
    stop = min(start + length, ROWS)
    found = health_of(PAST, JudgedPast(rows(start, stop), NONE), answered(start, stop, False))
    assert found.healthy.all() and not found.faulty


def test_an_alarm_of_the_current_detector_alone_is_left_out_but_not_the_change_after_it() -> None:
    judged = JudgedPast(rows(500, 540), rows(540, 1500))
    healthy = health_of(PAST, judged, OwnerAnswers((), -np.inf)).healthy
    assert not healthy[500 - AROUND_ROWS : 540 + AROUND_ROWS].any() and healthy[700:].all()


def test_without_a_log_every_alarm_and_the_change_after_it_are_disputed() -> None:
    judged = JudgedPast(rows(500, 540), rows(540, 1500))
    healthy = health_of(PAST, judged, OwnerAnswers()).healthy
    assert not healthy[500 - AROUND_ROWS : 1500 + AROUND_ROWS].any()


@pytest.mark.parametrize("real", [True, None])
def test_a_change_that_is_not_accepted_is_left_out(real: bool | None) -> None:
    judged = JudgedPast(rows(500, 540), rows(540, ROWS))
    found = health_of(PAST, judged, answered(500, 540, real))
    assert found.faulty == (real is True) and not found.healthy[500:].any()


def test_an_accepted_change_is_healthy_from_its_report_on() -> None:
    judged = JudgedPast(rows(500, 540), rows(540, 900))
    answers = OwnerAnswers((AnsweredAlarm(span(500, 540), None),), -np.inf, (span(540, 900),))
    found = health_of(PAST, judged, answers)
    assert found.healthy[500:].all() and not found.faulty


def test_a_repaired_fault_is_healthy_only_from_its_acceptance_on() -> None:
    judged = JudgedPast(rows(500, 540), rows(540, 900))
    answers = OwnerAnswers((AnsweredAlarm(span(500, 540), True),), -np.inf, (span(540, 900),))
    healthy = health_of(PAST, judged, answers).healthy
    assert not healthy[500:900].any() and healthy[900 + AROUND_ROWS :].all()


def test_muted_rows_are_left_out() -> None:
    healthy = health_of(
        PAST, JudgedPast(NONE, NONE), OwnerAnswers((), -np.inf, muted=(span(3, 9),))
    ).healthy
    assert (healthy == ~rows(3, 9)).all()


def test_what_followed_a_real_alarm_is_named_and_left_out_for_good() -> None:
    judged = JudgedPast(rows(500, 540), rows(540, 900))
    found = health_of(PAST, judged, answered(500, 540, True))
    (span,) = found.changed
    assert span == TimeSpan(float(PAST.times[540]), float(PAST.times[899]))
    again = OwnerAnswers((), -np.inf, left_out=found.changed)
    healthy = health_of(PAST, JudgedPast(NONE, NONE), again).healthy
    assert not healthy[540:900].any() and healthy[900:].all() and healthy[:540].all()
    assert health_of(PAST, judged, answered(500, 540, False)).changed == ()
