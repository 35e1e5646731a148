"""What was wrong with the input: counted always, told in the log once a minute at most."""

import time
from collections.abc import Callable

_EVERY = 60.0  # seconds
_LONGEST = 60  # characters of a quotation


class Complaints:
    """Counts of unreadable cells and rows.

    A sensor that talks garbage does so at every sample; its log line has the first of a minute and
    how many came since the last one. log takes one line, clock gives monotonic seconds.
    """

    def __init__(
        self,
        log: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cells = self.rows = 0
        self._log, self._clock = log, clock
        self._next = float("-inf")
        self._untold = 0

    def cell(self, where: str, text: str) -> None:
        """A single value could not be read and counts as missing."""
        self.cells += 1
        self._complain(f"{where}: {quoted(text)} cannot be read and counts as missing")

    def row(self, where: str, text: str, why: str) -> None:
        """A whole row, packet or message could not be read."""
        self.rows += 1
        self._complain(f"{where}: {quoted(text)} {why}")

    def _complain(self, sentence: str) -> None:
        self._untold += 1
        now = self._clock()
        if now < self._next:
            return
        others = f" ({self._untold} such in all since the last line)" if self._untold > 1 else ""
        self._log(sentence + others)
        self._next, self._untold = now + _EVERY, 0


def quoted(text: str) -> str:
    """`text` in quotes, without control characters, and shortened."""
    shown = repr(text[: _LONGEST + 1])
    return shown if len(text) <= _LONGEST else f"{repr(text[:_LONGEST])[:-1]}…{shown[-1]}"
