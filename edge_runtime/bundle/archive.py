"""Arrays of an .npz archive that may come from anybody: bounded before anything is unpacked.

numpy alone would make an array of the size that its header names, and zipfile a list of as many
members as there are names; so both are compared with the bytes that are there.
"""

import io
import math
import zipfile
from typing import IO

import numpy as np

from edge_runtime.record import Float32

MOST_ARRAYS = 10_000  # each pair is a stretch of clean rows; half a kilobyte of memory for a name
_MEMBER = b"PK\x01\x02"  # begins each entry of the list of members
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others ask for memory of their own
_KINDS = "biuf"  # truth values and numbers
_PIECE = 1 << 16  # bytes
_VERSION = (1, 0)  # of the header; later ones are for names and structures


def read_arrays(data: bytes, most_bytes: int) -> dict[str, Float32]:
    """Arrays in `data` by name, at most `most_bytes` unpacked; nothing is ever unpickled.

    Raises ValueError for what is not allowed, and for damage whatever numpy, zipfile and zlib raise
    (a dozen exceptions, MemoryError and RecursionError among them).
    """
    if (count := data.count(_MEMBER)) > MOST_ARRAYS:
        raise ValueError(f"{count} arrays, at most {MOST_ARRAYS} are expected")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("two arrays of one name")
        if (unpacked := sum(entry.file_size for entry in entries)) > most_bytes:
            raise ValueError(f"{unpacked} bytes unpacked, at most {most_bytes} are expected")
        return {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in entries}


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Float32:
    if entry.compress_type not in _PLAIN:
        raise ValueError("an unusual compression")
    with archive.open(entry) as stream:
        if np.lib.format.read_magic(stream) != _VERSION:  # type: ignore[no-untyped-call]
            raise ValueError("an array of an unusual format")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)  # type: ignore[no-untyped-call]
        if dtype.kind not in _KINDS:
            raise ValueError("not an array of numbers")
        wanted, found = math.prod(shape) * dtype.itemsize, entry.file_size - stream.tell()
        if wanted != found:
            raise ValueError(f"{found} bytes for an array of {wanted}")
        content = bytearray(found)
        _fill(content, stream)
    array: Float32 = np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")
    return array


def _fill(content: bytearray, stream: IO[bytes]) -> None:
    """Piece by piece, because a whole would be in memory twice; the end proves the checksum."""
    position = 0
    while piece := stream.read(_PIECE):
        content[position : position + len(piece)] = piece
        position += len(piece)
    if position != len(content):
        raise ValueError(f"{position} bytes instead of {len(content)}")
