"""Keeps the alarms of the last days over restarts, so that those that recur are known at once."""

from collections.abc import Callable
from pathlib import Path

from edge_runtime.errors import GruardError
from edge_runtime.limited_log import LimitedLog
from edge_runtime.record import Record
from edge_runtime.recurring_alarms import AlarmHistory, RecurringAlarms
from edge_runtime.supervision.sealed_file import read_sealed, write_sealed

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
