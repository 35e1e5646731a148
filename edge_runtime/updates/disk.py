"""Everything the store does to a disk, so that a power cut leaves the old state or the new one.

Root installs, and a service that runs as another user reads and writes the same store. Files get
the modes given here, whatever root's umask, so the service can read what root wrote. Files are
replaced and never written in place, so the service only has to own the store's folder. As the
service may have been broken into, no link at the end of a path in the store is followed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_runtime.errors import BusyError, GruardError, RemovedError
from edge_runtime.files import Disk, open_regular

PATIENCE = 5.0
"""Seconds that a command waits for a lock."""
_RETRY = 0.02  # seconds between two attempts to get a lock
_HOLD_PATIENCE = 0.2  # seconds to wait while `unheld` locks a slot for a moment
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM)


class StoreDisk(Disk):
    """The single steps; the power may be cut before and after each of them.

    Each raises GruardError, with the file and the remedy, when the disk is full or read-only.
    """

    def make_folder(self, folder: Path) -> None:
        """Make one folder, readable by all, unless it exists."""
        with _explained(folder):
            made = not folder.exists()
            folder.mkdir(exist_ok=True)
            if made:
                folder.chmod(0o755)

    def write(self, file: Path, data: bytes, mode: int = 0o644) -> None:
        """Write a whole file in place of a leftover one, not yet durably."""
        with _explained(file):
            super().write(file, data, mode)

    def sync(self, path: Path) -> None:
        """Make the bytes of a file, or the names in a folder, durable."""
        with _explained(path):
            super().sync(path)

    def rename(self, old: Path, new: Path) -> None:
        """Rename a file, which replaces `new`, or a folder to a free name."""
        with _explained(new):
            super().rename(old, new)

    def protect(self, folder: Path, writable: bool = False) -> None:
        """Forbid changes in a folder, or allow them again."""
        with _explained(folder):
            folder.chmod(0o755 if writable else 0o555)

    def remove(self, path: Path) -> None:
        """Remove one file or one empty folder."""
        with _explained(path):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                super().remove(path)


def make_folders(disk: StoreDisk, folder: Path) -> None:
    """Make `folder` and its parents, durably."""
    if folder.is_dir():
        return
    make_folders(disk, folder.parent)
    disk.make_folder(folder)
    disk.sync(folder.parent)


def remove_folder(disk: StoreDisk, folder: Path) -> None:
    """Remove a folder of files, if it is there.

    A power cut leaves some of the files, so rename the folder to a hidden name first.
    """
    if folder.is_symlink():
        disk.remove(folder)
    if not folder.is_dir():
        return
    disk.protect(folder, writable=True)
    for file in sorted(folder.iterdir()):
        disk.remove(file)
    disk.remove(folder)


@contextmanager
def locked(file: Path, patience: float) -> Iterator[None]:
    """Hold the lock `file`; the kernel releases it when the process ends in any way.

    Raises BusyError when another process holds it for longer than `patience` seconds.
    """
    with _explained(file):
        descriptor = _opened_lock(file)
    try:
        _lock(descriptor, file, fcntl.LOCK_EX, patience)
        yield
    finally:
        os.close(descriptor)


class StoreLock:
    """Marks a slot as in use until `release` or the end of the process; several may hold one.

    file: in the slot. Raises RemovedError when the slot was removed, BusyError while it is being
    removed.
    """

    def __init__(self, file: Path) -> None:
        with _explained(file):
            try:
                self._descriptor = open_regular(file, os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                raise _removed(file) from None
        try:
            _lock(self._descriptor, file, fcntl.LOCK_SH, _HOLD_PATIENCE)
            if not _is_at(self._descriptor, file):
                raise _removed(file)
        except GruardError:
            self.release()
            raise

    def release(self) -> None:
        """Release the slot; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def unheld(file: Path) -> Iterator[bool]:
    """Tell whether no process holds `file` (see `StoreLock`); if so, none can during the block."""
    descriptor = -1
    with suppress(OSError):  # a file that cannot be opened cannot be held
        descriptor = open_regular(file, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        yield descriptor < 0 or _is_free(descriptor)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(descriptor: int, file: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.lstat())
    except OSError:
        return False


def _removed(file: Path) -> RemovedError:
    return RemovedError(f"{file.parent}: was removed meanwhile; install the bundle again")


def _opened_lock(file: Path) -> int:
    """Open or make a lock file, of any owner: a descriptor for reading is enough to lock it."""
    with suppress(FileExistsError):
        made = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.fchmod(made, 0o644)
        return made
    return open_regular(file, os.O_RDONLY | os.O_NOFOLLOW)


def _lock(descriptor: int, file: Path, kind: int, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        with _explained(file), suppress(BlockingIOError):
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        if time.monotonic() >= end:
            raise BusyError(
                f"{file}: is locked, since another gruard command is at work there; try again when "
                f"it has ended, or end it if it hangs (fuser {file} names it)"
            )
        time.sleep(_RETRY)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an OSError into a GruardError that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        raise GruardError(
            f"{path}: cannot be written ({error.strerror}); {_remedy(error.errno)}"
        ) from None


def _remedy(number: int | None) -> str:
    if number in _FULL:
        return "make room there and run the command again"
    if number == errno.EROFS:
        return "the disk is read-only: mount it writable, or name another --store"
    if number in _FORBIDDEN:
        return "run the command as the owner of the store, or name another --store"
    if number in (errno.EINVAL, errno.EISDIR):
        return "remove it, or name another --store"
    return "name another --store"
