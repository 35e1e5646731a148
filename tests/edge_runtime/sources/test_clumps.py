"""Readings that come several at once, or in bytes one by one; a source that dies within one."""

import os
import pty
import socket
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mqtt_source import greet, length, speaking

from edge_runtime.errors import Complaints
from edge_runtime.sources.iio import BufferReadings, Scaling, layout_of, parse_type
from edge_runtime.sources.line_source import LineSource, open_lines
from edge_runtime.sources.lines import DECODE_ERRORS, Splitter, StreamLines
from edge_runtime.sources.mqtt import JsonSamples, Messages
from edge_runtime.sources.serial_port import LineFormat, SerialReadings
from edge_runtime.sources.source import Source, SourceLostError

CHANNELS = ("a", "b")
WHOLE = 40  # readings


@dataclass
class Wire:
    """A source, how its bytes come to it, and the bytes of one reading of (number, 2)."""

    source: Source
    say: Callable[[bytes], None]
    hang_up: Callable[[], None]
    reading: Callable[[int], bytes]
    complaints: Complaints


def line(number: int) -> bytes:
    return b"%d,2\r\n" % number


@contextmanager
def pipe(tmp_path: Path) -> Iterator[Wire]:
    reading_fd, writing_fd = os.pipe()
    os.write(writing_fd, b"a,b\r\n")
    lines, complaints = StreamLines(reading_fd, "it"), Complaints()
    source = LineSource(lines, "it", CHANNELS, complaints)
    yield Wire(
        source,
        lambda data: _whole(writing_fd, data),
        lambda: os.close(writing_fd),
        line,
        complaints,
    )
    os.close(reading_fd)


@contextmanager
def fifo(tmp_path: Path) -> Iterator[Wire]:
    path, complaints = tmp_path / "fifo", Complaints()
    os.mkfifo(path)
    writing_fd = os.open(path, os.O_RDWR)
    os.write(writing_fd, b"a,b\n")
    source = open_lines(str(path), CHANNELS, 1.0, complaints)
    yield Wire(
        source,
        lambda data: _whole(writing_fd, data),
        lambda: os.close(writing_fd),
        line,
        complaints,
    )
    source.close()


@contextmanager
def serial(tmp_path: Path) -> Iterator[Wire]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    complaints = Complaints()
    source = SerialReadings(
        StreamLines(slave, "it", open_end=False), LineFormat("it", CHANNELS, complaints, "a,b")
    )
    os.write(master, b"cut off\n")
    assert source.read(0.0) is None
    yield Wire(
        source, lambda data: _whole(master, data), lambda: os.close(master), line, complaints
    )
    os.close(slave)


@contextmanager
def scans(tmp_path: Path) -> Iterator[Wire]:
    reading_fd, writing_fd = os.pipe()
    layout = layout_of([(name, parse_type("be:u16/16")) for name in ("in_a", "in_b")])
    scales = [("in_a", Scaling()), ("in_b", Scaling())]
    source = BufferReadings(reading_fd, layout, scales, lambda: None)
    yield Wire(
        source, lambda data: _whole(writing_fd, data), lambda: os.close(writing_fd),
        lambda number: number.to_bytes(2, "big") + b"\0\2", Complaints(),
    )  # fmt: skip
    os.close(reading_fd)


@contextmanager
def broker(tmp_path: Path) -> Iterator[Wire]:
    ours, theirs = socket.socketpair()

    def say(connection: socket.socket) -> None:
        greet(connection)
        while data := theirs.recv(65536):
            connection.sendall(data)

    def packet(number: int) -> bytes:
        body = b"\x00\x01t\x00" + b'{"a": %d, "b": 2}' % number
        return b"\x30" + length(len(body)) + body

    complaints = Complaints()
    with ours, theirs, speaking(say) as address:
        messages = Messages(address)
        source = JsonSamples(messages.next, messages.close, "it", CHANNELS, complaints)
        yield Wire(source, ours.sendall, lambda: ours.shutdown(socket.SHUT_WR), packet, complaints)
        messages.close()


def _whole(descriptor: int, data: bytes) -> None:
    assert os.write(descriptor, data) == len(data)


WIRES = [pipe, fifo, serial, scans, broker]


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.__name__)
def test_a_clump_is_read_reading_by_reading(wire: Callable[..., object], tmp_path: Path) -> None:
    with wire(tmp_path) as it:  # type: ignore[attr-defined]
        it.say(b"".join(it.reading(number) for number in range(WHOLE)))
        found = [it.source.read(30.0) for _ in range(WHOLE)]
        assert [reading.row.tolist() for reading in found] == [[n, 2] for n in range(WHOLE)]
        assert it.source.read(0.0) is None and it.complaints.cells + it.complaints.rows == 0
        it.hang_up()


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.__name__)
def test_bytes_one_by_one_are_a_reading_when_they_are_whole(
    wire: Callable[..., object], tmp_path: Path
) -> None:
    with wire(tmp_path) as it:  # type: ignore[attr-defined]
        *first, last = it.reading(7).rstrip(b"\n") if wire is not scans else it.reading(7)
        for byte in first:
            it.say(bytes([byte]))
            assert it.source.read(0.0) is None
        it.say(bytes([last]))
        reading = it.source.read(30.0)
        assert reading is not None and reading.row.tolist() == [7, 2]
        it.hang_up()


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.__name__)
def test_a_source_that_dies_within_a_reading_gives_what_was_whole(
    wire: Callable[..., object], tmp_path: Path
) -> None:
    """Half a line of a pipe that ended is a line, as the last one of a file without line break."""
    with wire(tmp_path) as it:  # type: ignore[attr-defined]
        it.say(it.reading(5) + it.reading(123)[:2])
        first = it.source.read(30.0)
        assert first is not None and first.row.tolist() == [5, 2]
        it.hang_up()
        ended = EOFError if wire in (pipe, fifo) else SourceLostError
        with pytest.raises(ended):
            while (reading := it.source.read(30.0)) is not None:
                assert wire in (pipe, fifo) and not (reading.row == reading.row).any()
        assert it.complaints.rows == (wire in (pipe, fifo))


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([b"1,2", b"", b" ", b"\xff", b"x" * 50, "é".encode()]), max_size=12),
    st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=12, max_size=12),
    st.lists(st.integers(1, 30), min_size=1, max_size=40),
)
def test_where_the_bytes_are_cut_changes_no_line(
    lines: list[bytes], breaks: list[bytes], sizes: list[int]
) -> None:
    data = b"".join(line + end for line, end in zip(lines, breaks, strict=False))
    split, start = Splitter(), 0
    for size in sizes * (1 + len(data)):
        split.feed(data[start : start + size])
        start += size
    split.finish()
    wanted = [line.decode(errors=DECODE_ERRORS) for line in lines if line]
    assert [line for line in split.lines if line] == wanted
