"""The journal: messages in memory at once, and on the disk by a thread that may wait for it."""

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from edge_runtime.errors import GruardError
from edge_runtime.journal.backlog import LENGTH, Backlog
from edge_runtime.journal.cursor import Cursor, furthest_cursor
from edge_runtime.journal.disk import Disk, claim_folder
from edge_runtime.journal.frames import Entry
from edge_runtime.journal.reader import Reader
from edge_runtime.journal.segments import Segments
from edge_runtime.limited_log import LimitedLog
from edge_runtime.threads import BEAT, WatchedThread

SYNC_EVERY = 1.0
"""Seconds of messages that a power cut may cost."""
FAREWELL = 5.0
"""Seconds that the disk may take at the end."""
_BATCH = 256
_RETRY = 1.0  # seconds between attempts on a disk that fails


class Journal:
    """Takes messages from one thread and keeps them; see the room's docstring.

    capacity: bytes on the disk.
    log: takes one line when the disk fails, when it works again, when unread messages give way.
    clock: monotonic seconds.
    patience: see Backlog; here it is the disk that is waited for.
    Raises OSError when the folder cannot be read.
    """

    def __init__(
        self,
        disk: Disk,
        capacity: int,
        log: Callable[[str], None],
        clock: Callable[[], float],
        length: int = LENGTH,
        patience: float = 0.0,
    ) -> None:
        self._disk, self._clock = disk, clock
        self._log = LimitedLog(log, clock)
        self._segments = Segments(disk, capacity)
        # What was sent shortly before a power cut may be on no disk, but its number is taken.
        start = max(self._segments.newest, furthest_cursor(disk))
        self._backlog = Backlog(start + 1, length, patience)
        self._start = self._written = start
        self._lost = 0
        self.on_close = ExitStack()
        self._failing = False
        self._synced_at = clock() - SYNC_EVERY
        self._readers: dict[str, Reader] = {}
        self._wake, self._closing = threading.Event(), threading.Event()
        self._backlog.wake_on_append(self._wake.set)
        self.thread = WatchedThread("journal", self._serve)
        self.thread.start()

    @property
    def dropped(self) -> int:
        """Messages that never came to the disk; exact after `close`."""
        return self._lost

    def append(self, message: bytes) -> None:
        """Keep one message."""
        self._backlog.append(message)

    def wake_on_append(self, waker: Callable[[], None]) -> None:
        """See Backlog."""
        self._backlog.wake_on_append(waker)

    def reader(self, name: str) -> tuple[Reader, Cursor]:
        """A reader that goes on where the one of this name was, and the cursor to tell it.

        A new one begins with what is appended from now on.
        """
        cursor = Cursor(self._disk, name)
        position = self._backlog.newest if cursor.found is None else cursor.found
        # An older journal may be put back under a cursor; the cursor does not go back with it.
        reader = Reader(self._backlog, min(position, self._backlog.newest), self._disk)
        self._readers[name] = reader
        try:
            cursor.keep(reader.position)  # or a power cut would make it new again
        except OSError as error:
            self._log.trouble(
                name, f"journal: cannot keep what {name} has taken ({error.strerror})"
            )
        return reader, cursor

    def close(self) -> None:
        """Write what is in memory only, sync and close."""
        self._closing.set()
        self._wake.set()
        self.thread.join(FAREWELL)
        self._lost += self._backlog.newest - self._written
        self.on_close.close()

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
                self._take_note()
                self._sync_when_due()
                self.thread.beat()
            self._sync_when_due()
            if last:
                self._segments.close()
        except OSError as error:
            self._take_note()
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
        self._tell_of_dropped(oldest)

    def _take_note(self) -> None:
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

    def _tell_of_dropped(self, oldest: int) -> None:
        """Say whose messages gave way when the oldest segment was dropped."""
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
    """The journal in `folder`, which is made if need be and is nobody else's until it is closed.

    Raises GruardError when that is not possible.
    """
    claim = claim_folder(folder)
    try:
        journal = Journal(Disk(folder), capacity, log, clock, patience=patience)
    except OSError as error:
        os.close(claim)
        raise GruardError(f"{folder}: the journal cannot be read ({error.strerror})") from None
    journal.on_close.callback(os.close, claim)
    return journal
