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
LONGEST = 1 << 20
"""Bytes of a message; a record of 256 channels takes a tenth, even with long names."""
_IN_VAIN = 16
"""How many times its size may be checksummed in vain, before the rest of a file counts as damage.

Broken records cost about their own size; heads that overlap on purpose would cost the square.
"""
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
    at, patience = 0, _IN_VAIN * len(data)
    while patience >= 0 and (at := data.find(MAGIC, at)) >= 0:
        length = _claimed_length(data, at)
        entry = None if length is None else _entry_at(data, at, length)
        if entry is None:
            at += 1
            patience -= length or 0
        else:
            at += OVERHEAD + len(entry.message)
            yield entry, at


def _claimed_length(data: bytes, at: int) -> int | None:
    """Bytes of the message behind the head at `at`; None when there can be none so long."""
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
