"""The segment files of a journal, and the steps it takes on a disk.

Entries are appended to the newest segment; at a size a new one begins and the oldest is dropped. A
segment's name is a lower bound of its entries' numbers. Each method of `JournalDisk` is one step,
before which tests cut the power.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from edge_runtime.errors import GruardError
from edge_runtime.files import open_regular, replace_file, sync
from edge_runtime.journal.frames import LARGEST, OVERHEAD, Entry, decode, encode

SEGMENTS = 32
"""Parts of a journal's capacity; the oldest part is dropped as a whole."""
_NAME = re.compile(r"([0-9]{20})\.journal")


class JournalDisk:
    """The files of one folder. All methods may raise OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sizes(self) -> dict[str, int]:
        """Return the names of all files and their sizes in bytes."""
        with os.scandir(self.folder) as entries:
            return {item.name: item.stat().st_size for item in entries if item.is_file()}

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        return (self.folder / name).read_bytes()

    def open(self, name: str) -> int:
        """Open a file for appending, and create it when it is missing; return the descriptor."""
        return open_regular(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def cut(self, file: int, size: int) -> None:
        """Truncate a file to `size` bytes."""
        os.ftruncate(file, size)

    def write(self, file: int, data: bytes) -> None:
        """Write all of `data`; an error may leave a part of it."""
        written = 0
        while written < len(data):
            written += os.write(file, data[written:])

    def sync(self, file: int) -> None:
        """Make the file's bytes durable."""
        os.fsync(file)

    def close(self, file: int) -> None:
        """Close the descriptor."""
        os.close(file)

    def replace(self, name: str, data: bytes) -> None:
        """Replace a whole file in one step, durably."""
        replace_file(self.folder / name, data)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def sync_names(self) -> None:
        """Make the names of created and removed files durable."""
        sync(self.folder)


def claim_folder(folder: Path) -> Callable[[], None]:
    """Make the folder and lock it against other runs; return a function that unlocks it.

    Raises GruardError when it cannot be made, or another run holds it. A folder that is read-only
    is accepted: a worn SD card must not stop the run.
    """
    try:
        folder.mkdir(exist_ok=True)
        claim = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise GruardError(
            f"{folder}: folder {folder.parent} does not exist; create it first"
        ) from None
    except OSError as error:
        raise GruardError(
            f"{folder}: cannot be a journal's folder ({error.strerror}); name another --journal"
        ) from None
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        raise GruardError(
            f"{folder}: another run writes this journal; give each run a folder of its own"
        ) from None
    return partial(os.close, claim)


class Segments:
    """Writes entries to the newest segment. Opening only reads; the first write may truncate.

    capacity: most bytes of all segments together.
    newest: number of the last entry written, 0 when there is none.
    All methods may raise OSError. Entries after `newest` then have to be appended again.
    """

    def __init__(self, disk: JournalDisk, capacity: int) -> None:
        self._disk, self._capacity = disk, capacity
        self._sizes = _segments(disk)
        self._file: int | None = None
        self.newest = 0
        if self._sizes:
            self._find_end(max(self._sizes))
        self._synced = self._end()
        self.dirty = False

    @property
    def oldest(self) -> int:
        """A lower bound of the numbers of all entries."""
        return min(self._sizes, default=self.newest + 1)

    def append(self, entry: Entry) -> None:
        """Write one entry at the end."""
        data = encode(entry)
        try:
            file = self._open_for(entry.sequence, len(data))
            self._disk.write(file, data)
        except OSError:
            self._close_file()
            raise
        self._sizes[max(self._sizes)] += len(data)
        self.newest = entry.sequence
        self.dirty = True

    def sync(self) -> None:
        """Make all appended entries durable."""
        if self._file is not None and self.dirty:
            try:
                self._disk.sync(self._file)
            except OSError:
                # The kernel may have dropped the unsynced bytes: append them again.
                self.newest, self._sizes[max(self._sizes)] = self._synced
                self._close_file()
                raise
            self._synced = self._end()
        self.dirty = False

    def close(self) -> None:
        """Sync, and close the newest segment."""
        self.sync()
        self._close_file()

    def _end(self) -> tuple[int, int]:
        return self.newest, self._sizes[max(self._sizes)] if self._sizes else 0

    def _find_end(self, last: int) -> None:
        try:
            data = self._disk.read(_name(last))
        except OSError:
            # A bad sector: start a new segment above the most entries that this one can hold.
            self.newest = last + self._sizes[last] // OVERHEAD
            self._sizes[self.newest + 1] = 0
            return
        self.newest, self._sizes[last] = last - 1, 0
        for entry, end in decode(data):
            self.newest, self._sizes[last] = entry.sequence, end

    def _open_for(self, sequence: int, length: int) -> int:
        last = max(self._sizes, default=0)
        full = self._sizes.get(last, 0) + length > self._capacity // SEGMENTS
        if not self._sizes or (self._sizes[last] and full):
            self.close()
            self._drop_oldest(length)
            last = sequence
            self._sizes[last] = 0
            self._synced = self._end()
        if self._file is None:
            self._file = self._disk.open(_name(last))
            # Remove the part of an entry that a power cut or a full disk left.
            self._disk.cut(self._file, self._sizes[last])
            self._disk.sync_names()
        return self._file

    def _drop_oldest(self, length: int) -> None:
        room = self._capacity - max(self._capacity // SEGMENTS, length)
        while self._sizes and sum(self._sizes.values()) > room:
            self._disk.remove(_name(min(self._sizes)))
            del self._sizes[min(self._sizes)]

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            self._disk.close(file)


def entries_after(disk: JournalDisk, after: int) -> Iterator[Entry]:
    """Yield every intact entry with a number above `after`, in order, from the files as they are.

    Skips a segment that cannot be read or was dropped meanwhile. Raises OSError when the folder
    cannot be read.
    """
    firsts = sorted(_segments(disk))
    behind = [first for first in firsts if first <= after + 1]
    for first in firsts[max(len(behind) - 1, 0) :]:
        try:
            data = disk.read(_name(first))
        except OSError:
            continue
        for entry, _ in decode(data):
            if entry.sequence > after:
                after = entry.sequence
                yield entry


def _segments(disk: JournalDisk) -> dict[int, int]:
    """Return first numbers and sizes of all segments; ignores other files."""
    matches = ((_NAME.fullmatch(name), size) for name, size in disk.sizes().items())
    return {int(match[1]): size for match, size in matches if match and int(match[1]) <= LARGEST}


def _name(first: int) -> str:
    return f"{first:020}.journal"
