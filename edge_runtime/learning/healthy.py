"""Which rows of the past were healthy: those that nobody disputes.

An alarm that the owner marked as false was healthy. One that the owner marked as real was not, and
one without a mark is disputed. Alarms come late and end early, so rows around both are left out;
many more before a real one. The rows flagged CHANGED after an alarm share its verdict. An accepted
change is healthy from its report on, but from its acceptance on if an alarm in it was real. Muted
rows are left out, because somebody may have worked on the machine.

What followed a real alarm is left out for good. The next detector may see nothing strange there.

The current detector may raise alarms in the past that no run raised, because another bundle ran
then. The owner never saw those alarms: their rows are left out, but what is CHANGED after stays.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.learning.answers import OwnerAnswers, TimeSpan
from edge_runtime.learning.past import JudgedPast, Past

Bools = npt.NDArray[np.bool_]
Stretch = tuple[int, int]

AROUND, BEFORE_REAL = 3600.0, 86400.0
"""Seconds that are left out before and after an alarm, and before one that was marked as real."""
FEWEST_AROUND = 60
"""Rows that this is at least."""


class AlarmVerdict(enum.Enum):
    """What is known of an alarm."""

    FALSE = "false"
    REAL = "real"
    DISPUTED = "disputed"
    UNSEEN = "unseen"  # no run has raised it


@dataclass(frozen=True)
class PastHealth:
    """healthy: of each row [n]. faulty: whether a real alarm, or the change after it, goes on.

    changed: what followed real alarms.
    """

    healthy: Bools
    faulty: bool
    changed: tuple[TimeSpan, ...] = ()


def health_of(past: Past, judged: JudgedPast, answers: OwnerAnswers) -> PastHealth:
    """Return which rows were healthy."""
    count = len(past.times)
    logged = np.zeros(count, bool)
    for alarm in answers.alarms:
        logged |= _within(past, alarm.span)
    alarms = alarm_stretches(judged.alarm | logged)
    verdicts = [_verdict(_span(past, start, stop), answers) for start, stop in alarms]
    sick, faulty = np.zeros(count, bool), False
    for (start, stop), verdict in zip(alarms, verdicts, strict=True):
        if verdict is not AlarmVerdict.FALSE:
            _leave_out(sick, start, stop, past.period, verdict is AlarmVerdict.REAL)
            faulty |= verdict is AlarmVerdict.REAL and stop == count
    changed = list[TimeSpan]()
    for start, stop in alarm_stretches(judged.changed, pause=0):
        led = _leads(start, alarms)
        first = start if led is None else alarms[led][0]
        seen = {v for (a, b), v in zip(alarms, verdicts, strict=True) if first <= a and b <= stop}
        if AlarmVerdict.REAL not in seen and _touches(_span(past, start, stop), answers.accepted):
            sick[first:stop] = False
        elif led is None or verdicts[led] in (AlarmVerdict.REAL, AlarmVerdict.DISPUTED):
            _leave_out(sick, start, stop, past.period, False)
            faulty |= AlarmVerdict.REAL in seen and stop == count
            if led is not None and verdicts[led] is AlarmVerdict.REAL:
                changed.append(_span(past, start, stop))
    for span in (*answers.muted, *answers.left_out):
        sick |= _within(past, span)
    return PastHealth(~sick, faulty, tuple(changed))


def _span(past: Past, start: int, stop: int) -> TimeSpan:
    return TimeSpan(float(past.times[start]), float(past.times[stop - 1]))


def _within(past: Past, span: TimeSpan) -> Bools:
    return np.asarray((past.times >= span.start) & (past.times <= span.end))


def _verdict(alarm: TimeSpan, answers: OwnerAnswers) -> AlarmVerdict:
    marks = {each.real for each in answers.alarms if _touches(alarm, [each.span])}
    if True in marks:
        return AlarmVerdict.REAL
    if not marks and alarm.start >= answers.complete_since:
        return AlarmVerdict.UNSEEN
    return AlarmVerdict.FALSE if marks == {False} else AlarmVerdict.DISPUTED


def _leads(start: int, alarms: Sequence[Stretch]) -> int | None:
    """Return the number of the alarm after which a change was reported at row `start`."""
    before = [number for number, (first, _) in enumerate(alarms) if first <= start]
    return before[-1] if before else None


def _touches(one: TimeSpan, others: Sequence[TimeSpan]) -> bool:
    return any(other.start <= one.end and other.end >= one.start for other in others)


def _leave_out(sick: Bools, start: int, stop: int, period: float, real: bool) -> None:
    before, after = (
        max(round(seconds / period), FEWEST_AROUND)
        for seconds in (BEFORE_REAL if real else AROUND, AROUND)
    )
    sick[max(start - before, 0) : stop + after] = True
