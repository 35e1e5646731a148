"""The protocol between the supervisor and its worker: frames with a checksum over two pipes.

A frame is one byte of kind, four bytes of payload length, four bytes of CRC-32 over kind, length
and payload (little-endian), and the payload. The pipes are not stdin and stdout, because libraries
print there.
"""

import enum
import functools
import json
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_runtime.detector.lasting_change import LastingChange
from edge_runtime.errors import GruardError
from edge_runtime.plain import build
from edge_runtime.record import Record, Sample, flags_of

_HEAD = struct.Struct("<BI")
_CHECKSUM = struct.Struct("<I")
_BEFORE_PAYLOAD = _HEAD.size + _CHECKSUM.size
_SAMPLE = struct.Struct("<qd")
# Index, flags, tier, valid, alarm, sensor, a bit for each number that is present, the numbers.
_RECORD = struct.Struct("<qIB??bB4d")
_ABSENT = -1  # of `sensor`
_CHUNK = 65536
_CACHED = 256  # combinations of names
MAX_PAYLOAD = 1 << 20
"""Bytes; a longer frame is refused as garbage before memory is allocated for it."""

Fault = Literal["hang", "crash"]
_FAULTS: dict[str, Fault] = {"hang": "hang", "crash": "crash"}


class WireError(Exception):
    """The other end sent bytes that are no frame of this protocol."""


@dataclass(frozen=True)
class Reset:
    """Request: forget the recurrent state."""


@dataclass(frozen=True)
class Inject:
    """Request, for demonstrations: hang or crash now."""

    kind: Fault


@dataclass(frozen=True)
class Accept:
    """Request: treat the machine's lasting change as accepted (`yes`) or as open again."""

    yes: bool


@dataclass(frozen=True)
class Stop:
    """Request: end in good order."""


@dataclass(frozen=True)
class Hello:
    """Reply: the model is loaded and its self-test passed.

    kernel: the arithmetic that runs the model. load_seconds: from process start to this reply.
    digest, model: SHA-256 of the loaded bundle's manifest, and the model's hash in records.
    refusal: why it is not the default kernel, which was asked for; else empty.
    """

    kernel: str
    load_seconds: float
    digest: str
    model: str
    refusal: str = ""


@dataclass(frozen=True)
class Failure:
    """Reply: why the worker ends; its last message."""

    text: str


Message = Sample | Reset | Inject | Accept | LastingChange | Stop | Hello | Record | Failure
"""A LastingChange is a request to resume from it, and a reply that reports the worker's own."""


class _Kind(enum.IntEnum):
    SAMPLE = 1
    RESET = 2
    INJECT = 3
    STOP = 4
    ACCEPT = 5
    LASTING_CHANGE = 6
    HELLO = 16
    RECORD = 17
    FAILURE = 18


_KINDS = {int(kind): kind for kind in _Kind}


def encode(message: Message) -> bytes:
    """Return the frame of one message. Raises WireError when it is longer than MAX_PAYLOAD."""
    kind, payload = _parts(message)
    if len(payload) > MAX_PAYLOAD:
        raise WireError(f"a {kind.name} of {len(payload)} bytes is longer than {MAX_PAYLOAD}")
    head = _HEAD.pack(kind, len(payload))
    return head + _CHECKSUM.pack(_checksum(head, payload)) + payload


def _checksum(head: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(head))


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
        case Accept(yes):
            return _Kind.ACCEPT, bytes([yes])
        case LastingChange():
            return _Kind.LASTING_CHANGE, json.dumps(vars(message)).encode()
        case Stop():
            return _Kind.STOP, b""
        case Hello():
            return _Kind.HELLO, json.dumps(vars(message)).encode()
        case Failure(text):
            return _Kind.FAILURE, text.encode(errors="replace")


class FrameBuffer:
    """Assembles frames from bytes that arrive in pieces."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        """Add the bytes of one read."""
        self._bytes += data

    def messages(self) -> Iterator[Message]:
        """Yield every complete message, oldest first. Raises WireError at the first bad frame."""
        while len(self._bytes) >= _BEFORE_PAYLOAD:
            kind, length = _HEAD.unpack_from(self._bytes)
            if kind not in _KINDS:
                raise WireError(f"unknown kind of frame {kind}")
            if length > MAX_PAYLOAD:
                raise WireError(f"a frame of {length} bytes is longer than {MAX_PAYLOAD}")
            end = _BEFORE_PAYLOAD + length
            if len(self._bytes) < end:
                return
            head = bytes(self._bytes[: _HEAD.size])
            payload = bytes(self._bytes[_BEFORE_PAYLOAD:end])
            (expected,) = _CHECKSUM.unpack_from(self._bytes, _HEAD.size)
            if _checksum(head, payload) != expected:
                raise WireError(f"a {_KINDS[kind].name} frame whose checksum does not match")
            del self._bytes[:end]
            yield _decode(_KINDS[kind], payload)


def receive(fd: int) -> Iterator[Message]:
    """Yield messages from a blocking pipe until it is closed. Raises WireError on garbage."""
    frames = FrameBuffer()
    while data := os.read(fd, _CHUNK):
        frames.feed(data)
        yield from frames.messages()


def send(fd: int, message: Message) -> None:
    """Write one message to a blocking pipe. Raises BrokenPipeError when the reader is gone."""
    left = memoryview(encode(message))
    while left:
        left = left[os.write(fd, left) :]


def _decode(kind: _Kind, payload: bytes) -> Message:
    try:
        return _message(kind, payload)
    except (ValueError, KeyError, TypeError, RecursionError, struct.error, GruardError) as error:
        raise WireError(f"a garbled {kind.name} frame: {error}") from error


def _message(kind: _Kind, payload: bytes) -> Message:
    match kind:
        case _Kind.SAMPLE:
            return _sample(payload)
        case _Kind.RECORD:
            return _record(payload)
        case _Kind.RESET:
            return Reset()
        case _Kind.INJECT:
            return Inject(_FAULTS[payload.decode()])
        case _Kind.ACCEPT:
            return Accept({b"\0": False, b"\1": True}[payload])
        case _Kind.LASTING_CHANGE:
            change: LastingChange = build(LastingChange, json.loads(payload), "change")
            return change
        case _Kind.STOP:
            return Stop()
        case _Kind.HELLO:
            hello: Hello = build(Hello, json.loads(payload), "hello")
            return hello
        case _Kind.FAILURE:
            return Failure(payload.decode())


def _sample(payload: bytes) -> Sample:
    index, time = _SAMPLE.unpack_from(payload)
    values = np.frombuffer(payload, dtype="<f4", offset=_SAMPLE.size).astype(np.float32)
    return Sample(index, None if math.isnan(time) else time, values)


def _record_to_bytes(record: Record) -> bytes:
    # Not Record.to_json, which rounds numbers: here every bit must survive.
    time, score, threshold, probability = (
        record.time, record.score, record.threshold, record.probability
    )  # fmt: skip
    present = (
        (time is not None)
        | (score is not None) << 1
        | (threshold is not None) << 2
        | (probability is not None) << 3
    )
    head = _RECORD.pack(
        record.index, record.flags, record.tier, record.valid, record.alarm,
        _ABSENT if record.sensor is None else record.sensor, present,
        0.0 if time is None else time, 0.0 if score is None else score,
        0.0 if threshold is None else threshold, 0.0 if probability is None else probability,
    )  # fmt: skip
    words = (record.masked, record.imputed, record.blamed, record.model, record.kind)
    return head + _words_to_bytes(words)


def _record(payload: bytes) -> Record:
    index, bits, tier, valid, alarm, sensor, present, time, score, threshold, probability = (
        _RECORD.unpack_from(payload)
    )
    masked, imputed, blamed, model, kind = _words(payload[_RECORD.size :])
    return Record(
        index,
        time if present & 1 else None,
        tier,
        flags_of(bits),
        valid,
        score if present & 2 else None,
        threshold if present & 4 else None,
        alarm,
        masked,
        imputed,
        blamed,
        model,
        kind,
        probability if present & 8 else None,
        None if sensor == _ABSENT else bool(sensor),
    )


_Words = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str, str | None]


@functools.lru_cache(_CACHED)  # one record after the other has the same names
def _words_to_bytes(words: _Words) -> bytes:
    return json.dumps(words).encode()


@functools.lru_cache(_CACHED)
def _words(data: bytes) -> _Words:
    masked, imputed, blamed, model, kind = json.loads(data)
    names = tuple(build(tuple[str, ...], value, "names") for value in (masked, imputed, blamed))
    return *names, build(str, model, "model"), build(str | None, kind, "kind")
