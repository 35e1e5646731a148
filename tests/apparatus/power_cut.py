"""A disk with a power cut after the k-th operation.

Besides the real files it tracks what Linux guarantees: a file's bytes survive once the file is
synced, names in a folder (made, moved, removed) once the folder is synced. `image` writes a
possible state after the cut, from the largest loss to none.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from edge_runtime.updates.disk import StoreDisk

AFTERMATHS = tuple(itertools.product(("lost", "kept"), ("empty", "half", "whole")))
"""The fate of unsynced names, and of unsynced bytes."""


Found = Union[bytes, "frozenset[tuple[str, Found]]"]
"""A file's bytes, or a folder's names with what each is."""


class PowerCutError(BaseException):
    """The power is cut. Not an Exception, so that no program can clean up."""


@dataclass
class File:
    synced: bytes | None = None  # None: never
    data: bytes = b""

    def found(self, contents: str) -> bytes:
        if self.synced == self.data:
            return self.data
        return {"empty": b"", "half": self.data[: len(self.data) // 2], "whole": self.data}[
            contents
        ]


@dataclass
class Folder:
    synced: dict[str, File | Folder] = field(default_factory=dict)
    entries: dict[str, File | Folder] = field(default_factory=dict)


class UnsyncedDisk(StoreDisk):
    """A real disk without waiting for syncs."""

    def sync(self, path: Path) -> None:
        assert path.exists()


class PowerCutDisk(UnsyncedDisk):
    """Does only the first `operations` operations below `root`. done: number of operations."""

    def __init__(self, root: Path, operations: float = float("inf")) -> None:
        self.root, self.left, self.done = root, operations, 0
        self.names: list[str] = []
        self.tree = _scanned(root)

    def make_folder(self, folder: Path) -> None:
        self._count(f"make {folder.name}")
        super().make_folder(folder)
        self._parent(folder).entries.setdefault(folder.name, Folder())

    def write(self, file: Path, data: bytes, mode: int = 0o644) -> None:
        self._count(f"write {file.name}")
        super().write(file, data, mode)
        entry = self._parent(file).entries.setdefault(file.name, File())
        assert isinstance(entry, File)
        entry.data = data
        if entry.synced is not None:
            entry.synced = b""  # truncated in place: the old bytes are no longer certain

    def sync(self, path: Path) -> None:
        self._count(f"sync {path.name}")
        super().sync(path)
        entry = self._entry(path)
        if isinstance(entry, File):
            entry.synced = entry.data
        else:
            entry.synced = dict(entry.entries)

    def rename(self, old: Path, new: Path) -> None:
        self._count(f"rename {old.name}")
        super().rename(old, new)
        self._parent(new).entries[new.name] = self._parent(old).entries.pop(old.name)

    def protect(self, folder: Path, writable: bool = False) -> None:
        self._count(f"protect {folder.name}")
        super().protect(folder, writable)

    def remove(self, path: Path) -> None:
        self._count(f"remove {path.name}")
        super().remove(path)
        self._parent(path).entries.pop(path.name, None)

    def image(self, names: str, contents: str, target: Path) -> Path:
        """Write the store to `target` as it may be after the cut."""
        if target.exists():
            shutil.rmtree(target)
        _write(_found(self.tree, names, contents), target)
        return target

    def found(self, names: str, contents: str) -> Found:
        """Return the same as a value, so that equal states are checked only once."""
        return _found(self.tree, names, contents)

    def _count(self, name: str) -> None:
        if self.done >= self.left:
            raise PowerCutError
        self.done += 1
        self.names.append(name)

    def _parent(self, path: Path) -> Folder:
        parent = self._entry(path.parent)
        assert isinstance(parent, Folder)
        return parent

    def _entry(self, path: Path) -> File | Folder:
        entry: File | Folder = self.tree
        for part in path.relative_to(self.root).parts:
            assert isinstance(entry, Folder)
            entry = entry.entries[part]
        return entry


def _scanned(path: Path) -> File | Folder:
    """Read the initial state of the disk; everything is synced. Locks contain no data."""
    if path.is_file():
        return File(path.read_bytes(), path.read_bytes())
    found = {p.name: _scanned(p) for p in sorted(path.glob("*")) if p.suffix != ".lock"}
    return Folder(dict(found), found)


def _found(entry: File | Folder, names: str, contents: str) -> Found:
    if isinstance(entry, File):
        return entry.found(contents)
    known = entry.synced if names == "lost" else entry.entries
    return frozenset((name, _found(child, names, contents)) for name, child in known.items())


def _write(found: Found, target: Path) -> None:
    if isinstance(found, bytes):
        target.write_bytes(found)
        return
    target.mkdir()
    for name, child in found:
        _write(child, target / name)
