"""Folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.errors import GruardError


@contextmanager
def replaced(folder: Path, marker: str, force: bool) -> Iterator[Path]:
    """A scratch folder that takes the place of `folder` when all went well.

    marker: the file by which a former one is known. Raises GruardError when there is anything else
    in its place, or a former one and `force` is not given, or it cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not (folder / marker).is_file():
            raise GruardError(f"{folder}: is there and not ours to replace; choose another --out")
        if not force:
            raise GruardError(f"{folder}: is already there; choose another --out or add --force")
    scratch = folder.absolute().with_name(f".{folder.name}.{os.getpid()}")
    try:
        scratch.mkdir(parents=True)
        yield scratch
        if folder.exists():
            shutil.rmtree(folder)
        scratch.rename(folder)
    except OSError as error:
        raise GruardError(f"{folder}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
