"""Writing so that a power loss at any moment leaves the old file or the new one, whole.

Linux promises nothing about what was written until it is synced: a file's bytes by syncing the
file, its name, or another name for it, by syncing the folder. Everything here may raise OSError.
"""

import os
from contextlib import suppress
from pathlib import Path


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
