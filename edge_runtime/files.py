"""Open what a user names, without ever waiting for it: a file, and not a pipe, device or folder.

Writing so that a power loss at any moment leaves the old file or the new one, whole.

Linux promises nothing about what was written until it is synced: a file's bytes by syncing the
file, its name, or another name for it, by syncing the folder. Everything here may raise OSError.

Wait for file descriptors. poll(2), as select(2) fails for descriptors from 1,024 on.
"""

import errno
import math
import os
import select
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from edge_runtime.errors import GruardError

PIPE, DEVICE = "a named pipe", "a device"
_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, PIPE),
    (stat.S_ISCHR, DEVICE),
    (stat.S_ISBLK, "a disk"),
    (stat.S_ISSOCK, "a socket"),
)


def kind_of(mode: int) -> str:
    """Return what a file of this `st_mode` is, in words."""
    return next((name for matches, name in _KINDS if matches(mode)), "no file")


def kind_at(path: str | Path) -> str:
    """Return what `path` names, in the words of `kind_of`; empty where nothing can be seen."""
    try:
        return kind_of(Path(path).stat().st_mode)
    except OSError:
        return ""


class NotAFileError(OSError):
    """Something else than a regular file lies there; strerror names its kind."""


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
    """Open the regular file `path` as os.open does, never inherited; return its descriptor.

    The kind is looked at before the file is opened: to open a pipe waits for its writer, and to
    open a watchdog device starts it. Raises OSError, NotAFileError for another kind of file.
    """
    require_regular(path)
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    try:  # it may have been exchanged meanwhile
        _require(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path, most: int, flags: int = os.O_RDONLY) -> bytes:
    """Return the first `most` bytes of the regular file `path`. Raises OSError."""
    with os.fdopen(open_regular(path, flags), "rb", buffering=0) as stream:
        return stream.read(most) or b""


def open_input(path: str | Path, advice: str) -> BinaryIO:
    """Open the regular file `path` that a user names, for reading.

    `advice` ends the error for anything that is no file. Raises GruardError for another kind of
    file, OSError when the file cannot be opened.
    """
    try:
        return os.fdopen(open_regular(Path(path)), "rb")
    except NotAFileError as error:
        raise GruardError(f"{path}: {error.strerror}; {advice}") from None


def require_regular(path: Path) -> None:
    """Raise NotAFileError if another kind of file lies at `path`; nothing there is fine."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    _require(mode, path)


def _require(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise NotAFileError(number, f"is {kind_of(mode)}, not a file", str(path))


def refuse_one_file_twice(named: Iterable[tuple[str, str | int]]) -> None:
    """Raise GruardError when two of the (option, target) pairs are one file or pipe.

    A target is a path, or the number of an open descriptor (0 stdin, 1 stdout). Links and other
    names of a file count as the file, and so does a descriptor that a shell redirected to it.
    """
    seen: dict[tuple[object, ...], tuple[str, str | int]] = {}
    for option, target in named:
        identity = _identity(target)
        if identity is not None and identity in seen:
            other, first = seen[identity]
            raise GruardError(
                f"{other} {_shown(first)} and {option} {_shown(target)} are one file; "
                f"name another {option}"
            )
        if identity is not None:
            seen[identity] = (option, target)


def _identity(target: str | int) -> tuple[object, ...] | None:
    """What two names of one file share; None for a device, which may have several uses."""
    try:
        status = os.fstat(target) if isinstance(target, int) else Path(target).stat()
    except OSError:
        return ("not there", target if isinstance(target, int) else os.path.realpath(target))
    if stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode):
        return (status.st_dev, status.st_ino)
    return ("descriptor", target) if isinstance(target, int) else None


def _shown(target: str | int) -> str:
    return "-" if isinstance(target, int) else target


def replace_text(file: Path, text: str, mode: int = 0o644) -> None:
    """Give `file` the content `text`, on the disk when this returns."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write_new(scratch, text.encode(), mode)
        sync(scratch)
        scratch.replace(file)
        sync(file.parent)
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def write_new(file: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a whole file, not yet synced; see `open_new`. The umask does not change the mode."""
    descriptor = open_new(file, mode)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(data)


def open_new(file: Path, mode: int = 0o666) -> int:
    """A descriptor to write a file in the place of one that was left over.

    No link that lies there is followed, and nobody else has the file open.
    """
    file.unlink(missing_ok=True)
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def sync(path: Path) -> None:
    """Let the bytes of a file, or the names in a folder, outlast a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_LONGEST_WAIT = 3600.0
"""Seconds; poll takes milliseconds in 32 bits, which is 24 days."""


def readable(descriptor: int, timeout: float | None) -> bool:
    """Wait until `descriptor` can be read or has ended, at most `timeout` seconds.

    None waits for ever. Returns False when the time is over.
    """
    return ready(descriptor, timeout, select.POLLIN)


def ready(descriptor: int, timeout: float | None, events: int) -> bool:
    """Wait for any of the poll `events`, or for an error or an end; see `readable`."""
    return bool(all_ready({descriptor: events}, timeout))


def all_ready(wanted: Mapping[int, int], timeout: float | None) -> set[int]:
    """Wait for the first of several descriptors, each with its poll events; return those ready."""
    poll = select.poll()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    seconds = _LONGEST_WAIT if timeout is None else min(max(timeout, 0.0), _LONGEST_WAIT)
    while True:
        found = poll.poll(math.ceil(seconds * 1000))
        if found or timeout is not None:
            return {descriptor for descriptor, _ in found}


def refuse_to_overwrite(target: str, force: bool) -> None:
    """GruardError where the file `target` is already there, unless `force` is given."""
    if target != "-" and Path(target).exists() and not force:
        raise GruardError(f"{target}: is already there; choose another --out or add --force")


@contextmanager
def output(target: str, force: bool) -> Iterator[TextIO]:
    """Stdout for `-`, or a file that appears whole or not at all.

    Raises GruardError when it is already there and `force` is not given, or cannot be written.
    """
    if target == "-":
        yield sys.stdout
        return
    path = Path(target)
    refuse_to_overwrite(target, force)
    if path.exists() and not path.is_file():  # it would be replaced by a file
        raise GruardError(f"{target}: is {kind_at(path)}, not a file; name another --out")
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(open_new(scratch), "w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    except OSError as error:
        raise GruardError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
