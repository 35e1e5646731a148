"""What a source is: readings, one by one, as they come.

An own sensor needs a class with `live`, `read` and `close`, and nothing from here but `Reading`.

A source that is asked: it measures once in every period, by a monotonic clock.

A source read in a thread of its own, so that one which blocks holds up nothing.

A source that may go away and come back: unplugged, rebooted, a broker or a network that is down.

The run goes on meanwhile: nothing is read, and the sample clock writes the gap records.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.errors import Complaints, GruardError
from edge_runtime.record import Float32
from edge_runtime.threads import WatchedThread


@dataclass(frozen=True)
class Reading:
    """One row of a source.

    time: finite seconds as the source tells them, None where it does not or not readably.
    values: float32 [channels] in the bundle's order, raw units; NaN where missing or unreadable.
    """

    time: float | None
    values: Float32


class SourceLostError(Exception):
    """The source is away and may come back; the message says why, for the log."""


class Source(Protocol):
    """Readings in the bundle's channel order.

    live: the outside world sets the pace, so that silence means missing samples; a file is not.
    """

    live: bool

    def read(self, timeout: float | None) -> Reading | None:
        """Return the next reading, or None when none has come within `timeout` seconds.

        None for `timeout` waits for ever. The call may return None earlier, after bounded work on
        input without a reading in it: blank lines, a line that does not end.
        Raises EOFError when there will be no more, and GruardError when the source broke for good.
        A source in `Reconnecting` raises SourceLostError when it may come back.
        """

    def close(self) -> None:
        """Give everything back."""


class TimeLimit:
    """What is left of the `timeout` of a `read`."""

    def __init__(self, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = None if timeout is None else clock() + timeout

    def left(self) -> float | None:
        """Seconds, not below 0; None for ever."""
        return None if self._until is None else max(self._until - self._clock(), 0.0)


def needed_period(period: float | None, name: str) -> float:
    """The model's period, for a source that paces itself. Raises GruardError when unknown."""
    if period is None:
        raise GruardError(
            f"{name}: is asked at the model's sample period, which this bundle does not know; "
            "train on a recording with a time column"
        )
    return period


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


LENGTH = 1000
"""Readings that wait to be answered; when they are more, the oldest is dropped."""
_LISTENING = 0.2  # seconds that the thread gives the source before it looks whether to end
_FAREWELL = 5.0  # seconds that the source may take to notice it


class Threaded:
    """The readings of `source`, which may take longer than the timeout it is given.

    An EOFError or GruardError of the source ends it; after any other exception it is closed and,
    as the thread's back-off has it, read again.
    """

    live = True

    def __init__(
        self, source: Source, name: str, complaints: Complaints, length: int = LENGTH
    ) -> None:
        self._source, self._name, self._complaints = source, name, complaints
        self._queue: queue.Queue[Reading | BaseException] = queue.Queue(length)
        self._closing = threading.Event()
        self._thread = WatchedThread(f"source {name}", self._serve)
        self._thread.start()

    @property
    def threads(self) -> tuple[WatchedThread, ...]:
        """Who reads."""
        return (self._thread,)

    def read(self, timeout: float | None) -> Reading | None:
        """The oldest reading that waits; raises what ended the source. See Source."""
        try:
            found = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """Close the source; one that hangs is left to the end of the process."""
        self._closing.set()
        self._thread.join(_FAREWELL)

    def _serve(self) -> None:
        try:
            while not self._closing.is_set():
                self._thread.beat()
                reading = self._source.read(_LISTENING)
                if reading is not None:
                    self._put(reading)
        except (EOFError, GruardError) as end:  # the reader raises it, where somebody sees it
            self._put(end)
        finally:
            self._source.close()

    def _put(self, found: Reading | BaseException) -> None:
        while True:
            try:
                return self._queue.put_nowait(found)
            except queue.Full:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return  # it was answered meanwhile
        self._complaints.overrun(self._name)


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
