"""How far a reader of the journal is, kept on the disk."""

import hashlib

from edge_runtime.journal.disk import Disk
from edge_runtime.journal.frames import Entry, decode, encode

_SUFFIX = ".cursor"


class Cursor:
    """The number up to which the reader called `reader` needs nothing any more.

    found, kept: what the disk said at first, and what it says now. None when this reader was never
    here; 0 when the cursor is damaged, for what is sent twice does less harm than what never is.
    """

    def __init__(self, disk: Disk, reader: str) -> None:
        self._disk, self._reader = disk, reader
        self._name = hashlib.sha256(reader.encode()).hexdigest()[:16] + _SUFFIX
        self.found = _read(disk, self._name) if self._name in disk.sizes() else None
        self.kept = self.found

    def keep(self, sequence: int) -> None:
        """Wait until the disk says `sequence`. Raises OSError; then it says what it said before."""
        if sequence == self.kept:
            return
        scratch = self._name + ".new"
        file = self._disk.open(scratch)
        try:
            self._disk.cut(file, 0)
            self._disk.write(file, encode(Entry(sequence, self._reader.encode())))
            self._disk.sync(file)
        finally:
            self._disk.close(file)
        self._disk.rename(scratch, self._name)
        self._disk.sync_names()
        self.kept = sequence


def furthest_cursor(disk: Disk) -> int:
    """The highest number that any cursor in the folder says, 0 when there is none."""
    names = (name for name in disk.sizes() if name.endswith(_SUFFIX))
    return max((_read(disk, name) for name in names), default=0)


def _read(disk: Disk, name: str) -> int:
    try:
        data = disk.read(name)
    except OSError:
        return 0
    return max((entry.sequence for entry, _ in decode(data)), default=0)
