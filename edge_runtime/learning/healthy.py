"""Which rows of the past were healthy: those that nobody disputes.

A row was not healthy if it was in alarm, or flagged CHANGED after an alarm, unless the owner marked
that alarm as false or accepted the change. An alarm that nobody has marked is disputed. Alarms come
late and end early, so rows around them are left out, too; many more before a real one. Muted rows
are left out, because somebody may have worked on the machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.record import Float32

Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

BEFORE, AFTER, BEFORE_REAL = 3600.0, 3600.0, 86400.0
"""Seconds around a disputed alarm, and before one that the owner marked as real."""
FEWEST_AROUND = 60
"""Rows that this is at least."""


@dataclass(frozen=True)
class Span:
    """A stretch of time, both ends included, in seconds of the readings."""

    start: float
    end: float


@dataclass(frozen=True)
class AnsweredAlarm:
    """An alarm that a run logged. real: as the owner marked it; None while nobody has."""

    span: Span
    real: bool | None


@dataclass(frozen=True)
class Answers:
    """What the owner said. accepted: from the report of a change until it was accepted."""

    alarms: tuple[AnsweredAlarm, ...] = ()
    accepted: tuple[Span, ...] = ()
    muted: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Past:
    """Slots of the sample clock. times: seconds [n]. values: [n, channels], NaN where missing."""

    times: Float64
    values: Float32
    period: float


@dataclass(frozen=True)
class Judged:
    """By the current detector: whether each row is in alarm, and flagged CHANGED; [n]."""

    alarm: Bools
    changed: Bools


@dataclass(frozen=True)
class Health:
    """healthy: of each row [n]. open: whether the last rows are disputed or real."""

    healthy: Bools
    open: bool


def health_of(past: Past, judged: Judged, answers: Answers) -> Health:
    """Return which rows were healthy."""
    times, count = past.times, len(past.times)
    logged = np.zeros(count, bool)
    for alarm in answers.alarms:
        logged |= _within(times, alarm.span)
    alarms = alarm_stretches(judged.alarm | logged)
    real = [_real(times[a], times[b - 1], answers.alarms) for a, b in alarms]
    changes = alarm_stretches(judged.changed, pause=0)
    led = [_led_by(start, alarms) for start, _ in changes]
    for (start, stop), lead in zip(changes, led, strict=True):
        if lead is not None and _touches(times[start], times[stop - 1], answers.accepted):
            real[lead] = False
    sick = np.zeros(count, bool)
    for (start, stop), verdict in zip(alarms, real, strict=True):
        if verdict is not False:
            _leave_out(sick, start, stop, past.period, verdict is True)
    for (start, stop), lead in zip(changes, led, strict=True):
        if lead is None or real[lead] is not False:
            _leave_out(sick, start, stop, past.period, False)
    for span in answers.muted:
        sick |= _within(times, span)
    ends = [stop for (_, stop), lead in zip(changes, led, strict=True) if _bad(lead, real)]
    ends += [stop for (_, stop), verdict in zip(alarms, real, strict=True) if verdict is not False]
    return Health(~sick, count in ends)


def _bad(lead: int | None, real: Sequence[bool | None]) -> bool:
    return lead is None or real[lead] is not False


def _within(times: Float64, span: Span) -> Bools:
    return np.asarray((times >= span.start) & (times <= span.end))


def _real(start: float, end: float, alarms: Sequence[AnsweredAlarm]) -> bool | None:
    """Return the owner's mark on the alarm from `start` to `end`; None if there is a doubt."""
    marks = [a.real for a in alarms if a.span.start <= end and a.span.end >= start]
    if True in marks:
        return True
    return False if marks and None not in marks else None


def _led_by(start: int, alarms: Sequence[tuple[int, int]]) -> int | None:
    """Return the number of the alarm after which a change was reported at row `start`."""
    before = [number for number, (first, _) in enumerate(alarms) if first <= start]
    return before[-1] if before else None


def _touches(start: float, end: float, spans: Sequence[Span]) -> bool:
    return any(span.start <= end and span.end >= start for span in spans)


def _leave_out(sick: Bools, start: int, stop: int, period: float, real: bool) -> None:
    before = max(round((BEFORE_REAL if real else BEFORE) / period), FEWEST_AROUND)
    after = max(round(AFTER / period), FEWEST_AROUND)
    sick[max(start - before, 0) : stop + after] = True
