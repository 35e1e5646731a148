"""Errors that the user can fix, and log lines about trouble, limited in rate.

`GruardError` and its subclasses are what commands print. `LimitedLog` logs each topic once a minute
at most, with a count. `Complaints` counts unreadable input and logs it through a LimitedLog.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

EVERY = 60.0
"""Seconds between two log lines about the same topic."""
Item = TypeVar("Item")
Made = TypeVar("Made")
_LONGEST = 60  # characters of a quotation


class GruardError(Exception):
    """A problem that the user can fix: the message names what is wrong, where, and the fix.

    Commands print it as one line on stderr, without a traceback, and exit with `exit_code`.
    """

    exit_code = 2


class DamagedError(GruardError):
    """Bytes are missing or changed; another copy may be intact."""


class RemovedError(DamagedError):
    """A slot was removed while it was being opened; by now the pointers name another one."""


class UnfitError(GruardError):
    """A model cannot be calibrated or exported; a smaller one may be."""


class BusyError(GruardError):
    """Another process holds a lock; a later attempt may succeed."""


class NotAllowedError(GruardError):
    """A person has to allow it first: a signature, a failed validation, a file's permissions."""


def all_of(items: Sequence[Item], make: Callable[[Item], Made]) -> list[Made]:
    """Apply `make` to each item; raise the GruardErrors of all items as one."""
    made, problems = [], []
    for item in items:
        try:
            made.append(make(item))
        except GruardError as error:
            problems.append(str(error))
    if problems:
        raise GruardError("\n".join(problems))
    return made


@dataclass
class _Topic:
    """next: when the topic may be logged again. count: occurrences since the last line.

    open: whether its trouble was logged and is not over yet.
    """

    next: float = float("-inf")
    count: int = 0
    open: bool = False


class LimitedLog:
    """Log one line a minute at most for each topic. Any thread may call the methods.

    log takes one line. clock gives monotonic seconds.
    """

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._log, self._clock = log, clock
        self._topics: dict[str, _Topic] = {}
        self._lock = threading.Lock()

    def trouble(self, topic: str, sentence: str) -> bool:
        """Log `sentence`, or only count it within a minute of the last; return whether logged."""
        with self._lock:
            state = self._topics.setdefault(topic, _Topic())
            state.count += 1
            now = self._clock()
            if now < state.next:
                return False
            times = f" ({state.count} times since the last line)" if state.count > 1 else ""
            self._log(sentence + times)
            state.next, state.count, state.open = now + EVERY, 0, True
            return True

    def over(self, sentence: str, *topics: str) -> bool:
        """End the trouble of `topics`; log `sentence`, and return True, if any was logged."""
        with self._lock:
            states = [self._topics[topic] for topic in topics if topic in self._topics]
            was_open = any(state.open for state in states)
            for state in states:
                state.open = False
            if was_open:
                self._log(sentence)
            return was_open

    def attempt_write(self, file: Path, write: Callable[[], None], consequence: str) -> bool:
        """Call `write`, which replaces `file`; return whether it succeeded.

        An OSError is logged together with its `consequence`, and so is the first success after it.
        """
        try:
            write()
        except OSError as error:
            self.trouble("write", f"{file}: cannot be written ({error.strerror}); {consequence}")
            return False
        self.over(f"{file}: is written again", "write")
        return True


def ignore_line(line: str) -> None:
    """Do nothing; the default of callbacks that take a line of text."""


def described(error: Exception) -> str:
    """Return the message of a GruardError; of any other error, its type and message."""
    return str(error) if isinstance(error, GruardError) else f"{type(error).__name__}: {error}"


def reason(error: BaseException) -> str:
    """Return why something failed: the system's words, or else the exception's."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Complaints:
    """Counts of unreadable cells and rows, and of outages of the source.

    A broken sensor may send garbage with every sample, so all counts share one limited log topic.
    log takes one line, clock gives monotonic seconds. Any thread may call the methods.
    away: which source is away and why; None while it is not.
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
        """Count a single value that cannot be read; it is a missing reading."""
        with self._lock:
            self.cells += 1
            self._log.trouble(
                "input", f"{where}: {quoted(text)} cannot be read and counts as missing"
            )

    def silent_cell(self, where: str, why: str) -> None:
        """Count a sensor that gave no value when asked, as an unreadable cell."""
        with self._lock:
            self.cells += 1
            self._log.trouble("input", f"{where}: {shortened(why)}; the reading counts as missing")

    def row(self, where: str, text: str, why: str) -> None:
        """Count a whole row, packet or message that cannot be read."""
        with self._lock:
            self.rows += 1
            self._log.trouble("input", f"{where}: {quoted(text)} {why}")

    def overrun(self, where: str) -> None:
        """Count a reading that was dropped because readings come faster than they are answered."""
        with self._lock:
            self.rows += 1
            self._log.trouble(
                "input", f"{where}: readings are not answered in time, one was dropped"
            )

    def outage(self, where: str, why: str, first: bool) -> None:
        """Note that the source is away; `first` when it was not before."""
        with self._lock:
            self.outages += first
            self.away = f"{where}: {shortened(why)}"
            self._log.trouble("outage", f"{self.away}; trying again")

    def back(self, where: str) -> None:
        """Note that the source is back after an outage."""
        with self._lock:
            self.away = None
            self._log.over(f"{where}: is back", "outage")


def quoted(text: str) -> str:
    """Return `text` in quotes, without control characters, and shortened."""
    shown = repr(text[: _LONGEST + 1])
    return shown if len(text) <= _LONGEST else f"{repr(text[:_LONGEST])[:-1]}…{shown[-1]}"


def shortened(why: str) -> str:
    """Return a reason that other software worded, as one short printable line."""
    line = "".join(letter if letter.isprintable() else " " for letter in why)
    return line if len(line) <= 4 * _LONGEST else f"{line[: 4 * _LONGEST]}…"
