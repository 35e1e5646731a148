"""Opens files that have to be regular ones, without waiting at a FIFO, device or socket."""

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
    """A descriptor of the regular file at `path`, as os.open gives it, never inherited.

    Raises OSError; its strerror names the kind of what lies there instead.
    """
    require_regular(path)  # before it is opened: that alone starts a watchdog
    file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    try:
        _require(os.fstat(file).st_mode, path)
    except OSError:
        os.close(file)
        raise
    return file


def read_regular(path: Path, most: int, flags: int = os.O_RDONLY) -> bytes:
    """The first `most` bytes of the regular file at `path`. Raises OSError."""
    with os.fdopen(open_regular(path, flags), "rb", buffering=0) as stream:
        return stream.read(most) or b""


def require_regular(path: Path) -> None:
    """Raise OSError if something else than a regular file lies at `path`; nothing there is fine."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    _require(mode, path)


def _require(mode: int, path: Path) -> None:
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, f"is {kind}, not a regular file", str(path))
