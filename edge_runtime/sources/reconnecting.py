"""A source that may go away and come back: unplugged, rebooted, a broker or a network that is down.

The run goes on meanwhile: nothing is read, and the sample clock writes the gap records.
"""

import time
from collections.abc import Callable

from edge_runtime.errors import GruardError
from edge_runtime.sources.complaints import Complaints
from edge_runtime.sources.source import Reading, Source, SourceLostError, TimeLimit

SHORTEST, LONGEST = 1.0, 30.0
"""Seconds between two attempts; they double until the source is back."""


class Reconnecting:
    """Reads the source that `connect` gives, and connects again when it is lost.

    connect, and the source's read, raise SourceLostError or OSError when it is away; a GruardError
    is the user's to mend before the first reading, and after it an outage too: whoever was served
    once is not given up. It need not be there at the start: after a power cut everything comes back
    at its own pace. An outage is over with the first reading.
    """

    live = True

    def __init__(
        self,
        name: str,
        connect: Callable[[], Source],
        complaints: Complaints,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._name, self._connect, self._complaints = name, connect, complaints
        self._clock, self._sleep = clock, sleep
        self._source: Source | None = None
        self._away = self._served = False
        self._delay, self._due = SHORTEST, clock()

    def read(self, timeout: float | None) -> Reading | None:
        """The next reading; see Source."""
        limit = TimeLimit(timeout, self._clock)
        while self._source or self._awaited(limit.left()):
            try:
                source = self._source = self._source or self._connect()
                reading = source.read(limit.left())
            except (SourceLostError, OSError, GruardError) as error:
                if isinstance(error, GruardError) and not self._served:
                    raise
                self._lose(error)
                continue
            if reading is not None:
                self._found()
            return reading
        return None

    def close(self) -> None:
        """Close the source, if it is there."""
        if self._source:
            self._source.close()
        self._source = None

    def _awaited(self, left: float | None) -> bool:
        """Wait for the next attempt, or as long as there is time; whether it is due now."""
        wait = max(self._due - self._clock(), 0.0)
        if left is not None and left < wait:
            self._sleep(left)
            return False
        self._sleep(wait)
        return True

    def _lose(self, error: Exception) -> None:
        self.close()
        self._complaints.outage(self._name, _reason(error), first=not self._away)
        self._away = True
        self._due = self._clock() + self._delay
        self._delay = min(2 * self._delay, LONGEST)

    def _found(self) -> None:
        if self._away:
            self._complaints.back(self._name)
        self._away = False
        self._served = True
        self._delay = SHORTEST


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
