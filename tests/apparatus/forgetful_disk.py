"""A simulated disk in memory with a power cut after a number of operations.

It keeps what Linux promises: bytes survive the cut once the file was synced, names once the folder
was. Of unsynced bytes any number may survive, or zeros in their place; unsynced names may be the
old or the new ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.journal.segments import JournalDisk


class PowerCutError(BaseException):
    """The power is cut. Not an Exception, so that no program can clean up."""


@dataclass
class Inode:
    """A file's bytes as the program reads them, and as they are synced."""

    data: bytes = b""
    synced: bytes = b""

    def found(self) -> Iterator[bytes]:
        """Yield all contents that the file may have after a cut."""
        yield self.data
        if self.data.startswith(self.synced):
            lost = len(self.data) - len(self.synced)
            yield from (self.data[: len(self.data) - cut] for cut in range(1, lost + 1))
            if lost:
                yield self.synced + bytes(lost)
        else:
            yield self.synced


@dataclass
class PowerCutDisk(JournalDisk):
    """The journal's disk. lies: name of a method that does nothing."""

    left: float = math.inf
    names: dict[str, Inode] = field(default_factory=dict)
    lies: str = ""
    folder: Path = Path("memory")

    def __post_init__(self) -> None:
        self.done = 0
        self.synced_names = dict(self.names)
        self.files: dict[int, Inode] = {}

    def sizes(self) -> dict[str, int]:
        return {name: len(inode.data) for name, inode in self.names.items()}

    def read(self, name: str) -> bytes:
        return self.names[name].data

    def open(self, name: str) -> int:
        self.count()
        file = len(self.files)
        self.files[file] = self.names.setdefault(name, Inode())
        return file

    def cut(self, file: int, size: int) -> None:
        self.count()
        self.files[file].data = self.files[file].data[:size]

    def write(self, file: int, data: bytes) -> None:
        self.count()
        self.files[file].data += data

    def sync(self, file: int) -> None:
        self.count()
        if self.lies != "sync":
            self.files[file].synced = self.files[file].data

    def close(self, file: int) -> None:
        pass

    def replace(self, name: str, data: bytes) -> None:
        """Durable when it returns; cut short, it leaves the old file or the new one."""
        self.count()
        self.names[name] = Inode(data, data)
        self.count()
        self.synced_names[name] = self.names[name]

    def remove(self, name: str) -> None:
        self.count()
        del self.names[name]

    def sync_names(self) -> None:
        self.count()
        if self.lies != "sync_names":
            self.synced_names = dict(self.names)

    def count(self) -> None:
        if self.done >= self.left:
            raise PowerCutError
        self.done += 1

    def aftermaths(self) -> Iterator[PowerCutDisk]:
        """Yield every disk that may exist after the cut, with one incomplete file at a time."""
        for names in (self.names, self.synced_names):
            for torn in names:
                for data in names[torn].found():
                    found = {name: Inode(i.data, i.data) for name, i in names.items()}
                    found[torn] = Inode(data, data)
                    yield PowerCutDisk(names=found)
            forgetful = {name: Inode(i.synced, i.synced) for name, i in names.items()}
            yield PowerCutDisk(names=forgetful)
