"""A queue before a sink, so that a slow or dead one never stops the loop."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress

from edge_runtime.record import Record
from edge_runtime.sinks.sink import Sink, SinkClosedError
from edge_runtime.threads import BEAT, WatchedThread

LENGTH = 10_000
"""Records that wait for a slow sink; some 10 MB."""
FAREWELL = 5.0
"""Seconds that a sink may take at the end to write what still waits."""


class Queued:
    """Hands records to `sink` in a thread of its own; a full queue drops the newest, and counts.

    log takes one line when drops begin and one when they end.
    """

    skipped = 0

    def __init__(
        self, sink: Sink, log: Callable[[str], None], length: int = LENGTH, name: str = "sink"
    ) -> None:
        self._sink, self._log = sink, log
        self._lost = self._losing = 0
        self._in_hands = 0  # 1 while the sink has a record
        self._closed = threading.Event()
        self._queue: queue.Queue[Record | None] = queue.Queue(length)
        self._thread = WatchedThread(name, self._serve)
        self._thread.start()

    @property
    def threads(self) -> tuple[WatchedThread, ...]:
        """Who writes."""
        return (self._thread,)

    @property
    def dropped(self) -> int:
        """Records that were not written so far."""
        return self._lost + self._sink.dropped

    @property
    def waiting(self) -> int:
        """Records that the sink has not taken yet."""
        return self._queue.qsize()

    def write(self, record: Record) -> None:
        """Queue one record, or drop it. Raises SinkClosedError when the reader has left."""
        if self._closed.is_set():
            raise SinkClosedError
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            if not self._losing:
                self._log(f"a sink does not keep up: records from {record.index} on are dropped")
            self._losing += 1
            self._lost += 1
            return
        if self._losing:
            self._log(f"the sink is back: {self._losing} records were dropped")
            self._losing = 0

    def close(self) -> None:
        """Write what waits, for some seconds at most, and close the sink."""
        with suppress(queue.Full):
            self._queue.put(None, timeout=FAREWELL)
        if not self._thread.join(FAREWELL):
            # It hangs, or never began, and is left to the end of the process.
            waiting = sum(record is not None for record in self._queue.queue)
            self._lost += self._in_hands + waiting
        else:
            self._sink.close()

    def _serve(self) -> None:
        while True:
            self._thread.beat()
            try:
                record = self._queue.get(timeout=BEAT)
            except queue.Empty:
                continue
            if record is None:
                return
            self._in_hands = 1
            try:
                self._sink.write(record)
            except SinkClosedError:
                self._closed.set()
                return
            except BaseException:
                self._lost += 1
                raise
            finally:
                self._in_hands = 0
