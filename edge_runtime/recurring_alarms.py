"""Which alarms recur: what a healthy machine does every night is a fresh alarm each time.

An alarm recurs when, on at least `FEWEST_DAYS` of the `MOST_DAYS` days before, an alarm that blamed
the same channels began within `WINDOW` seconds of the same time of day, and a `SHARE` of all such
alarms on earlier days did. That is decided where it begins and holds for all of it. It is marked,
and stays an alarm like any other. `python -m benchmarks.recurring` measures the rule.

Days are counted back from the alarm, so midnight is nothing special, and a clock that was set far
away finds no days before it. A record whose time is not to be believed begins nothing: that alarm
is neither marked nor remembered.

Keeps the alarms of the last days over restarts, so that those that recur are known at once.
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
"""Seconds. Twice the window is a 24th of a day: what begins by chance does so there rarely."""
FEWEST_DAYS, MOST_DAYS = 2, 14
SHARE = 1 / 4
"""Without it an alarm that comes at all hours recurs at each: every hour has some day before it."""
CAPACITY = 256
"""Alarms that are remembered."""


@dataclass(frozen=True)
class AlarmStart:
    """When an alarm began, in seconds, and the channels that its first record blames, sorted."""

    time: float
    blamed: tuple[str, ...]


@dataclass(frozen=True)
class AlarmHistory:
    """Where the last alarms began, at most `CAPACITY`, in the order in which they came."""

    starts: tuple[AlarmStart, ...] = ()

    def after(self, start: AlarmStart) -> "AlarmHistory":
        """The history with one alarm more."""
        return AlarmHistory((*self.starts, start)[-CAPACITY:])

    def recurs(
        self,
        start: AlarmStart,
        fewest_days: int = FEWEST_DAYS,
        window: float = WINDOW,
        share: float = SHARE,
    ) -> bool:
        """Whether the alarm that begins at `start` is one that recurs."""
        ages = [start.time - each.time for each in self.starts if each.blamed == start.blamed]
        earlier = [age for age in ages if DAY - window <= age <= MOST_DAYS * DAY + window]
        days = [round(age / DAY) for age in earlier if abs(math.remainder(age, DAY)) <= window]
        return len(set(days)) >= fewest_days and len(days) >= share * len(earlier)


class RecurringAlarms:
    """Marks the records in alarm of each alarm that recurs.

    history: what is remembered. period: seconds between samples, None when unknown.
    wall: epoch seconds now, for the records of a live source without a time; a recording without
    times has None, and the time of day of its records follows from `period`.
    """

    def __init__(
        self,
        period: float | None,
        wall: Callable[[], float] | None = None,
        history: AlarmHistory = AlarmHistory(),
    ) -> None:
        self.history = history
        self._period, self._wall = period, wall
        # As if an alarm had just paused: one that is on when a run starts began at no known time,
        # and would recur every day on a host that restarts at night.
        self._course, self._settled, self._recurs = AlarmCourse(0), False, False

    def mark(self, record: Record) -> Record:
        """`record`, with the flag RECURRING where it belongs to an alarm that recurs."""
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
        """Remember the alarm that begins with `record`; whether it recurs."""
        time = self._time_of(record)
        if time is None or not record.blamed:
            return False
        start = AlarmStart(time, tuple(sorted(record.blamed)))
        recurs = self.history.recurs(start)
        self.history = self.history.after(start)
        return recurs

    def _time_of(self, record: Record) -> float | None:
        """Seconds, None where they are not to be believed or cannot tell the time of day."""
        if Flag.TIMING in record.flags or (self._period or 0.0) > 2 * WINDOW:
            return None
        time = record.time
        if time is None and self._wall is not None:
            time = self._wall()
        elif time is None and self._period is not None:
            time = record.index * self._period
        # Beyond that many seconds a double does not count them one by one.
        return time if time is not None and abs(time) <= LARGEST_INTEGER else None


KEPT = "recurring.json"
"""Name of the file in the state folder."""
WRITE_EVERY = 60.0
"""Seconds between two writes, also after one that failed."""


class RecurringKeeper:
    """Marks records as `RecurringAlarms` does, from where the run before has left off.

    folder: where the history is kept; None keeps it in memory only. period, wall: as there.
    clock: monotonic seconds. log takes one line per event. No method raises.
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
        """`record`, with the flag RECURRING where it belongs to an alarm that recurs."""
        return self._alarms.mark(record)

    def tend(self) -> None:
        """Write what is new, once a minute at most; after the record is out."""
        if self._alarms.history is not self._written and self._clock() >= self._next_write:
            self._next_write = self._clock() + WRITE_EVERY
            self._write()

    def close(self) -> None:
        """Write what is not written yet."""
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
        history = self._alarms.history
        if self._file is None:
            self._written = history
            return
        try:
            write_sealed(self._file, history)
        except OSError as error:
            self._log.trouble(
                "write",
                f"{self._file}: cannot be written ({error.strerror}); the next start will not "
                "know which alarms recur",
            )
        else:
            self._written = history
            self._log.over(f"{self._file}: is written again", "write")
