"""Alarms that recur at the same time of day are marked RECURRING.

An alarm recurs when, on at least `FEWEST_DAYS` of the last `MOST_DAYS` days, an alarm that blamed
the same channels began within `WINDOW` seconds of the same time of day, and these were at least
`SHARE` of all alarms on earlier days that blamed them. The decision falls where the alarm begins
and holds for all of it. The mark changes nothing else. `python -m benchmarks.recurring` measures
the rule.

Days are counted back from the alarm, so midnight is not special, and after a large step of the
clock no earlier days are found. An alarm whose first record has no reliable time is neither marked
nor remembered.

`RecurringAlarms` applies the rule; `RecurringKeeper` keeps its history over restarts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_runtime.detector.alarm import AlarmCourse
from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.plain import LARGEST_INTEGER, read_sealed, write_sealed
from edge_runtime.record import Flag, Record

DAY, WINDOW = 86400.0, 1800.0
"""Seconds. Twice the window is a 24th of a day: a random alarm rarely begins within it."""
FEWEST_DAYS, MOST_DAYS = 2, 14
SHARE = 1 / 4
"""Without it, an alarm that comes at all hours would recur at each of them."""
CAPACITY = 256
"""Alarms that are remembered."""
KEPT = "recurring.json"
"""Name of the file in the state folder."""
WRITE_EVERY = 60.0
"""Seconds between two writes, also after a failed one."""


@dataclass(frozen=True)
class AlarmStart:
    """When an alarm began, in seconds, and the channels that its first record blames, sorted."""

    time: float
    blamed: tuple[str, ...]


@dataclass(frozen=True)
class AlarmHistory:
    """The last alarms, at most `CAPACITY`, oldest first."""

    starts: tuple[AlarmStart, ...] = ()

    def after(self, start: AlarmStart) -> "AlarmHistory":
        """Return the history with `start` added."""
        return AlarmHistory((*self.starts, start)[-CAPACITY:])

    def recurs(
        self,
        start: AlarmStart,
        fewest_days: int = FEWEST_DAYS,
        window: float = WINDOW,
        share: float = SHARE,
    ) -> bool:
        """Return whether the alarm that begins at `start` recurs."""
        ages = [start.time - each.time for each in self.starts if each.blamed == start.blamed]
        earlier = [age for age in ages if DAY - window <= age <= MOST_DAYS * DAY + window]
        days = [round(age / DAY) for age in earlier if abs(math.remainder(age, DAY)) <= window]
        return len(set(days)) >= fewest_days and len(days) >= share * len(earlier)


class RecurringAlarms:
    """Mark the records in alarm of each alarm that recurs.

    history: alarms that are remembered. period: seconds between samples, None when unknown.
    wall: epoch seconds now, for records without a time from a live source. For a recording it is
    None, and the time of day of such records follows from `period`.
    """

    def __init__(
        self,
        period: float | None,
        wall: Callable[[], float] | None = None,
        history: AlarmHistory = AlarmHistory(),
    ) -> None:
        self.history = history
        self._period, self._wall = period, wall
        # As if an alarm had just paused: one that is on when a run starts began at an unknown time,
        # and would recur every day on a host that restarts every night.
        self._course, self._settled, self._recurs = AlarmCourse(0), False, False

    def mark(self, record: Record) -> Record:
        """Return `record`, with the flag RECURRING if it belongs to an alarm that recurs."""
        self._settled = self._settled or Flag.WARMUP not in record.flags
        if not self._settled:
            return record
        before, self._course = self._course.going_on, self._course.after(record.alarm)
        if self._course.going_on and not before:
            self._recurs = self._begin(record)
        if not (record.alarm and self._recurs):
            return record
        return replace(record, flags=record.flags | Flag.RECURRING)

    def _begin(self, record: Record) -> bool:
        """Remember the alarm that begins with `record`; return whether it recurs."""
        time = self._time_of(record)
        if time is None or not record.blamed:
            return False
        start = AlarmStart(time, tuple(sorted(record.blamed)))
        recurs = self.history.recurs(start)
        self.history = self.history.after(start)
        return recurs

    def _time_of(self, record: Record) -> float | None:
        """Return seconds, None where they are unreliable or too coarse for a time of day."""
        if Flag.TIMING in record.flags or (self._period or 0.0) > 2 * WINDOW:
            return None
        time = record.time
        if time is None and self._wall is not None:
            time = self._wall()
        elif time is None and self._period is not None:
            time = record.index * self._period
        # A larger double cannot represent every second.
        return time if time is not None and abs(time) <= LARGEST_INTEGER else None


class RecurringKeeper:
    """Mark records as `RecurringAlarms` does, starting with the history of the previous run.

    folder: where the history is kept; None keeps it in memory only. period, wall: as for
    RecurringAlarms. clock: monotonic seconds. log takes one line per event. No method raises.
    """

    def __init__(
        self,
        folder: Path | None,
        period: float | None,
        wall: Callable[[], float] | None,
        clock: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self._file = None if folder is None else folder / KEPT
        self._clock, self._log = clock, LimitedLog(log, clock)
        self._written = self._load()
        self._alarms = RecurringAlarms(period, wall, self._written)
        self._next_write = clock()

    def mark(self, record: Record) -> Record:
        """Return `record`, with the flag RECURRING if it belongs to an alarm that recurs."""
        return self._alarms.mark(record)

    def tend(self) -> None:
        """Write a changed history, once a minute at most; to be called after the record is out."""
        if self._alarms.history is not self._written and self._clock() >= self._next_write:
            self._next_write = self._clock() + WRITE_EVERY
            self._write()

    def close(self) -> None:
        """Write a history that is not written yet."""
        if self._alarms.history is not self._written:
            self._write()

    def _load(self) -> AlarmHistory:
        try:
            kept = self._file and read_sealed(self._file, AlarmHistory)
        except GruardError as error:
            self._log.trouble("load", f"{error}; no alarm before this start is remembered")
            kept = None
        return kept or AlarmHistory()

    def _write(self) -> None:
        file, history = self._file, self._alarms.history
        lost = "the next start will not know which alarms recur"
        if not file or self._log.attempt_write(file, lambda: write_sealed(file, history), lost):
            self._written = history
