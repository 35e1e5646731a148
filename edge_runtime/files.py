"""Files and file descriptors: open regular files only, write durably, wait with poll.

Opening never waits: a pipe, device or folder in the place of a file is refused by its kind.
`replace_file` is the durable writer: a power loss at any moment leaves the old file or the new one,
whole. Linux keeps a file's bytes once the file is synced, and its name once the folder is synced.
Functions raise OSError unless they say otherwise.
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
_LONGEST_WAIT = 3600.0
"""Seconds; poll takes milliseconds in 32 bits, which is 24 days."""


def kind_of(mode: int) -> str:
    """Return what kind of file has this `st_mode`, in words."""
    return next((name for matches, name in _KINDS if matches(mode)), "no file")


def kind_at(path: str | Path) -> str:
    """Return the kind of file at `path`, as `kind_of`; empty when it cannot be seen."""
    try:
        return kind_of(Path(path).stat().st_mode)
    except OSError:
        return ""


class NotAFileError(OSError):
    """The path names something other than a regular file; strerror says what."""


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
    """Open the regular file `path` as os.open does, not inheritable; return its descriptor.

    The kind is checked before opening: opening a pipe waits for its writer, and opening a watchdog
    device starts it. Raises OSError, NotAFileError for another kind of file.
    """
    require_regular(path)
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    try:  # the file may have been exchanged since the check
        _require(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path, most: int, flags: int = os.O_RDONLY) -> bytes:
    """Return the content of the regular file `path`.

    Raises OSError, and ValueError when it is larger than `most` bytes.
    """
    with os.fdopen(open_regular(path, flags), "rb") as stream:
        # Not `most + 1`: Python reserves as much memory as it is asked for.
        data = stream.read(min(os.fstat(stream.fileno()).st_size, most) + 1)
    if len(data) > most:
        raise ValueError(f"is larger than {most} bytes")
    return data


def stamp_of(file: Path) -> tuple[int, int, int] | None:
    """Return what changes when `file` is replaced or written; None when it cannot be seen."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def open_input(path: str | Path, advice: str) -> BinaryIO:
    """Open the regular file `path`, named by the user, for reading.

    `advice` ends the message for another kind of file, which raises GruardError. Raises OSError
    when the file cannot be opened.
    """
    try:
        return os.fdopen(open_regular(Path(path)), "rb")
    except NotAFileError as error:
        raise GruardError(f"{path}: {error.strerror}; {advice}") from None


def require_regular(path: Path) -> None:
    """Raise NotAFileError if another kind of file is at `path`; a missing file is fine."""
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
    """Raise GruardError when two of the (option, target) pairs are the same file or pipe.

    A target is a path, or the number of an open descriptor (0 stdin, 1 stdout). Links, other names
    of a file, and descriptors that a shell redirected to it all count as the file.
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
    """Return what two names of one file share; None for a device, which may have several uses."""
    try:
        status = os.fstat(target) if isinstance(target, int) else Path(target).stat()
    except OSError:
        return ("not there", target if isinstance(target, int) else os.path.realpath(target))
    if stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode):
        return (status.st_dev, status.st_ino)
    return ("descriptor", target) if isinstance(target, int) else None


def _shown(target: str | int) -> str:
    return "-" if isinstance(target, int) else target


class Disk:
    """The steps of a durable write. Tests use a disk that loses power before a step."""

    def write(self, file: Path, data: bytes, mode: int = 0o644) -> None:
        """Write a new file; see `write_new`."""
        write_new(file, data, mode)

    def sync(self, path: Path) -> None:
        """Make the bytes of a file, or the names in a folder, durable."""
        sync(path)

    def rename(self, old: Path, new: Path) -> None:
        """Rename a file, which replaces `new`, or a folder to a free name."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)


_DISK = Disk()


def replace_file(
    file: Path, data: bytes, mode: int = 0o644, disk: Disk = _DISK, durable: bool = True
) -> None:
    """Replace `file` in one step, on the disk when this returns.

    `durable=False` skips the syncs: readers still see the old file or the new one, whole.
    """
    scratch = _scratch(file)
    try:
        disk.write(scratch, data, mode)
        if durable:
            disk.sync(scratch)
        disk.rename(scratch, file)
    except BaseException:
        with suppress(Exception):
            disk.remove(scratch)
        raise
    if durable:
        disk.sync(file.parent)


def _scratch(file: Path) -> Path:
    """Return the name under which `file` is written; the pid separates processes."""
    return file.with_name(f".{file.name}.{os.getpid()}")


def write_new(file: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a whole file, not yet synced; see `open_new`. The umask does not change the mode."""
    descriptor = open_new(file, mode)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(data)


def open_new(file: Path, mode: int = 0o666) -> int:
    """Create `file` and return a descriptor to write it.

    A leftover file is removed first, so no link is followed and no other process has it open.
    """
    file.unlink(missing_ok=True)
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_to_overwrite(target: str, force: bool) -> None:
    """Raise GruardError when the file `target` exists, unless `force` is given."""
    if target != "-" and Path(target).exists() and not force:
        raise GruardError(f"{target}: is already there; choose another --out or add --force")


@contextmanager
def output(target: str, force: bool) -> Iterator[TextIO]:
    """Open stdout for `-`, or a file that appears whole or not at all.

    Raises GruardError when the file exists and `force` is not given, or cannot be written.
    """
    if target == "-":
        yield sys.stdout
        return
    path = Path(target)
    refuse_to_overwrite(target, force)
    if path.exists() and not path.is_file():  # it would be replaced by a file
        raise GruardError(f"{target}: is {kind_at(path)}, not a file; name another --out")
    scratch = _scratch(path)
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


def readable(descriptor: int, timeout: float | None) -> bool:
    """Wait until `descriptor` can be read or has ended; return False after `timeout` seconds.

    None waits without a limit.
    """
    return bool(all_ready({descriptor: select.POLLIN}, timeout))


def all_ready(wanted: Mapping[int, int], timeout: float | None) -> set[int]:
    """Wait for the first of several descriptors, given their poll events; return those ready.

    Uses poll(2), since select(2) fails for descriptors from 1,024 on.
    """
    poll = select.poll()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    seconds = _LONGEST_WAIT if timeout is None else min(max(timeout, 0.0), _LONGEST_WAIT)
    while True:
        answers = poll.poll(math.ceil(seconds * 1000))
        if answers or timeout is not None:
            return {descriptor for descriptor, _ in answers}
