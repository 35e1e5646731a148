"""Sinks take records; they never block or end a run.

`JsonLines` writes a line a record to stdout or a file. `Queued` puts a queue and a thread before a
sink that may be slow. `Several` passes each record to several sinks.
"""

import enum
import errno
import os
import queue
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from edge_runtime.errors import GruardError
from edge_runtime.files import kind_of
from edge_runtime.record import Record
from edge_runtime.threads import BEAT, MonitoredThread

LENGTH = 10_000
"""Records that wait for a slow sink; some 10 MB."""
FAREWELL = 5.0
"""Seconds that `close` waits for a sink to write what is queued."""
_STDOUT = 1
_BEGINNING = b'{"index":'
"""Beginning of every record."""
_LONGEST = 1 << 16
"""Bytes; every record is shorter."""
_WRITABLE = (stat.S_ISREG, stat.S_ISFIFO, stat.S_ISCHR)


class SinkClosedError(Exception):
    """The reader of the records has closed its end, as `| head` does."""


class Sink(Protocol):
    """Takes records. Counts a record that it could not write, and raises nothing for it."""

    @property
    def dropped(self) -> int:
        """Records that were not written."""

    def write(self, record: Record) -> None:
        """Write one record through. Raises SinkClosedError when the reader has closed its end."""

    def close(self) -> None:
        """Close the sink."""


class MonitoredSink(Sink, Protocol):
    """A sink with the state that the run reports."""

    @property
    def skipped(self) -> int:
        """Entries of its journal that it could not parse."""

    @property
    def threads(self) -> Sequence[MonitoredThread]:
        """The threads of the sink."""


class Existing(enum.Enum):
    """What to do with a file that exists, as flags of open(2)."""

    REFUSED = os.O_EXCL
    OVERWRITTEN = os.O_TRUNC
    CONTINUED = 0


class JsonLines:
    """One JSON line per record on a file descriptor.

    fd: closed with the sink unless it is stdout.
    reader_may_leave: a broken pipe ends the run quietly; otherwise it counts as a drop.
    """

    skipped, threads = 0, ()

    def __init__(self, fd: int, reader_may_leave: bool = False) -> None:
        self.dropped = 0
        self._fd = fd
        self._reader_may_leave = reader_may_leave
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)

    def write(self, record: Record) -> None:
        """Write one whole line, or none and count it; see Sink."""
        line = record.to_json().encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except BrokenPipeError:
            if self._reader_may_leave:
                raise SinkClosedError from None
            self._drop(written)
        except OSError:
            self._drop(written)

    def close(self) -> None:
        """Close the file; stdout stays open."""
        if self._fd != _STDOUT:
            os.close(self._fd)

    def _drop(self, written: int) -> None:
        self.dropped += 1
        if written and self._is_file:
            # Remove the part of a line that a full disk took, so that every line is whole.
            with suppress(OSError):
                os.ftruncate(self._fd, os.lseek(self._fd, -written, os.SEEK_CUR))


def open_json_lines(target: str, existing: Existing = Existing.REFUSED) -> JsonLines:
    """Open a sink for `-` (stdout), a file path, or a named pipe with a reader, without waiting.

    Raises GruardError when the file exists and `existing` refuses it, when it cannot be made, and
    for a folder, a socket, a disk, or a pipe without a reader.
    """
    if target == "-":
        return JsonLines(_STDOUT, reader_may_leave=True)
    mode = _mode(target)
    if mode is not None and not any(matches(mode) for matches in _WRITABLE):
        raise GruardError(f"{target}: is {kind_of(mode)}, not a file; name another --sink")
    # O_APPEND: writing continues at the new end, without a hole, after logrotate truncates.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    if mode is None or not stat.S_ISFIFO(mode):
        flags |= existing.value  # a pipe has no content to overwrite
    try:
        fd = os.open(target, flags, 0o666)
    except FileExistsError:
        raise GruardError(
            f"{target} exists; name another --sink, or pass --append or --force"
        ) from None
    except OSError as error:
        raise GruardError(_why_not(target, error)) from None
    os.set_blocking(fd, True)  # `write` waits for a slow reader
    if stat.S_ISREG(os.fstat(fd).st_mode):
        _end_last_line(fd, target)
    return JsonLines(fd)


def _mode(target: str) -> int | None:
    """Return the `st_mode` of the target, None when it cannot be seen."""
    try:
        return Path(target).stat().st_mode
    except OSError:
        return None


def _why_not(target: str, error: OSError) -> str:
    folder = Path(target).parent
    if error.errno == errno.ENXIO:
        return f"{target}: is a named pipe without a reader; start the reader first"
    if not folder.is_dir():
        return f"{target}: folder {folder} is not there; create it first"
    return f"{target} cannot be written ({error.strerror}); name another --sink"


def _end_last_line(fd: int, file: str) -> None:
    """Make the file end with a line break, so that the next record starts a line.

    A partial record, left by a power cut, is removed; any other last line is kept.
    """
    with Path(file).open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - _LONGEST))
        tail = stream.read()
    torn = tail[tail.rfind(b"\n") + 1 :]
    begun = torn.rstrip(b"\0")  # some file systems return zeros for unwritten bytes
    is_record = begun.startswith(_BEGINNING) or _BEGINNING.startswith(begun)
    if is_record and len(torn) < _LONGEST:
        os.ftruncate(fd, end - len(torn))
    else:
        os.write(fd, b"\n")


class Queued:
    """Writes records to `sink` in a thread of its own; a full queue drops the newest.

    log: takes one line when drops begin and one when they end.
    """

    skipped = 0

    def __init__(
        self, sink: Sink, log: Callable[[str], None], length: int = LENGTH, name: str = "sink"
    ) -> None:
        self._sink, self._log = sink, log
        self._lost = self._losing = 0
        self._writing = 0  # 1 while the sink writes a record
        self._closed = threading.Event()
        self._queue: queue.Queue[Record | None] = queue.Queue(length)
        self._thread = MonitoredThread(name, self._serve)
        self._thread.start()

    @property
    def threads(self) -> tuple[MonitoredThread, ...]:
        """The writing thread."""
        return (self._thread,)

    @property
    def dropped(self) -> int:
        """Records that were not written."""
        return self._lost + self._sink.dropped

    @property
    def waiting(self) -> int:
        """Records in the queue."""
        return self._queue.qsize()

    def write(self, record: Record) -> None:
        """Queue one record, or drop it; see Sink."""
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
        """Write what is queued, for `FAREWELL` seconds at most, and close the sink."""
        with suppress(queue.Full):
            self._queue.put(None, timeout=FAREWELL)
        if not self._thread.join(FAREWELL):
            # The thread hangs or never started; it ends with the process.
            waiting = sum(record is not None for record in self._queue.queue)
            self._lost += self._writing + waiting
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
            self._writing = 1
            try:
                self._sink.write(record)
            except SinkClosedError:
                self._closed.set()
                return
            except BaseException:
                self._lost += 1
                raise
            finally:
                self._writing = 0


class Several:
    """Writes every record to each sink; SinkClosedError of any of them ends the run."""

    def __init__(self, sinks: Sequence[MonitoredSink]) -> None:
        self._sinks = tuple(sinks)

    @property
    def dropped(self) -> int:
        """Sum over all sinks."""
        return sum(sink.dropped for sink in self._sinks)

    @property
    def skipped(self) -> int:
        """Sum over all sinks."""
        return sum(sink.skipped for sink in self._sinks)

    @property
    def threads(self) -> Sequence[MonitoredThread]:
        """The threads of all sinks."""
        return [thread for sink in self._sinks for thread in sink.threads]

    def write(self, record: Record) -> None:
        """Write the record to each sink."""
        for sink in self._sinks:
            sink.write(record)

    def close(self) -> None:
        """Close each sink."""
        for sink in self._sinks:
            sink.close()
