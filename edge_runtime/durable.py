"""Replacing a small file so that a power loss at any moment leaves the old or the new one whole."""

import os
from contextlib import suppress
from pathlib import Path


def replace_text(file: Path, text: str, mode: int = 0o644) -> None:
    """Give `file` the content `text`, on the disk when this returns. Raises OSError."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        scratch.replace(file)
        sync_folder(file.parent)
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Let the names in `folder` reach the disk: new, replaced and removed ones."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
