"""The journal: the newest messages in memory, and all of them on the disk.

`Backlog` is the memory: one thread appends and never waits for a disk or a network. `Journal`
writes the backlog to segments in a thread of its own. A `Reader` takes messages out in order, from
memory, or from the disk when memory has dropped them; a `Cursor` keeps its position on the disk.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.journal.frames import Entry, decode, encode
from edge_runtime.journal.segments import JournalDisk, Segments, claim_folder, entries_after
from edge_runtime.threads import BEAT, MonitoredThread

LENGTH = 10_000
"""Messages in memory; some 10 MB."""
SYNC_EVERY = 1.0
"""Seconds of messages that a power cut may cost."""
FAREWELL = 5.0
"""Seconds that `close` waits for the disk."""
_BATCH = 256
_RETRY = 1.0  # seconds between attempts on a disk that fails
_SUFFIX = ".cursor"


class Backlog:
    """Numbers messages from `first` on and keeps the last `length` of them.

    patience: seconds that `append` waits for room (see `done`) before the oldest is dropped. After
    one such wait without success it does not wait again until there is room.
    """

    def __init__(self, first: int = 1, length: int = LENGTH, patience: float = 0.0) -> None:
        self._messages: deque[bytes] = deque(maxlen=length)
        self._length, self._patience = length, patience
        self._newest = self._done = first - 1
        self._losing = False
        self._room = threading.Condition()
        self._wakers: list[Callable[[], None]] = []

    @property
    def newest(self) -> int:
        """The number of the last message."""
        return self._newest

    @property
    def oldest(self) -> int:
        """The number of the first message in memory."""
        return self._newest - len(self._messages) + 1

    def wake_on_append(self, waker: Callable[[], None]) -> None:
        """Call `waker` after every append; it must not block."""
        self._wakers.append(waker)

    def append(self, message: bytes) -> None:
        """Add one message; the oldest is dropped when there is no room."""
        with self._room:
            patience = 0.0 if self._losing else self._patience
            self._losing = not self._room.wait_for(self._has_room, patience)
            self._messages.append(message)
            self._newest += 1
        for waker in self._wakers:
            waker()

    def read(self, after: int, limit: int) -> list[Entry]:
        """Return up to `limit` entries above `after`, oldest first, without dropped ones."""
        with self._room:
            oldest = self.oldest
            first = max(after + 1, oldest)
            messages = islice(self._messages, first - oldest, first - oldest + limit)
            return [Entry(first + place, message) for place, message in enumerate(messages)]

    def done(self, sequence: int) -> None:
        """Mark the messages up to this one as taken; their room is free."""
        with self._room:
            self._done = sequence
            self._room.notify_all()

    def _has_room(self) -> bool:
        return self._newest - self._done < self._length


class Cursor:
    """The number up to which the reader called `reader` has taken the messages, on the disk.

    found, kept: the number on the disk at first, and now. None for a new reader; 0 when the cursor
    is damaged, since sending twice does less harm than never sending.
    """

    def __init__(self, disk: JournalDisk, reader: str) -> None:
        self._disk, self._reader = disk, reader
        self._name = hashlib.sha256(reader.encode()).hexdigest()[:16] + _SUFFIX
        self.found = _read_cursor(disk, self._name) if self._name in disk.sizes() else None
        self.kept = self.found

    def keep(self, sequence: int) -> None:
        """Write `sequence` durably. Raises OSError, which leaves the old number."""
        if sequence == self.kept:
            return
        self._disk.replace(self._name, encode(Entry(sequence, self._reader.encode())))
        self.kept = sequence


def furthest_cursor(disk: JournalDisk) -> int:
    """Return the highest number in any cursor of the folder, 0 without one."""
    names = (name for name in disk.sizes() if name.endswith(_SUFFIX))
    return max((_read_cursor(disk, name) for name in names), default=0)


def _read_cursor(disk: JournalDisk, name: str) -> int:
    try:
        data = disk.read(name)
    except OSError:
        return 0
    return max((entry.sequence for entry, _ in decode(data)), default=0)


class Reader:
    """Reads the messages after number `position`.

    disk: holds older messages; None when there is only memory.
    lost: messages that were dropped before they were read.
    """

    def __init__(self, backlog: Backlog, position: int, disk: JournalDisk | None = None) -> None:
        self.position, self.lost = position, 0
        self._backlog, self._disk = backlog, disk
        self._older: Iterator[Entry] | None = None

    @property
    def waiting(self) -> int:
        """Messages after the last one read."""
        return self._backlog.newest - self.position

    def read(self, limit: int) -> list[Entry]:
        """Return the next entries, at most `limit`."""
        newest = self._backlog.newest
        if limit <= 0 or self.position == newest:
            return []
        entries = self._backlog.read(self.position, limit)
        older = self._from_disk(limit) if self._gap(entries, newest) else []
        if self._gap(older, newest) < self._gap(entries, newest):
            entries = older
        else:
            self._older = None
        self.lost += self._gap(entries, newest)
        self.position = entries[-1].sequence if entries else newest
        if self._disk is None:
            self._backlog.done(self.position)
        return entries

    def _gap(self, entries: list[Entry], newest: int) -> int:
        return (entries[0].sequence - 1 if entries else newest) - self.position

    def _from_disk(self, limit: int) -> list[Entry]:
        """Continue in the files as they were, or start again in the files as they are now."""
        entries = list(islice(self._older or iter(()), limit))
        if self._disk and not entries:
            self._older = entries_after(self._disk, self.position)
            try:
                entries = list(islice(self._older, limit))
            except OSError:
                self._older = None
        return entries


class Journal:
    """Takes messages from one thread and keeps them in memory and on the disk.

    capacity: bytes on the disk.
    log: takes one line when the disk fails, works again, or unread messages are dropped.
    clock: monotonic seconds. patience: as of Backlog, here for the disk.
    Raises OSError when the folder cannot be read.
    """

    def __init__(
        self,
        disk: JournalDisk,
        capacity: int,
        log: Callable[[str], None],
        clock: Callable[[], float],
        length: int = LENGTH,
        patience: float = 0.0,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._disk, self._clock, self._on_close = disk, clock, on_close
        self._log = LimitedLog(log, clock)
        self._segments = Segments(disk, capacity)
        # A message sent shortly before a power cut may be missing here, but its number is used.
        start = max(self._segments.newest, furthest_cursor(disk))
        self._backlog = Backlog(start + 1, length, patience)
        self._start = self._written = start
        self._lost = 0
        self._failing = False
        self._synced_at = clock() - SYNC_EVERY
        self._readers: dict[str, Reader] = {}
        self._wake, self._closing = threading.Event(), threading.Event()
        self._backlog.wake_on_append(self._wake.set)
        self.thread = MonitoredThread("journal", self._serve)
        self.thread.start()

    @property
    def dropped(self) -> int:
        """Messages that were not written to the disk; exact after `close`."""
        return self._lost

    def append(self, message: bytes) -> None:
        """Add one message."""
        self._backlog.append(message)

    def wake_on_append(self, waker: Callable[[], None]) -> None:
        """See Backlog."""
        self._backlog.wake_on_append(waker)

    def reader(self, name: str) -> tuple[Reader, Cursor]:
        """Return the reader called `name`, at its last position, and the cursor that keeps it.

        A new reader starts with the next message.
        """
        cursor = Cursor(self._disk, name)
        position = self._backlog.newest if cursor.found is None else cursor.found
        # A restored older journal may end before the cursor.
        reader = Reader(self._backlog, min(position, self._backlog.newest), self._disk)
        self._readers[name] = reader
        try:
            cursor.keep(reader.position)  # or a power cut would make the reader new again
        except OSError as error:
            self._log.trouble(
                name, f"journal: cannot keep what {name} has taken ({error.strerror})"
            )
        return reader, cursor

    def close(self) -> None:
        """Write the messages that are only in memory, sync and close."""
        self._closing.set()
        self._wake.set()
        self.thread.join(FAREWELL)
        self._lost += self._backlog.newest - self._written
        self._on_close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            if self._failing:
                self._closing.wait(_RETRY)
            else:
                self._wake.wait(self._until_sync())
            self._wake.clear()
            self.thread.beat()
            self._write_out()
        self._write_out(last=True)

    def _until_sync(self) -> float:
        if not self._segments.dirty:
            return BEAT
        return max(0.0, self._synced_at + SYNC_EVERY - self._clock())

    def _write_out(self, last: bool = False) -> None:
        try:
            while entries := self._backlog.read(self._written, _BATCH):
                for entry in entries:
                    self._write(entry)
                self._mark_written()
                self._sync_when_due()
                self.thread.beat()
            self._sync_when_due()
            if last:
                self._segments.close()
        except OSError as error:
            self._mark_written()
            self._failing = True
            self._log.trouble(
                "write",
                f"journal: cannot write to {self._disk.folder} ({error.strerror}); "
                "records wait in memory",
            )

    def _write(self, entry: Entry) -> None:
        oldest = self._segments.oldest
        self._segments.append(entry)
        self._lost += entry.sequence - self._written - 1
        self._written = entry.sequence
        self._log_dropped(oldest)

    def _mark_written(self) -> None:
        self._written = max(self._segments.newest, self._start)
        self._backlog.done(self._written)

    def _sync_when_due(self) -> None:
        due = self._failing or self._clock() - self._synced_at >= SYNC_EVERY
        if self._segments.dirty and due:
            self._segments.sync()
            self._synced_at = self._clock()
            self._failing = False
            self._log.over(
                f"journal: writes again; {self._lost} records are missing in it", "write"
            )

    def _log_dropped(self, oldest: int) -> None:
        """Log the readers that lost messages when the oldest segment was dropped."""
        if self._segments.oldest == oldest:
            return
        for name, reader in self._readers.items():
            kept = min(self._segments.oldest, self._backlog.oldest)
            missed = kept - 1 - max(reader.position, oldest - 1)
            if missed > 0:
                self._log.trouble(
                    f"{name} misses",
                    f"journal: full; {missed} records that {name} did not take are dropped",
                )


def open_journal(
    folder: Path,
    capacity: int,
    log: Callable[[str], None],
    clock: Callable[[], float],
    patience: float = 0.0,
) -> Journal:
    """Open the journal in `folder`, made if missing, and lock it until the journal is closed.

    Raises GruardError.
    """
    release = claim_folder(folder)
    try:
        return Journal(JournalDisk(folder), capacity, log, clock, LENGTH, patience, release)
    except OSError as error:
        release()
        raise GruardError(f"{folder}: the journal cannot be read ({error.strerror})") from None
