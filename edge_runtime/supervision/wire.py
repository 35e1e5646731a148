"""What the supervisor and its worker say to each other: length-prefixed frames over two pipes.

A frame is one byte of kind, four bytes of payload length (little-endian), and the payload. The
pipes are never stdin and stdout, because libraries print there.
"""

import enum
import json
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edge_runtime.record import Flag, Record, Sample, flag_names

_HEADER = struct.Struct("<BI")
_SAMPLE = struct.Struct("<qd")
_CHUNK = 65536
MAX_PAYLOAD = 1 << 20
"""Bytes; a longer frame is garbage, and is refused before memory is set aside for it."""

Fault = Literal["hang", "crash"]
_FAULTS: dict[str, Fault] = {"hang": "hang", "crash": "crash"}


class WireError(Exception):
    """The other end sent something that is not a frame of this protocol."""


@dataclass(frozen=True)
class Reset:
    """Request: forget the recurrent state."""


@dataclass(frozen=True)
class Inject:
    """Request, for demonstrations: break down now, for real."""

    kind: Fault


@dataclass(frozen=True)
class Stop:
    """Request: end in good order."""


@dataclass(frozen=True)
class Hello:
    """Reply: the model is loaded and its self-test passed.

    kernel: the arithmetic that runs the model; load_seconds: from process start to this reply.
    """

    kernel: str
    load_seconds: float


@dataclass(frozen=True)
class Failure:
    """Reply: the worker cannot go on, and why; its last word."""

    text: str


Message = Sample | Reset | Inject | Stop | Hello | Record | Failure


class _Kind(enum.IntEnum):
    SAMPLE = 1
    RESET = 2
    INJECT = 3
    STOP = 4
    HELLO = 16
    RECORD = 17
    FAILURE = 18


def encode(message: Message) -> bytes:
    """The frame of one message. Raises WireError when it is longer than MAX_PAYLOAD."""
    kind, payload = _parts(message)
    if len(payload) > MAX_PAYLOAD:
        raise WireError(f"a {kind.name} of {len(payload)} bytes is longer than {MAX_PAYLOAD}")
    return _HEADER.pack(kind, len(payload)) + payload


def _parts(message: Message) -> tuple[_Kind, bytes]:
    match message:
        case Sample():
            time = math.nan if message.time is None else message.time
            values = np.asarray(message.values, dtype="<f4").tobytes()
            return _Kind.SAMPLE, _SAMPLE.pack(message.index, time) + values
        case Record():
            return _Kind.RECORD, _record_to_bytes(message)
        case Reset():
            return _Kind.RESET, b""
        case Inject(kind):
            return _Kind.INJECT, kind.encode()
        case Stop():
            return _Kind.STOP, b""
        case Hello(kernel, load_seconds):
            return _Kind.HELLO, json.dumps([kernel, load_seconds]).encode()
        case Failure(text):
            return _Kind.FAILURE, text.encode(errors="replace")


class FrameBuffer:
    """Puts frames together from bytes that arrive in pieces."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the bytes of one read."""
        self._bytes += data

    def messages(self) -> Iterator[Message]:
        """Every complete message so far, oldest first. Raises WireError at the first bad frame."""
        while len(self._bytes) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._bytes)
            if kind not in _Kind.__members__.values():
                raise WireError(f"unknown kind of frame {kind}")
            if length > MAX_PAYLOAD:
                raise WireError(f"a frame of {length} bytes is longer than {MAX_PAYLOAD}")
            end = _HEADER.size + length
            if len(self._bytes) < end:
                return
            payload = bytes(self._bytes[_HEADER.size : end])
            del self._bytes[:end]
            yield _decode(_Kind(kind), payload)


def receive(fd: int) -> Iterator[Message]:
    """Messages from a blocking pipe until its other end closes. Raises WireError on garbage."""
    frames = FrameBuffer()
    while data := os.read(fd, _CHUNK):
        frames.feed(data)
        yield from frames.messages()


def send(fd: int, message: Message) -> None:
    """Write one message to a blocking pipe. Raises BrokenPipeError when nobody reads it."""
    left = memoryview(encode(message))
    while left:
        left = left[os.write(fd, left) :]


def _decode(kind: _Kind, payload: bytes) -> Message:
    try:
        return _message(kind, payload)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise WireError(f"a garbled {kind.name} frame: {error}") from error


def _message(kind: _Kind, payload: bytes) -> Message:
    match kind:
        case _Kind.SAMPLE:
            return _sample(payload)
        case _Kind.RECORD:
            return _record(json.loads(payload))
        case _Kind.RESET:
            return Reset()
        case _Kind.INJECT:
            return Inject(_FAULTS[payload.decode()])
        case _Kind.STOP:
            return Stop()
        case _Kind.HELLO:
            kernel, load_seconds = json.loads(payload)
            return Hello(str(kernel), float(load_seconds))
        case _Kind.FAILURE:
            return Failure(payload.decode())


def _sample(payload: bytes) -> Sample:
    index, time = _SAMPLE.unpack_from(payload)
    values = np.frombuffer(payload, dtype="<f4", offset=_SAMPLE.size).astype(np.float32)
    return Sample(index, None if math.isnan(time) else time, values)


def _record_to_bytes(record: Record) -> bytes:
    # Not Record.to_json: that rounds for human readers, and here every bit must survive.
    return json.dumps(vars(record) | {"flags": flag_names(record.flags)}).encode()


def _record(fields: dict[str, Any]) -> Record:
    flags = Flag(0)
    for name in fields["flags"]:
        flags |= Flag[name]
    names = {key: tuple(fields[key]) for key in ("masked", "imputed", "blamed")}
    return Record(**(fields | names | {"flags": flags}))
