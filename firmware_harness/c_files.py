"""C files to write: bytes as constant tables, and a folder that appears complete or not at all."""

import os
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.errors import GruardError

_IN_A_LINE = 8


@contextmanager
def replaced(folder: Path, marker: str, force: bool) -> Iterator[Path]:
    """Yield a scratch folder that replaces `folder` unless the block raises.

    marker: the file that identifies a folder that an earlier call wrote. Raises GruardError when
    anything else exists at `folder`, when such a folder exists and `force` is False, or when it
    cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not (folder / marker).is_file():
            raise GruardError(f"{folder}: exists and is not ours to replace; choose another --out")
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


def words(name: str, data: bytes) -> str:
    """Return `data`, padded to whole words, as `const uint32_t name[]`."""
    padded = data + bytes(-len(data) % 4)
    numbers = [f"0x{word:08x}" for (word,) in struct.iter_unpack("<I", padded)]
    return f"__attribute__((aligned(16))) const uint32_t {name}[] = {{\n{_lines(numbers)}}};\n"


def octets(name: str, data: bytes) -> str:
    """Return `data` as `const unsigned char name[]`."""
    numbers = [f"0x{byte:02x}" for byte in data]
    return f"__attribute__((aligned(16))) const unsigned char {name}[] = {{\n{_lines(numbers)}}};\n"


def texts(name: str, values: Iterable[str]) -> str:
    """Return `values` as `const char *const name[]`, in UTF-8."""
    lines = "".join(f'    "{_escaped(value)}",\n' for value in values)
    return f"const char *const {name}[] = {{\n{lines}}};\n"


def _escaped(value: str) -> str:
    """Escape bytes that are not ASCII or special in C as three octal digits."""
    plain = [chr(byte).isalnum() or chr(byte) in " _-./()[]+*%#:" for byte in range(128)]
    octets = value.encode("utf-8")
    return "".join(chr(b) if b < 128 and plain[b] else f"\\{b:03o}" for b in octets)


def _lines(numbers: list[str]) -> str:
    starts = range(0, len(numbers), _IN_A_LINE)
    return "".join(f"    {', '.join(numbers[i : i + _IN_A_LINE])},\n" for i in starts)
