"""A bundle as one file: an uncompressed tar archive (POSIX ustar) of a fixed form.

The same bundle gives the same bytes: members in the order of `Bundle.files`, mode 644, no owner, no
time. `unpack` accepts this form only, and compares each header with the one that `pack` writes for
that name and size. So an archive has no paths, links, devices, repeated names or large members, and
there is nothing to decompress. `tar tf` lists it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edge_runtime.bundle.reader import SIZE_LIMITS, Bundle, read_member
from edge_runtime.errors import DamagedError
from edge_runtime.files import open_input, write_new

BLOCK = 512
"""Bytes; headers and the padding of members are multiples of it."""
_END = bytes(2 * BLOCK)
_NAME, _SIZE, _SUM = slice(0, 100), slice(124, 136), slice(148, 156)  # fields of a header
_OCTAL = re.compile(rb"[0-7]{11}\0")
LARGEST = sum(SIZE_LIMITS.values()) + 2 * BLOCK * (len(SIZE_LIMITS) + 1)
"""Bytes of an archive, at most."""


def pack(bundle: Bundle) -> Iterator[bytes]:
    """Yield the archive of `bundle` in pieces.

    Raises DamagedError when a file is missing or too large.
    """
    for member in bundle.files:
        data = read_member(bundle.path, member)
        yield _header(member, len(data)) + data + bytes(-len(data) % BLOCK)
    yield _END


def unpack(archive: Path, folder: Path) -> None:
    """Write the members of `archive` into the new folder `folder`, which holds no more than them.

    The bundle is not checked; `read_bundle` does that. Raises DamagedError when the archive has
    another form, OSError when it cannot be read or the folder cannot be written.
    """
    folder.mkdir()
    with open_input(archive, "an archive is a file") as stream:
        left = os.fstat(stream.fileno()).st_size
        if left > LARGEST:
            raise _damaged(archive, f"has {left} bytes, more than any bundle")
        while (block := stream.read(BLOCK)).strip(b"\0"):
            name, size = _parsed(archive, block)
            if (folder / name).exists():
                raise _damaged(archive, f"has {name} twice")
            write_new(folder / name, _exactly(archive, stream, size))
            if _exactly(archive, stream, -size % BLOCK).strip(b"\0"):
                raise _damaged(archive, f"has bytes behind {name}")
        if block + stream.read(len(_END)) != _END:
            raise _damaged(archive, "has another end")


def _header(name: str, size: int) -> bytes:
    """Return the header of a regular file."""
    fields = (
        name.encode("ascii").ljust(100, b"\0"),
        b"0000644\0", b"0000000\0", b"0000000\0",  # mode, user, group
        b"%011o\0" % size, b"%011o\0" % 0,  # size, time
        b" " * 8, b"0", bytes(100),  # checksum, a regular file, target of a link
        b"ustar\x0000", bytes(BLOCK - 265),
    )  # fmt: skip
    header = b"".join(fields)
    return header[: _SUM.start] + b"%06o\0 " % sum(header) + header[_SUM.stop :]


def _parsed(archive: Path, block: bytes) -> tuple[str, int]:
    """Return name and size of a member. Raises DamagedError."""
    name = block[_NAME].rstrip(b"\0").decode("ascii", "replace")
    if name not in SIZE_LIMITS:
        raise _damaged(archive, f"has a member {name!a}, which is no file of a bundle")
    if not _OCTAL.fullmatch(block[_SIZE]):
        raise _damaged(archive, f"gives no size of {name}")
    size = int(block[_SIZE][:-1], 8)
    if size > SIZE_LIMITS[name]:
        raise _damaged(archive, f"has {size} bytes of {name}, at most {SIZE_LIMITS[name]}")
    if block != _header(name, size):
        raise _damaged(archive, f"has another header of {name} than gruard writes")
    return name, size


def _exactly(archive: Path, stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise _damaged(archive, "ends early")
    return data


def _damaged(archive: Path, what: str) -> DamagedError:
    return DamagedError(f"{archive}: is no archive of a bundle: it {what}; publish it again")
