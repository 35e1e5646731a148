"""One who takes messages out, in order: from memory, and what is not there any more from disk."""

from collections.abc import Iterator
from itertools import islice

from edge_runtime.journal.backlog import Backlog
from edge_runtime.journal.disk import Disk
from edge_runtime.journal.frames import Entry
from edge_runtime.journal.segments import entries_after


class Reader:
    """Reads on after number `position`.

    disk: where older messages are; None when memory is all there is.
    lost: messages that were gone before they could be read.
    """

    def __init__(self, backlog: Backlog, position: int, disk: Disk | None = None) -> None:
        self.position, self.lost = position, 0
        self._backlog, self._disk = backlog, disk
        self._older: Iterator[Entry] | None = None

    @property
    def waiting(self) -> int:
        """Messages that came after the last one read."""
        return self._backlog.newest - self.position

    def read(self, limit: int) -> list[Entry]:
        """The next entries, at most `limit`."""
        newest = self._backlog.newest
        if limit <= 0 or self.position == newest:
            return []
        entries = self._backlog.read(self.position, limit)
        if self._disk and self._gap(entries, newest):
            older = self._from_disk(self._disk, limit)
            if self._gap(older, newest) < self._gap(entries, newest):
                entries = older
            else:
                self._older = None
        else:
            self._older = None
        self.lost += self._gap(entries, newest)
        self.position = entries[-1].sequence if entries else newest
        if self._disk is None:
            self._backlog.done(self.position)
        return entries

    def _gap(self, entries: list[Entry], newest: int) -> int:
        return (entries[0].sequence - 1 if entries else newest) - self.position

    def _from_disk(self, disk: Disk, limit: int) -> list[Entry]:
        """Read on in the files as they were, or afresh in the files as they are now."""
        entries = list(islice(self._older or iter(()), limit))
        if not entries:
            self._older = entries_after(disk, self.position)
            try:
                entries = list(islice(self._older, limit))
            except OSError:
                self._older = None
        return entries
