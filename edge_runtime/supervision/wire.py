"""What the supervisor and its worker say to each other: frames with a checksum over two pipes.

A frame is one byte of kind, four bytes of payload length, four bytes of CRC-32 over kind, length
and payload (little-endian), and the payload. The pipes are never stdin and stdout, because
libraries print there.
"""

import enum
import functools
import json
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np

from edge_runtime.detector.lasting_change import LastingChange
from edge_runtime.record import Record, Sample, flags_of

_HEAD = struct.Struct("<BI")
_CHECKSUM = struct.Struct("<I")
_BEFORE_PAYLOAD = _HEAD.size + _CHECKSUM.size
_SAMPLE = struct.Struct("<qd")
# Index, flags, tier, valid, alarm, sensor, which numbers there are, and the numbers.
_RECORD = struct.Struct("<qHB??bB4d")
_ABSENT = -1  # of `sensor`
_CHUNK = 65536
_DIFFERENT = 256
"""Combinations of names that are remembered."""
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
class Accept:
    """Request: take the machine's change as how it runs now (`yes`), or take that back."""

    yes: bool


@dataclass(frozen=True)
class Stop:
    """Request: end in good order."""


@dataclass(frozen=True)
class Hello:
    """Reply: the model is loaded and its self-test passed.

    kernel: the arithmetic that runs the model. load_seconds: from process start to this reply.
    digest, model: SHA-256 of the loaded bundle's manifest, and the model's hash in records.
    """

    kernel: str
    load_seconds: float
    digest: str
    model: str


@dataclass(frozen=True)
class Failure:
    """Reply: the worker cannot go on, and why; its last word."""

    text: str


Message = Sample | Reset | Inject | Accept | LastingChange | Stop | Hello | Record | Failure
"""A LastingChange is a request, go on from there, and a reply, of where the machine stands."""


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
    """The frame of one message. Raises WireError when it is longer than MAX_PAYLOAD."""
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
            return _Kind.LASTING_CHANGE, json.dumps(list(astuple(message))).encode()
        case Stop():
            return _Kind.STOP, b""
        case Hello():
            return _Kind.HELLO, json.dumps(list(astuple(message))).encode()
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
        while len(self._bytes) >= _BEFORE_PAYLOAD:
            kind, length = _HEAD.unpack_from(self._bytes)
            if kind not in _KINDS:
                raise WireError(f"unknown kind of frame {kind}")
            if length > MAX_PAYLOAD:
                raise WireError(f"a frame of {length} bytes is longer than {MAX_PAYLOAD}")
            end = _BEFORE_PAYLOAD + length
            if len(self._bytes) < end:
                return
            head, payload = (
                bytes(self._bytes[: _HEAD.size]),
                bytes(self._bytes[_BEFORE_PAYLOAD:end]),
            )
            (expected,) = _CHECKSUM.unpack_from(self._bytes, _HEAD.size)
            if _checksum(head, payload) != expected:
                raise WireError(f"a {_KINDS[kind].name} frame whose checksum does not match")
            del self._bytes[:end]
            yield _decode(_KINDS[kind], payload)


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
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
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
            return _lasting_change(*json.loads(payload))
        case _Kind.STOP:
            return Stop()
        case _Kind.HELLO:
            return _hello(*json.loads(payload))
        case _Kind.FAILURE:
            return Failure(payload.decode())


def _hello(kernel: object, load_seconds: object, digest: object, model: object) -> Hello:
    seconds = load_seconds if isinstance(load_seconds, float) else math.nan
    if not math.isfinite(seconds):
        raise ValueError("load_seconds is no finite number")
    return Hello(_text(kernel), seconds, _text(digest), _text(model))


def _lasting_change(
    phase: object, count: object, centre: object, baselines: object
) -> LastingChange:
    if type(phase) is not int or type(count) is not int:
        raise TypeError("two integers are expected")
    return LastingChange(phase, count, _numbers(centre), _numbers(baselines))


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(type(value) is float for value in values):
        raise TypeError("a list of numbers is expected")
    return tuple(values)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _sample(payload: bytes) -> Sample:
    index, time = _SAMPLE.unpack_from(payload)
    values = np.frombuffer(payload, dtype="<f4", offset=_SAMPLE.size).astype(np.float32)
    return Sample(index, None if math.isnan(time) else time, values)


def _record_to_bytes(record: Record) -> bytes:
    # Not Record.to_json: that rounds for human readers, and here every bit must survive.
    numbers = (record.time, record.score, record.threshold, record.probability)
    present = sum(1 << i for i, number in enumerate(numbers) if number is not None)
    sensor = _ABSENT if record.sensor is None else record.sensor
    head = _RECORD.pack(
        record.index, record.flags, record.tier, record.valid, record.alarm, sensor, present,
        *(0.0 if number is None else number for number in numbers),
    )  # fmt: skip
    words = (record.masked, record.imputed, record.blamed, record.model, record.kind)
    return head + _words_to_bytes(words)


def _record(payload: bytes) -> Record:
    index, bits, tier, valid, alarm, sensor, present, *found = _RECORD.unpack_from(payload)
    numbers = (number if present & 1 << i else None for i, number in enumerate(found))
    time, score, threshold, probability = numbers
    masked, imputed, blamed, model, kind = _words(payload[_RECORD.size :])
    known = None if sensor == _ABSENT else bool(sensor)
    return Record(
        index, time, tier, flags_of(bits), valid, score, threshold, alarm, masked, imputed, blamed,
        model, kind, probability, known,
    )  # fmt: skip


_Words = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str, str | None]


@functools.lru_cache(_DIFFERENT)  # one record after the other has the same names
def _words_to_bytes(words: _Words) -> bytes:
    return json.dumps(words).encode()


@functools.lru_cache(_DIFFERENT)
def _words(data: bytes) -> _Words:
    masked, imputed, blamed, model, kind = json.loads(data)
    named = None if kind is None else _text(kind)
    return _texts(masked), _texts(imputed), _texts(blamed), _text(model), named


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError("a list of names is expected")
    return tuple(map(_text, values))
