"""The interface of a source, and wrappers that sources share.

A source gives readings one by one. `Polled` measures once a period, by the monotonic clock.
`Threaded` reads a source that may block in a thread of its own. `Reconnecting` opens a source again
after it was lost: unplugged, rebooted, or behind a broker or network that is down; meanwhile
nothing is read and the sample clock writes gap records.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import Complaints, GruardError, reason
from edge_runtime.record import Float32
from edge_runtime.threads import MonitoredThread

LENGTH = 1000
"""Readings that a `Threaded` source queues; beyond that the oldest is dropped."""
SHORTEST, LONGEST = 1.0, 30.0
"""Seconds between two attempts to reconnect; they double until the source is back."""
_SURELY_FLOAT32 = 1e38  # no smaller magnitude overflows
_LISTENING = 0.2  # seconds of one read in the thread, before it checks whether to end
_FAREWELL = 5.0  # seconds that `close` waits for the thread


@dataclass(frozen=True)
class Reading:
    """One row of a source.

    time: finite seconds by the source's clock, None when missing or unreadable.
    values: [channels] in the bundle's order, raw units; NaN where missing or unreadable. They are
    float64, since a counter needs all its digits; a step takes them as float32, see `row`.
    """

    time: float | None
    values: npt.NDArray[np.floating[Any]]

    @staticmethod
    def of(time: float | None, values: Sequence[float]) -> "Reading":
        """Convert `values` to an array."""
        return Reading(time, np.array(values, np.float64))

    @property
    def row(self) -> Float32:
        """The values as float32; too large ones become infinite, which the mask handles."""
        if self.values.dot(self.values) < _SURELY_FLOAT32**2:  # not so with a NaN
            return self.values.astype(np.float32, copy=False)
        with np.errstate(over="ignore"):  # takes longer than all else here
            return self.values.astype(np.float32, copy=False)


class SourceLostError(Exception):
    """The source is lost and may come back; the message says why, for the log."""


class Source(Protocol):
    """Readings in the bundle's channel order. An own sensor needs `live`, `read` and `close`.

    live: readings come in real time, so silence means missing samples; False for a file.
    """

    live: bool

    def read(self, timeout: float | None) -> Reading | None:
        """Return the next reading, or None when none comes within `timeout` seconds.

        `timeout=None` waits without a limit. Returns None earlier after bounded work on input
        without a reading: blank lines, a line that does not end.
        Raises EOFError at the end, and GruardError when the source failed for good. A source in
        `Reconnecting` raises SourceLostError when it may come back.
        """

    def close(self) -> None:
        """Close the source."""


class TimeLimit:
    """The rest of the `timeout` of a `read`."""

    def __init__(self, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = None if timeout is None else clock() + timeout

    def left(self) -> float | None:
        """Return seconds, not below 0; None without a limit."""
        return None if self._until is None else max(self._until - self._clock(), 0.0)


def needed_period(period: float | None, name: str) -> float:
    """Return the model's period, for a polled source. Raises GruardError when unknown."""
    if period is None:
        raise GruardError(
            f"{name}: is polled at the model's sample period, which this bundle does not know; "
            "train on a recording with a time column"
        )
    return period


class Polled:
    """Calls `measure` once every `period` seconds.

    measure: returns one reading with its time, or None for a gap. When it takes longer than a
    period, the missed samples are skipped.
    wait: sleeps for so many seconds; called before every measurement, also with 0.
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
        """Measure when it is due; see Source."""
        left = max(self._due - self._clock(), 0.0)
        if timeout is not None and timeout < left:
            self._wait(timeout)
            return None
        self._wait(left)
        missed = max(int((self._clock() - self._due) / self._period), 0)
        self._due += (missed + 1) * self._period
        return self._measure()

    def close(self) -> None:
        """Close the device."""
        self._close()


class Threaded:
    """Reads `source`, which may block for longer than its timeout, in a thread of its own.

    EOFError and GruardError end the source; after any other exception it is closed, and read again
    after the thread's back-off.
    """

    live = True

    def __init__(
        self, source: Source, name: str, complaints: Complaints, length: int = LENGTH
    ) -> None:
        self._source, self._name, self._complaints = source, name, complaints
        self._queue: queue.Queue[Reading | BaseException] = queue.Queue(length)
        self._closing = threading.Event()
        self._thread = MonitoredThread(f"source {name}", self._serve)
        self._thread.start()

    @property
    def threads(self) -> tuple[MonitoredThread, ...]:
        """The reading thread."""
        return (self._thread,)

    def read(self, timeout: float | None) -> Reading | None:
        """Return the oldest queued reading; raise what ended the source. See Source."""
        try:
            item = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Close the source; one that hangs ends with the process."""
        self._closing.set()
        self._thread.join(_FAREWELL)

    def _serve(self) -> None:
        try:
            while not self._closing.is_set():
                self._thread.beat()
                reading = self._source.read(_LISTENING)
                if reading is not None:
                    self._put(reading)
        except (EOFError, GruardError) as end:  # `read` raises it
            self._put(end)
        finally:
            self._source.close()

    def _put(self, item: Reading | BaseException) -> None:
        while True:
            try:
                return self._queue.put_nowait(item)
            except queue.Full:
                with suppress(queue.Empty):  # `read` took it meanwhile
                    self._queue.get_nowait()
                    self._complaints.overrun(self._name)


class Reconnecting:
    """Reads the source that `connect` opens, and connects again when it is lost.

    `connect` and the source's `read` raise SourceLostError or OSError when it is lost. A
    GruardError ends the source before the first reading; later it is an outage too. The source may
    be away at the start, since after a power cut some devices start slowly. The first reading ends
    an outage.
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
        self._away = self._has_read = False
        self._delay, self._due = SHORTEST, clock()

    def read(self, timeout: float | None) -> Reading | None:
        """Return the next reading; see Source."""
        limit = TimeLimit(timeout, self._clock)
        while self._source or self._awaited(limit.left()):
            try:
                source = self._source = self._source or self._connect()
                reading = source.read(limit.left())
            except (SourceLostError, OSError, GruardError) as error:
                if isinstance(error, GruardError) and not self._has_read:
                    raise
                self._lose(error)
                continue
            if reading is not None:
                self._count_read()
            return reading
        return None

    def close(self) -> None:
        """Close the source, if it is open."""
        if self._source:
            self._source.close()
        self._source = None

    def _awaited(self, left: float | None) -> bool:
        """Wait for the next attempt, `left` seconds at most; return whether it is due."""
        wait = max(self._due - self._clock(), 0.0)
        if left is not None and left < wait:
            self._sleep(left)
            return False
        self._sleep(wait)
        return True

    def _lose(self, error: Exception) -> None:
        self.close()
        self._complaints.outage(self._name, reason(error), first=not self._away)
        self._away = True
        self._due = self._clock() + self._delay
        self._delay = min(2 * self._delay, LONGEST)

    def _count_read(self) -> None:
        if self._away:
            self._complaints.back(self._name)
        self._away = False
        self._has_read = True
        self._delay = SHORTEST
