"""The frame of a message on the disk.

magic (4 bytes), length of the message, its number, CRC-32 of all but the magic, the message;
little-endian. The decoder searches for the next intact frame, so damage costs only the frames it
hit.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"\xabGJ1"  # the first byte is not ASCII, so no message looks like a frame
LARGEST = 1 << 62
"""Largest number of a message. A larger one is damage, and the next would not fit."""
LONGEST = 1 << 20
"""Bytes of a message; a record of 256 channels takes a tenth, also with long names."""
_MOST_WASTED = 16
"""Bytes checksummed without success, in file sizes, after which the rest counts as damage.

Broken frames cost about their own size; heads made to overlap would cost the square.
"""
_HEAD = struct.Struct("<IQ")
_CHECKSUM = struct.Struct("<I")
OVERHEAD = len(MAGIC) + _HEAD.size + _CHECKSUM.size


@dataclass(frozen=True)
class Entry:
    """One message and its number."""

    sequence: int
    message: bytes


def encode(entry: Entry) -> bytes:
    """Return the frame of one entry."""
    head = _HEAD.pack(len(entry.message), entry.sequence)
    checksum = _CHECKSUM.pack(zlib.crc32(entry.message, zlib.crc32(head)))
    return MAGIC + head + checksum + entry.message


def decode(data: bytes) -> Iterator[tuple[Entry, int]]:
    """Yield every intact entry in `data` with the offset behind it; skip everything else."""
    at, budget = 0, _MOST_WASTED * len(data)
    while budget >= 0 and (at := data.find(MAGIC, at)) >= 0:
        length = _claimed_length(data, at)
        entry = None if length is None else _entry_at(data, at, length)
        if entry is None:
            at += 1
            budget -= length or 0
        else:
            at += OVERHEAD + len(entry.message)
            yield entry, at


def _claimed_length(data: bytes, at: int) -> int | None:
    """Return the length in the head at `at`, None when no message can be that long."""
    rest = len(data) - at - OVERHEAD
    if rest < 0:
        return None
    length, sequence = _HEAD.unpack_from(data, at + len(MAGIC))
    return length if length <= min(rest, LONGEST) and sequence <= LARGEST else None


def _entry_at(data: bytes, at: int, length: int) -> Entry | None:
    start = at + OVERHEAD
    head = data[at + len(MAGIC) : start - _CHECKSUM.size]
    (checksum,) = _CHECKSUM.unpack_from(data, start - _CHECKSUM.size)
    message = data[start : start + length]
    if zlib.crc32(message, zlib.crc32(head)) != checksum:
        return None
    return Entry(_HEAD.unpack(head)[1], message)
