"""Which sample a reading is: missing, duplicate, late, out of order, too fast, a stepped clock.

A pure state machine: the source's times and the times of arrival come in, a placement comes out.
Every sample of the machine gets one index, whether its reading came or not.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Trouble = Literal["duplicate", "out of order", "late", "too fast", "clock stepped"]

TOLERANCE = 0.05
"""A source may be so much faster than the period before readings are left out."""
PATIENCE_PERIODS, PATIENCE_SECONDS = 2.0, 0.5
"""A live source is silent after so many periods, and not before so many seconds."""
FIRST_PATIENCE = 5.0
"""Seconds that a live source may take for its first reading."""
STEP_PERIODS, STEP_SECONDS = 3.0, 2.0
"""The source's clock stepped when it ran ahead of ours by so much between two readings."""
BACKWARDS = 3
"""So many readings in a row from before the last one: not out of order, the clock was put back."""
KNOWN_PACE = 10
"""Readings after which it is known whether a source comes in real time."""


@dataclass(frozen=True)
class Placement:
    """What to do about a reading.

    missing: samples that were left out before it and need a gap record each.
    accepted: whether the reading is a sample; a duplicate, for example, is none.
    trouble: what was wrong with its time, None when nothing was.
    """

    missing: int = 0
    accepted: bool = True
    trouble: Trouble | None = None


class SampleClock:
    """Places readings. All times are in seconds; `now` is monotonic.

    period: between samples, None when unknown: then nothing is ever missing. live: as of a Source.
    """

    def __init__(self, period: float | None, live: bool, now: float) -> None:
        self.troubles: Counter[str] = Counter()
        self._period, self._live = period, live
        self._time: float | None = None  # of the last accepted reading that had one
        self._timed_at = now  # when that one came
        self._answered = 0  # samples since then
        self._surplus = 0.0  # samples that came earlier than the period allows
        self._behind: list[float] = []  # times of the latest readings, if from before `_time`
        self._timed, self._advanced, self._elapsed = 0, 0.0, 0.0  # readings; their clock; ours
        self._silent_from = now + FIRST_PATIENCE
        self._slot = self._silent_from - (period or 0.0)  # when the last sample was due

    def place(self, time: float | None, now: float) -> Placement:
        """Place the reading that came at `now`; call once per reading, in order of arrival."""
        if self._period is None:
            return Placement()
        self._slot = now
        self._silent_from = now + max(PATIENCE_PERIODS * self._period, PATIENCE_SECONDS)
        placement = self._by_time(time, now, self._period)
        if placement.trouble:
            self.troubles[placement.trouble] += 1
        return placement

    def silent(self, now: float) -> int:
        """How many samples of a live source are overdue; each is to be answered by a gap record."""
        if self._period is None or not self._live or now < self._silent_from:
            return 0
        overdue = max(int((now - self._slot) / self._period), 1)
        self._slot += overdue * self._period
        self._silent_from = self._slot + self._period
        self._answered += overdue
        return overdue

    def timeout(self, now: float) -> float | None:
        """Seconds until the source counts as silent; None when it never does."""
        if self._period is None or not self._live:
            return None
        return max(self._silent_from - now, 0.0)

    def _by_time(self, time: float | None, now: float, period: float) -> Placement:
        if time is None:
            self._answered += 1
            return Placement()
        if self._time is None:
            return self._accept(time, now)
        ahead, elapsed = time - self._time, now - self._timed_at
        if ahead == 0:
            return Placement(accepted=False, trouble="duplicate")
        if ahead < 0:
            return self._backwards(time, now, period)
        # What came early, because of a jitter or of a source that is too fast, is not missing now.
        missing = round(ahead / period - 1 - self._answered - self._surplus)
        if missing < 0 and self._answered:
            return Placement(accepted=False, trouble="late")
        if missing > 0 and self._stepped(ahead - elapsed, period):
            return self._accept(time, now, trouble="clock stepped")
        if self._too_fast(ahead / period):
            return Placement(accepted=False, trouble="too fast")
        self._advanced, self._elapsed = self._advanced + ahead, self._elapsed + elapsed
        return self._accept(time, now, max(missing, 0))

    def _accept(
        self, time: float, now: float, missing: int = 0, trouble: Trouble | None = None
    ) -> Placement:
        self._behind.clear()
        self._time, self._timed_at, self._answered = time, now, 0
        self._timed += 1
        return Placement(missing, trouble=trouble)

    def _too_fast(self, periods: float) -> bool:
        """Whether a whole sample more has come than the time allows, `periods` since the last.

        Times that jitter even out; a source that is too fast is thinned to the period.
        """
        surplus = max(self._surplus + 1 - periods - TOLERANCE, 0.0)
        if surplus >= 1:
            return True
        self._surplus = surplus
        return False

    def _stepped(self, ran_ahead: float, period: float) -> bool:
        """Whether the clock of a source that keeps real time ran ahead of ours, in seconds."""
        real_time = self._timed > KNOWN_PACE and self._elapsed > 0.5 * self._advanced
        much = ran_ahead > max(STEP_PERIODS * period, STEP_SECONDS)
        return self._live and real_time and much

    def _backwards(self, time: float, now: float, period: float) -> Placement:
        """A reading from before the last one: out of order, unless others go on from there."""
        follows = self._behind and 0 < time - self._behind[-1] < STEP_PERIODS * period
        self._behind = [*self._behind, time] if follows else [time]
        left_out = len(self._behind) - 1
        if left_out + 1 < BACKWARDS:
            return Placement(accepted=False, trouble="out of order")
        return self._accept(time, now, left_out, "clock stepped")
