"""Archives of arrays with harm in the zip, in a header of an array, or by what they hold."""

import functools
import io
import random
import re
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mutated_bytes import mutated_bytes

Members = Sequence[tuple[str, bytes]]

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_MARKS = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06")
_SHAPES = (
    "()", "(0,)", "(-1,)", "(-2, -3)", "(10**9,)", "(1000000000000,)", "(18446744073709551616,)",
    "(3, 0)", "(1,)*65", "3", "None", "(True,)", "(2.5,)", "(297, 3", "(((((((((1,),),),),),),),)",
    "-" * 5000 + "1", "(" * 190 + ")" * 190, "[" * 9000,
)  # fmt: skip
_TYPES = ("|O", "<U9", "|S4", "|V8", "<M8[s]", "<c16", ">f4", "<f2", "<f8", "|b1", "[('a', '<i4')]")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def mutated_archive(rng: random.Random, data: bytes, trap: Path) -> bytes:
    """Another archive. `trap`: a file that must never appear."""
    if rng.random() < 0.01:
        return rng.choice(_bombs())
    if rng.random() < 0.35:
        return mutated_bytes(rng, data)
    if rng.random() < 0.3:
        return _edited_entry(rng, data)
    change = rng.choice(
        (_edit_header, _edit_header, _edit_content, _list_of_members, _hold_objects)
    )
    members = change(rng, _members(data), trap)
    method = rng.choice(_METHODS) if rng.random() < 0.2 else zipfile.ZIP_STORED
    return _packed(members, method)


@functools.lru_cache(maxsize=4)
def _members(data: bytes) -> tuple[tuple[str, bytes], ...]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return tuple((name, archive.read(name)) for name in archive.namelist())


def _packed(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def _npy(header: str, content: bytes, version: bytes = b"\x01\x00") -> bytes:
    size = struct.pack("<H" if version < b"\x02" else "<I", len(header))
    return b"\x93NUMPY" + version + size + header.encode("latin1") + content


def _edited_entry(rng: random.Random, data: bytes) -> bytes:
    """A size, an offset, a method or a flag in one of the zip's own records."""
    changed = bytearray(data)
    mark = rng.choice(_MARKS)
    places = [found.start() for found in re.finditer(mark, data)]
    place = rng.choice(places) + rng.randrange(4, 46)
    form = rng.choice("BHI")
    if place + struct.calcsize(form) <= len(data):
        largest = 256 ** struct.calcsize(form) - 1
        value = rng.choice((0, 1, 8, 12, 14, 99, largest, largest // 2, rng.randrange(largest)))
        struct.pack_into("<" + form, changed, place, min(value, largest))
    return bytes(changed)


def _edit_header(rng: random.Random, members: Members, trap: Path) -> Members:
    """Another type, order or shape than the bytes are, with sizes and checksums made good."""
    edited = list(members)
    place = rng.randrange(len(edited))
    name, content = edited[place]
    length = struct.unpack_from("<H", content, 8)[0]
    header, rest = content[10 : 10 + length].decode("latin1"), content[10 + length :]
    kind = rng.randrange(5)
    if kind == 0:
        shape = rng.choice(_SHAPES)
        header = header[: header.index("'shape': ") + 9] + shape + ", }\n"
    elif kind == 1:
        start = header.index("'descr': ") + 9
        header = header[:start] + repr(rng.choice(_TYPES)) + header[header.index(", 'fort") :]
    elif kind == 2:
        header = mutated_bytes(rng, header.encode("latin1")).decode("latin1")[:60_000]
    elif kind == 3:
        header = header.replace("False", rng.choice(("True", "None", "0")))
    version = rng.choice((b"\x01\x00",) * 6 + (b"\x02\x00", b"\x03\x00", b"\x09\x09"))
    edited[place] = name, _npy(header, rest, version)
    return edited


def _edit_content(rng: random.Random, members: Members, trap: Path) -> Members:
    edited = list(members)
    place = rng.randrange(len(edited))
    edited[place] = edited[place][0], mutated_bytes(rng, edited[place][1])
    return edited


def _list_of_members(rng: random.Random, members: Members, trap: Path) -> Members:
    """One too few, one twice, one by another name, or thousands."""
    edited = list(members)
    place = rng.randrange(len(edited))
    kind = rng.randrange(5)
    if kind == 0:
        del edited[place]
    elif kind == 1:
        edited.append(edited[place])
    elif kind == 2:
        odd = ("", ".npy", "../../x.npy", "/etc/x.npy", "a\x1b[2J.npy", "x" * 60_000, "rows")
        edited[place] = rng.choice(odd), edited[place][1]
    elif kind == 3:
        edited = [(f"{i}.npy", b"") for i in range(rng.choice((100, 500)))]
    else:
        edited = []
    return edited


def _hold_objects(rng: random.Random, members: Members, trap: Path) -> Members:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap(trap)], dtype=object), allow_pickle=True)
    edited = list(members)
    place = rng.randrange(len(edited))
    edited[place] = edited[place][0], buffer.getvalue()
    return edited


@functools.lru_cache(maxsize=1)
def _bombs() -> tuple[bytes, ...]:
    """Little that becomes much: beyond the limit, below it, with a lie, and by its many names."""
    beyond, below = _zeros(36 << 20), _zeros(30 << 20)
    lie = beyond.replace(struct.pack("<I", 36 << 20), struct.pack("<I", 1 << 20))
    names = _packed([(f"{i}.npy", b"") for i in range(12_000)], zipfile.ZIP_STORED)
    return beyond, below, lie, names, b"PK\x05\x06" + bytes(18)


def _zeros(size: int) -> bytes:
    """An archive of an array of so many bytes in all, made without ever holding them."""
    header = "{'descr': '|i1', 'fortran_order': False, 'shape': (%d,), }"
    start = _npy((header % (size - 128)).ljust(128 - 10), b"")
    buffer, piece = io.BytesIO(), bytes(1 << 16)
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("rows.npy", "w") as stream,
    ):
        stream.write(start + piece[len(start) :])
        for _ in range(size // len(piece) - 1):
            stream.write(piece)
    return buffer.getvalue()
