"""Frames survive any cutting, and nothing but frames is accepted."""

import os
import struct
import zlib
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.detector.lasting_change import LastingChange
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision import wire

RECORD = Record(
    7,
    1.5,
    2,
    Flag.FREE_RUN | Flag.RESYNC,
    False,
    0.1 + 0.2,
    1 / 3,
    True,
    ("a",),
    (),
    ("b", "c"),
    "0f",
)
NAMED = replace(RECORD, kind="level", probability=0.1 + 0.7, sensor=True)
MESSAGES = [
    wire.Reset(),
    wire.Inject("hang"),
    wire.Inject("crash"),
    wire.Accept(True),
    wire.Accept(False),
    LastingChange(1, 2, (0.5, -1e-45), (3.4e38, 0.0)),
    LastingChange(0, 0, (), ()),
    wire.Stop(),
    wire.Hello("core-c", 0.25, "5e" * 32, "0f"),
    wire.Hello("tflite-builtin", 0.25, "5e" * 32, "0f", "the core refuses"),
    wire.Failure("no µ-threshold"),
    RECORD,
    NAMED,
]


HEAD = bytes(49)  # of a record, before its words


def framed(payload: bytes, kind: int = 17) -> bytes:
    head = struct.pack("<BI", kind, len(payload))
    return head + struct.pack("<I", zlib.crc32(head + payload)) + payload


def decoded(data: bytes, piece: int = 1 << 16) -> list[wire.Message]:
    frames = wire.FrameBuffer()
    messages: list[wire.Message] = []
    for start in range(0, len(data), piece):
        frames.feed(data[start : start + piece])
        messages += frames.messages()
    return messages


@given(piece=st.integers(1, 40), order=st.permutations(MESSAGES))
def test_messages_survive_any_cutting(piece: int, order: list[wire.Message]) -> None:
    assert decoded(b"".join(map(wire.encode, order)), piece) == order


@given(
    index=st.integers(0, 2**62),
    time=st.none() | st.floats(allow_nan=False),
    values=st.lists(st.floats(width=32), max_size=20),
)
def test_a_sample_keeps_every_bit(index: int, time: float | None, values: list[float]) -> None:
    sample = Sample(index, time, np.array(values, np.float32))
    (found,) = decoded(wire.encode(sample), 5)
    assert isinstance(found, Sample) and (found.index, found.time) == (index, time)
    assert found.values.dtype == np.float32 and found.values.tobytes() == sample.values.tobytes()


def test_the_head_of_a_record_is_as_long_as_these_tests_have_it() -> None:
    (found,) = decoded(framed(HEAD + b'[[],[],[],"",null]'))
    assert isinstance(found, Record) and found.sensor is False and found.score is None


@pytest.mark.parametrize(
    "record", [RECORD, NAMED, replace(NAMED, time=None, sensor=False, score=0.0)]
)
def test_a_record_keeps_every_bit_of_its_numbers(record: Record) -> None:
    (found,) = decoded(wire.encode(record))
    assert found == record and isinstance(found, Record) and isinstance(found.flags, Flag)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 16,
        framed(b"", 99),
        struct.pack("<BII", 17, wire.MAX_PAYLOAD + 1, 0),
        framed(b"{}"),
        framed(HEAD),
        framed(HEAD + b"[]"),
        framed(HEAD + b"\xff"),
        framed(HEAD + b"[1,[],[],1,null]"),
        framed(HEAD + b'["a",[],[],"",null]'),
        framed(HEAD + b'[[1],[],[],"",null]'),
        framed(HEAD + b'[[],[],[],"",7]'),
        framed(HEAD + b"[" * 100_000),
        framed(HEAD[:8] + b"\xff\xff\1\0" + HEAD[12:] + b'[[],[],[],"",null]'),
        framed(b"[]", 16),
        framed(b'["k",0.5,"d","m"]', 16),
        framed(b'{"kernel":"k","load_seconds":0.5,"digest":"d"}', 16),
        framed(b'{"kernel":"k","load_seconds":NaN,"digest":"d","model":"m"}', 16),
        framed(b'{"kernel":"k","load_seconds":0.5,"digest":["d"],"model":"m"}', 16),
        framed(b"abc", 1),
        framed(bytes(17), 1),
        framed(b"nuke", 3),
        framed(b"", 5),
        framed(b"\2", 5),
        framed(b"{}", 6),
        framed(b"[1,2,[0.5],[]]", 6),
        framed(b'{"phase":1,"count":2,"centre":[0.5]}', 6),
        framed(b'{"phase":1.0,"count":2,"centre":[0.5],"baselines":[]}', 6),
        framed(b'{"phase":true,"count":2,"centre":[0.5],"baselines":[]}', 6),
        framed(b'{"phase":1,"count":2,"centre":0.5,"baselines":[]}', 6),
        framed(b'{"phase":1,"count":2,"centre":["a"],"baselines":[]}', 6),
        framed(b"\xff", 18),
    ],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        decoded(data)


@given(data=st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_wire_errors(data: bytes) -> None:
    with suppress(wire.WireError):
        decoded(data)


def test_messages_before_the_garbage_are_delivered() -> None:
    frames = wire.FrameBuffer()
    frames.feed(wire.encode(wire.Reset()) + b"\xff" * 16)
    messages = frames.messages()
    assert next(messages) == wire.Reset()
    with pytest.raises(wire.WireError):
        next(messages)


def test_too_long_a_message_is_not_sent() -> None:
    with pytest.raises(wire.WireError, match="longer than"):
        wire.encode(wire.Failure("x" * (wire.MAX_PAYLOAD + 1)))


def test_a_pipe_carries_messages_until_it_closes() -> None:
    reading, writing = os.pipe()
    for message in MESSAGES:
        wire.send(writing, message)
    os.close(writing)
    assert list(wire.receive(reading)) == MESSAGES
    os.close(reading)


def test_a_pipe_nobody_reads_is_a_broken_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        wire.send(writing, wire.Stop())
    os.close(writing)
