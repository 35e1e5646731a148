"""The host's half of app/protocol.h and app/link.c: messages and the frames that carry them."""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

LONGEST_RUN = 254
_HEAD, _CHECKSUM = struct.Struct("<BI"), struct.Struct("<I")
_STATUS = struct.Struct("<15I")
REFUSALS = {
    1: "not aligned",
    2: "not a blob of this version",
    3: "truncated",
    4: "damaged",
    5: "a count, offset or operator that no bundle has",
    6: "too little memory",
    7: "laid out for another kernel",
}


class Kind(IntEnum):
    """Kinds of messages: ASK from the host, TELL from the board."""

    ASK_STATUS = 0x01
    ASK_SAMPLE = 0x02
    ASK_INJECT = 0x10
    ASK_STORE = 0x11
    ASK_TRY = 0x12
    TELL_STATUS = 0x81
    TELL_RECORD = 0x82
    TELL_GAP = 0x83
    TELL_ERROR = 0x84
    TELL_TRIED = 0x92


class FrameError(IntEnum):
    """Errors of frames that the board reports."""

    TOO_LONG = 1
    STUFFING = 2
    CHECKSUM = 3
    KIND = 4
    LENGTH = 5
    SEQUENCE = 6
    NO_DETECTOR = 7


class Responder(IntEnum):
    """What answers on the board."""

    MODEL = 0
    DISTRUSTED = 1
    SPARE = 2
    NONE = 3


class Cause(IntEnum):
    """Causes of a reset."""

    POWER = 0
    HANG = 1
    FAULT = 2
    STACK = 3
    WEIGHTS = 4
    SEQUENCE = 5
    SILENT = 6
    STATE = 7
    CODE = 8


def cause_name(cause: int) -> str:
    """Return the name of a cause; a damaged black box may give an unknown one."""
    return Cause(cause).name.lower() if cause in set(Cause) else "unknown"


class Injection(IntEnum):
    """Faults of test builds."""

    HANG = 1
    SLEEP = 2
    FAULT = 3
    STACK = 4
    WEIGHTS = 5
    STATE = 6
    SKIP = 7


@dataclass(frozen=True)
class Message:
    """sequence: the sample's."""

    kind: int
    sequence: int
    body: bytes = b""


@dataclass(frozen=True)
class Status:
    """The status that the board reports; see `status` in app/protocol.h."""

    service: int
    refusal: int
    cause: int
    pc: int
    lr: int
    fault_status: int
    stage: int
    resets: int
    next: int
    channels: int
    selftest: int
    malformed: int
    walks: int
    ticks_to_reset: int
    ticks_to_word: int


def read_status(body: bytes) -> Status:
    """Return the status in a message's body; ValueError when it is none."""
    if len(body) != _STATUS.size:
        raise ValueError(f"a status of {len(body)} bytes")
    return Status(*_STATUS.unpack(body))


def frame(message: Message) -> bytes:
    """Return `message` as the bytes on the line, ending with a zero."""
    data = _HEAD.pack(message.kind, message.sequence) + message.body
    return stuffed(data + _CHECKSUM.pack(zlib.crc32(data))) + b"\0"


def read_frame(data: bytes) -> Message:
    """Return the message in a frame without its zero; ValueError when it is damaged."""
    whole = unstuffed(data)
    if len(whole) < _HEAD.size + _CHECKSUM.size:
        raise ValueError("a frame is too short")
    covered = whole[: -_CHECKSUM.size]
    if _CHECKSUM.unpack(whole[len(covered) :])[0] != zlib.crc32(covered):
        raise ValueError("a frame is damaged")
    kind, sequence = _HEAD.unpack(covered[: _HEAD.size])
    return Message(kind, sequence, covered[_HEAD.size :])


def stuffed(data: bytes) -> bytes:
    """Encode `data` without zeros: consistent overhead byte stuffing (Cheshire and Baker, 1997)."""
    out = bytearray()
    for piece in data.split(b"\0"):
        while len(piece) >= LONGEST_RUN:
            out += bytes([LONGEST_RUN + 1]) + piece[:LONGEST_RUN]
            piece = piece[LONGEST_RUN:]
        out += bytes([len(piece) + 1]) + piece
    return bytes(out)


def unstuffed(data: bytes) -> bytes:
    """Decode the result of `stuffed`; ValueError for anything else."""
    out, at = bytearray(), 0
    while at < len(data):
        run = data[at] - 1
        piece = data[at + 1 : at + 1 + run]
        if run < 0 or len(piece) < run:
            raise ValueError("a frame is not stuffed")
        out += piece
        at += 1 + run
        if run < LONGEST_RUN and at < len(data):
            out.append(0)
    return bytes(out)
