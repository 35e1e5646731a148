"""How a message lies on the disk: a frame that proves itself whole.

magic (4 bytes), length of the message, its number, CRC-32 of all but the magic, the message;
little-endian. Whoever reads looks for the next frame that proves itself, so that damage costs
what it hit and nothing behind it.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"\xabGJ1"  # its first byte is in no ASCII text, so that no message is taken for a frame
LARGEST = 1 << 62
"""No number of ours is above; one that is was never written by us, and the next would not fit."""
_HEAD = struct.Struct("<IQ")
_CHECKSUM = struct.Struct("<I")
OVERHEAD = len(MAGIC) + _HEAD.size + _CHECKSUM.size


@dataclass(frozen=True)
class Entry:
    """One message and its number, which grows from message to message."""

    sequence: int
    message: bytes


def encode(entry: Entry) -> bytes:
    """The frame of one entry."""
    head = _HEAD.pack(len(entry.message), entry.sequence)
    checksum = _CHECKSUM.pack(zlib.crc32(entry.message, zlib.crc32(head)))
    return MAGIC + head + checksum + entry.message


def decode(data: bytes) -> Iterator[tuple[Entry, int]]:
    """Every intact entry in `data`, with the offset behind it; all else there is skipped."""
    at = 0
    while (at := data.find(MAGIC, at)) >= 0:
        entry = _entry_at(data, at)
        if entry is None:
            at += 1
        else:
            at += OVERHEAD + len(entry.message)
            yield entry, at


def _entry_at(data: bytes, at: int) -> Entry | None:
    start = at + OVERHEAD
    if start > len(data):
        return None
    head = data[at + len(MAGIC) : start - _CHECKSUM.size]
    length, sequence = _HEAD.unpack(head)
    if sequence > LARGEST:
        return None
    (checksum,) = _CHECKSUM.unpack_from(data, start - _CHECKSUM.size)
    message = data[start : start + length]
    if len(message) < length or zlib.crc32(message, zlib.crc32(head)) != checksum:
        return None
    return Entry(sequence, message)
