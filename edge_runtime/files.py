"""Open what a user names, without ever waiting for it: a file, and not a pipe, device or folder."""

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

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
