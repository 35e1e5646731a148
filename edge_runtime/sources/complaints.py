"""What was wrong with the input: counted always, told in the log once a minute at most."""

import threading
import time
from collections.abc import Callable

from edge_runtime.limited_log import LimitedLog

_LONGEST = 60  # characters of a quotation


class Complaints:
    """Counts of unreadable cells and rows, and of outages of the source.

    A sensor that talks garbage does so at every sample; its log line has the first of a minute and
    how many came since the last one. log takes one line, clock gives monotonic seconds. Sources may
    complain from a thread of their own.
    away: which source is away and why, while it is; else None.
    """

    def __init__(
        self,
        log: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cells = self.rows = self.outages = 0
        self.away: str | None = None
        self._log = LimitedLog(log, clock)
        self._lock = threading.Lock()

    def cell(self, where: str, text: str) -> None:
        """A single value could not be read and counts as missing."""
        with self._lock:
            self.cells += 1
            self._log.trouble(
                "input", f"{where}: {quoted(text)} cannot be read and counts as missing"
            )

    def silent_cell(self, where: str, why: str) -> None:
        """A sensor gave no value when it was asked; counts as an unreadable cell."""
        with self._lock:
            self.cells += 1
            self._log.trouble("input", f"{where}: {_shortened(why)}; the reading counts as missing")

    def row(self, where: str, text: str, why: str) -> None:
        """A whole row, packet or message could not be read."""
        with self._lock:
            self.rows += 1
            self._log.trouble("input", f"{where}: {quoted(text)} {why}")

    def overrun(self, where: str) -> None:
        """A reading was lost, because they come faster than they are answered."""
        with self._lock:
            self.rows += 1
            self._log.trouble(
                "input", f"{where}: readings are not answered in time, one was dropped"
            )

    def outage(self, where: str, why: str, first: bool) -> None:
        """The source is away; `first` when it was not before."""
        with self._lock:
            self.outages += first
            self.away = f"{where}: {_shortened(why)}"
            self._log.trouble("outage", f"{self.away}; trying again")

    def back(self, where: str) -> None:
        """The source that was away is back."""
        with self._lock:
            self.away = None
            self._log.over(f"{where}: is back", "outage")


def quoted(text: str) -> str:
    """`text` in quotes, without control characters, and shortened."""
    shown = repr(text[: _LONGEST + 1])
    return shown if len(text) <= _LONGEST else f"{repr(text[:_LONGEST])[:-1]}…{shown[-1]}"


def _shortened(why: str) -> str:
    """A reason that others worded, as one short line."""
    line = "".join(letter if letter.isprintable() else " " for letter in why)
    return line if len(line) <= 4 * _LONGEST else f"{line[: 4 * _LONGEST]}…"
