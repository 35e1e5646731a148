"""A source that is asked: it measures once in every period, by a monotonic clock."""

import time
from collections.abc import Callable

from edge_runtime.sources.source import Reading


class Polled:
    """Calls `measure` once in every `period` seconds.

    measure: one reading, with the time it was taken at; None when there is nothing, which makes a
    gap. When it took longer than a period, the samples it missed are left out, not made up for.
    wait: spends so many seconds; called before every measurement, perhaps with 0.
    """

    live = True

    def __init__(
        self,
        measure: Callable[[], Reading | None],
        period: float,
        close: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._measure, self._period, self._close = measure, period, close
        self._clock, self._wait = clock, wait
        self._due = clock()

    def read(self, timeout: float | None) -> Reading | None:
        """Measure when it is time; see Source."""
        left = max(self._due - self._clock(), 0.0)
        if timeout is not None and timeout < left:
            self._wait(timeout)
            return None
        self._wait(left)
        missed = max(int((self._clock() - self._due) / self._period), 0)
        self._due += (missed + 1) * self._period
        return self._measure()

    def close(self) -> None:
        """Give back what is measured with."""
        self._close()
