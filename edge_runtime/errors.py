"""The one exception a user is meant to see.

Log lines about trouble that lasts or comes back: one a minute for each topic, with a count.

What was wrong with the input: counted always, told in the log once a minute at most.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


class GruardError(Exception):
    """A problem the user can mend: the message names what is wrong, where, and the fix.

    Commands print it as one line on stderr and exit with `exit_code`; nobody sees a traceback.
    """

    exit_code = 2


class DamagedError(GruardError):
    """Bytes are missing, or are not those that were written; another copy may be whole."""


class RemovedError(DamagedError):
    """A slot was removed while it was being opened; the pointers name another one by now."""


class UnfitError(GruardError):
    """A model cannot be calibrated or exported; a smaller one may be."""


class BusyError(GruardError):
    """Another process holds a lock; the same may succeed later."""


class NotAllowedError(GruardError):
    """A person has to allow it first: a signature, a failed validation, a file's permissions."""


EVERY = 60.0
"""Seconds between two lines about the same topic."""


@dataclass
class _Topic:
    """next: when the topic may be logged again. untold: how often it came up since the last line.

    open: whether its last line was about trouble that nobody has declared over.
    """

    next: float = float("-inf")
    untold: int = 0
    open: bool = False


class LimitedLog:
    """Passes on to `log` what is not repetition; any thread may call it.

    log takes one line. clock gives monotonic seconds.
    """

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._log, self._clock = log, clock
        self._topics: dict[str, _Topic] = {}
        self._lock = threading.Lock()

    def trouble(self, topic: str, sentence: str) -> bool:
        """Log `sentence`, or only count it within a minute of the last; whether it was logged."""
        with self._lock:
            found = self._topics.setdefault(topic, _Topic())
            found.untold += 1
            now = self._clock()
            if now < found.next:
                return False
            others = f" ({found.untold} such in all since the last line)"
            self._log(sentence + (others if found.untold > 1 else ""))
            found.next, found.untold, found.open = now + EVERY, 0, True
            return True

    def over(self, sentence: str, *topics: str) -> bool:
        """Declare trouble over; whether `sentence` was logged, for one of them had been logged."""
        with self._lock:
            found = [self._topics[topic] for topic in topics if topic in self._topics]
            was_open = any(topic.open for topic in found)
            for topic in found:
                topic.open = False
            if was_open:
                self._log(sentence)
            return was_open


def reason(error: BaseException) -> str:
    """Return why something failed: the system's words, or else the exception's."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


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
