"""A source read in a thread of its own, so that one which blocks holds up nothing."""

import queue
import threading

from edge_runtime.errors import GruardError
from edge_runtime.sources.complaints import Complaints
from edge_runtime.sources.source import Reading, Source
from edge_runtime.threads import WatchedThread

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
