"""All that the store does to a disk, so that a power cut leaves the old or the new.

Root installs, and a service that is another user runs. So modes are what they are said to be,
whatever root's umask: the service has to read what it did not write. What it does write needs no
more than a store's folder of its own, for a file is replaced and never written in place. And since
that user might be an intruder by now, no link in the store is followed at the end of a path.
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
from edge_runtime.files import open_regular, sync, write_new

PATIENCE = 5.0
"""Seconds that a command waits for a lock."""
_BETWEEN = 0.02  # seconds between two attempts to get it
_A_LOOK = 0.2  # seconds; `unheld` has it for a moment
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM)


class StoreDisk:
    """The primitive operations; the power may go before and after each of them.

    Each raises GruardError, with the file and what to do, when the disk is full or read-only.
    """

    def make_folder(self, folder: Path) -> None:
        """Make one folder, readable by all; it may be there already."""
        with _told(folder):
            made = not folder.exists()
            folder.mkdir(exist_ok=True)
            if made:
                folder.chmod(0o755)

    def write(self, file: Path, data: bytes, mode: int = 0o644) -> None:
        """Write a whole file, in place of one that was left over, not yet durably."""
        with _told(file):
            write_new(file, data, mode)

    def sync(self, path: Path) -> None:
        """Make the bytes of a file, or the names in a folder, durable."""
        with _told(path):
            sync(path)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in place of what had it, or a folder a name that is free."""
        with _told(new):
            old.replace(new)

    def protect(self, folder: Path, writable: bool = False) -> None:
        """Forbid changes in a folder, or allow them again."""
        with _told(folder):
            folder.chmod(0o755 if writable else 0o555)

    def remove(self, path: Path) -> None:
        """Remove one file or one empty folder."""
        with _told(path):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)


def make_folders(disk: StoreDisk, folder: Path) -> None:
    """Make `folder` and those above it, durably."""
    if folder.is_dir():
        return
    make_folders(disk, folder.parent)
    disk.make_folder(folder)
    disk.sync(folder.parent)


def write_durably(disk: StoreDisk, file: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whose bytes last; its name does when its folder is synced."""
    disk.write(file, data, mode)
    disk.sync(file)


def replace_durably(disk: StoreDisk, file: Path, data: bytes) -> None:
    """Replace a file as a whole: afterwards it is the new one for good, before that the old one."""
    scratch = file.with_name(f".{file.name}")
    try:
        write_durably(disk, scratch, data)
        disk.rename(scratch, file)
    except GruardError:
        with suppress(GruardError):
            disk.remove(scratch)
        raise
    disk.sync(file.parent)


def remove_folder(disk: StoreDisk, folder: Path) -> None:
    """Remove a folder of files. A power cut leaves some of them, so take its good name away first.

    The folder may have gone already.
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
    """Hold the lock `file` for a while; the kernel gives it back whatever becomes of the holder.

    Raises BusyError when another process holds it for longer than `patience` seconds.
    """
    with _told(file):
        descriptor = _opened_lock(file)
    try:
        _lock(descriptor, file, fcntl.LOCK_EX, patience)
        yield
    finally:
        os.close(descriptor)


class Hold:
    """Marks a slot as in use until it is released or the process ends; several may hold one.

    file: in the slot. Raises RemovedError when the slot has gone, and BusyError while it goes.
    """

    def __init__(self, file: Path) -> None:
        with _told(file):
            try:
                self._descriptor = open_regular(file, os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                raise _removed(file) from None
        try:
            _lock(self._descriptor, file, fcntl.LOCK_SH, _A_LOOK)
            if not _is_at(self._descriptor, file):
                raise _removed(file)
        except GruardError:
            self.release()
            raise

    def release(self) -> None:
        """Let go; once more does no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def unheld(file: Path) -> Iterator[bool]:
    """Whether no process holds `file`, see Hold; if so, none can while the block lasts."""
    descriptor = -1
    with suppress(OSError):  # what cannot be opened is nobody's
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
    """A descriptor of a lock, whoever made it: reading is enough to hold it."""
    with suppress(FileExistsError):
        made = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.fchmod(made, 0o644)
        return made
    return open_regular(file, os.O_RDONLY | os.O_NOFOLLOW)


def _lock(descriptor: int, file: Path, kind: int, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        with _told(file), suppress(BlockingIOError):
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        if time.monotonic() >= end:
            raise BusyError(
                f"{file}: is locked, since another gruard command is at work there; try again when "
                f"it has ended, or end it if it hangs (fuser {file} names it)"
            )
        time.sleep(_BETWEEN)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say an error of the system in one line, with what to do about it."""
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
