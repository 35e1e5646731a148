"""No input costs more than its size: linear work, bounded memory, and nothing holds up the loop."""

import fcntl
import gzip
import io
import json
import os
import resource
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from work import MOST, growth

from edge_runtime.errors import Complaints, GruardError
from edge_runtime.journal import frames
from edge_runtime.sources import csvcell
from edge_runtime.sources.csvfile import read_table
from edge_runtime.sources.csvlayout import channel_order, read_layout
from edge_runtime.sources.decoders import CsvDecoder, JsonDecoder
from edge_runtime.sources.iio import BufferReadings, Scaling, layout_of, parse_type
from edge_runtime.sources.line_source import MOST_SKIPPED, LineSource
from edge_runtime.sources.lines import (
    LONGEST,
    MOST_BYTES,
    CutLine,
    FileLines,
    Splitter,
    StreamLines,
    open_text,
)
from edge_runtime.sources.open_source import open_source
from edge_runtime.sources.serial_port import LineFormat, SerialReadings

CHANNELS = ("a", "b")
Work = Callable[[], object]


def fed(chunk: int) -> Callable[[int], Work]:
    def prepare(size: int) -> Work:
        data, split = b"9" * chunk, Splitter()
        return lambda: [split.feed(data) for _ in range(size)]

    return prepare


def decoded(line: Callable[[int], str]) -> Callable[[int], Work]:
    """A line for a CSV decoder of three columns, of which one is not wanted."""

    def prepare(size: int) -> Work:
        decoder, text = CsvDecoder("time,a,b,extra", "it", CHANNELS, Complaints()), line(size)
        return lambda: decoder.decode(text)

    return prepare


def wide(cells: Callable[[int], str]) -> Callable[[int], Work]:
    """A row of `size` channels, and one extra column."""

    def prepare(size: int) -> Work:
        channels = [f"c{number}" for number in range(size)]
        decoder = CsvDecoder(",".join([*channels, "extra"]), "it", channels, Complaints())
        row = cells(size) + ",RUNNING"
        return lambda: decoder.decode(row)

    return prepare


def parsed(text: Callable[[int], str]) -> Callable[[int], Work]:
    def prepare(size: int) -> Work:
        decoder, line = JsonDecoder("it", CHANNELS, Complaints()), text(size)
        return lambda: decoder.decode(line)

    return prepare


def refused_header(header: Callable[[int], str]) -> Callable[[int], Work]:
    def prepare(size: int) -> Work:
        format_, line = LineFormat("it", CHANNELS, Complaints(), None), header(size)
        return lambda: (format_.is_whole(line), format_.decode(line))

    return prepare


def ordered(size: int) -> Work:
    names = [f"c{number}" for number in range(size)]
    return lambda: channel_order(names[::-1], names, "it")


def read_header(size: int) -> Work:
    header = ",".join(f"c{number}" for number in range(size))
    return lambda: read_layout(header, "it")


def scans(size: int) -> Work:
    reading_fd, writing_fd = os.pipe()
    os.set_blocking(writing_fd, False)
    layout = layout_of([("in_a", parse_type("le:u8/8"))])
    source = BufferReadings(reading_fd, layout, [("in_a", Scaling())], lambda: os.close(reading_fd))
    os.write(writing_fd, bytes(size))
    os.close(writing_fd)

    def work() -> None:
        for _ in range(size):
            source.read(0.0)
        source.close()

    return work


PARSERS: dict[str, tuple[Callable[[int], Work], int]] = {
    "a line in chunks": (fed(4096), 40),
    "a line byte by byte": (fed(1), 20_000),
    "a row of good cells": (wide(lambda n: ",".join(["1.5"] * n)), 4000),
    "a row of bad cells": (wide(lambda n: ",".join(["x"] * n)), 1000),
    "a row of one bad cell": (wide(lambda n: ",".join(["x"] + ["1.5"] * (n - 1))), 2000),
    "too many cells": (decoded(lambda n: "," * n), 100_000),
    "quotes": (decoded(lambda n: '"' * n), 100_000),
    "quoted cells": (decoded(lambda n: '"1",' * n), 50_000),
    "a long number": (decoded(lambda n: "0,1," + "9" * n + ",x"), 30_000),
    "many digits": (decoded(lambda n: "0,1,0." + "1" * n + ",x"), 30_000),
    "a long date": (decoded(lambda n: "2024-01-01T" + "1" * n + ",1,2,x"), 30_000),
    "spaces": (decoded(lambda n: "0,1," + " " * n + ",x"), 30_000),
    "a header": (read_header, 2000),
    "a header of one name": (refused_header(lambda n: "," * n), 20_000),
    "a header of others": (refused_header(lambda n: ",".join(map(str, range(n)))), 10_000),
    "a header of doubles": (refused_header(lambda n: "x," * n), 10_000),
    "channels": (ordered, 1000),
    "JSON digits": (parsed(lambda n: '{"a": %s}' % ("9" * n)), 100_000),
    "JSON fraction": (parsed(lambda n: '{"a": 0.%s}' % ("9" * n)), 100_000),
    "JSON names": (parsed(lambda n: json.dumps(dict.fromkeys(map(str, range(n))))), 10_000),
    "JSON lists": (parsed(lambda n: '{"a": %s}' % ("[" * n)), 100_000),
    "JSON objects": (parsed(lambda n: '{"a":' * n), 100_000),
    "a list for a number": (parsed(lambda n: '{"a": [%s0]}' % ("0," * n)), 30_000),
    "a list for the time": (parsed(lambda n: '{"time": [%s0]}' % ("0," * n)), 30_000),
    "JSON text": (parsed(lambda n: '{"a": "%s"}' % ("\\u00e9" * n)), 30_000),
    "IIO scans": (scans, 4000),
}  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_four_times_the_input_is_four_times_the_work(name: str) -> None:
    prepare, size = PARSERS[name]
    assert growth(prepare, size) < MOST


def test_the_measure_finds_what_is_quadratic() -> None:
    names = [str(number) for number in range(8000)]
    assert growth(lambda n: lambda: [names[:n].count(name) for name in names[:n]], 500) > MOST


@pytest.mark.parametrize("claim", [0.5, 1.0, 2.0])
def test_a_journal_of_heads_that_claim_much_is_checksummed_a_few_times_over(
    claim: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each head claims so much of the file that is left: half of it cost the square."""
    summed = list[int]()

    def crc32(data: bytes, value: int = 0) -> int:
        summed.append(len(data))
        return zlib.crc32(data, value)

    monkeypatch.setattr(frames, "zlib", SimpleNamespace(crc32=crc32))
    whole = frames.encode(frames.Entry(7, b"whole"))
    work = []
    for size in (1 << 18, 1 << 20):
        heads = [
            frames.MAGIC + struct.pack("<IQI", int(claim * (size - at)), 1, 0)
            for at in range(0, size, frames.OVERHEAD)
        ]
        summed.clear()
        assert [entry.sequence for entry, _ in frames.decode(whole + b"".join(heads))] == [7]
        work.append(sum(summed))
    assert work[1] < MOST * work[0] and work[1] < 20 * (1 << 20)


def test_a_journal_believes_no_message_that_no_run_writes() -> None:
    longest, longer = bytes(frames.LONGEST), bytes(frames.LONGEST + 1)
    entries = [frames.Entry(number, message) for number, message in enumerate([longest, longer], 1)]
    data = b"".join(frames.encode(entry) for entry in entries)
    assert [entry for entry, _ in frames.decode(data)] == entries[:1]


def test_deep_json_is_a_bad_cell_and_not_an_error() -> None:
    complaints = Complaints()
    decoder = JsonDecoder("it", CHANNELS, complaints)
    for depth in range(100, 1000, 50):  # some are too deep to read, some to write out
        nested = "[" * depth + "]" * depth
        decoder.decode(f'{{"a": {nested}, "b": 1, "time": {nested}}}')
    assert complaints.cells + 2 * complaints.rows == 2 * 18


def test_an_integer_of_many_digits_spoils_its_cell_alone() -> None:
    complaints = Complaints()
    reading = JsonDecoder("it", CHANNELS, complaints).decode(f'{{"a": {"9" * 5000}, "b": 2}}')
    assert reading.row.tolist() == [np.inf, 2.0] and complaints.rows == 0


@contextmanager
def pipe() -> Iterator[tuple[StreamLines, int]]:
    """Lines, and where to write them, up to a MB at once."""
    reading_fd, writing_fd = os.pipe()
    fcntl.fcntl(writing_fd, fcntl.F_SETPIPE_SZ, MOST_BYTES)
    os.set_blocking(writing_fd, False)
    lines = StreamLines(reading_fd, "pipe", lambda: os.close(reading_fd))
    try:
        yield lines, writing_fd
    finally:
        lines.close()
        os.close(writing_fd)


def test_an_endless_line_comes_back_in_time_and_is_told_once() -> None:
    """A writer that never pauses: each call gives the loop its turn."""
    complaints = Complaints()
    with pipe() as (lines, writing_fd):
        os.write(writing_fd, b"a,b\n1,2\n")
        source = LineSource(lines, "it", CHANNELS, complaints)
        assert source.read(0.0) is not None
        told = []
        tracemalloc.start()
        for _ in range(5 * LONGEST // (1 << 18)):
            os.write(writing_fd, b"9" * (1 << 18))
            for timeout in (0.0, 0.001):
                if (reading := source.read(timeout)) is not None:
                    told.append(reading)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * LONGEST
        assert len(told) == 1 and np.isnan(told[0].row).all() and complaints.rows == 1
        for _ in range(MOST_BYTES // 4096):  # all that the pipe holds
            assert source.read(0.0) is None
        os.write(writing_fd, b"9\n3,4\n")
        reading = source.read(0.0)
        assert reading is not None and reading.row.tolist() == [3.0, 4.0]


def test_a_call_reads_so_much_of_an_endless_line_and_no_more() -> None:
    with pipe() as (lines, writing_fd):
        os.write(writing_fd, b"9" * MOST_BYTES)
        assert lines.next(None) is None  # would wait for ever

    class Endless(io.RawIOBase):
        taken = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            self.taken += len(buffer)
            buffer[:] = b" " * len(buffer)
            return len(buffer)

    endless = Endless()
    file = FileLines(io.TextIOWrapper(io.BufferedReader(endless)), "it")
    cut = file.next(None)
    assert isinstance(cut, CutLine) and len(cut) == 100
    assert LONGEST <= endless.taken < 2 * LONGEST
    assert file.next(None) is None and endless.taken < 3 * LONGEST


@pytest.mark.parametrize("junk", ["\n", "   \n", "\r\n", "\r"])
@pytest.mark.parametrize("timeout", [0.0, 5.0, None])
def test_a_flood_of_blank_lines_gives_the_loop_its_turn(junk: str, timeout: float | None) -> None:
    class Flood:
        live, given = True, 0

        def next(self, timeout: float | None) -> str | None:
            self.given += 1
            return "a,b" if self.given == 1 else junk.strip("\r\n")

        def close(self) -> None:
            pass

    flood = Flood()
    source = LineSource(flood, "it", CHANNELS, Complaints())
    assert source.read(timeout) is None and flood.given == MOST_SKIPPED + 1
    serial = SerialReadings(flood, LineFormat("it", CHANNELS, Complaints(), "a,b"))
    assert serial.read(timeout) is None and flood.given == 2 * MOST_SKIPPED + 1


def test_a_flood_before_the_header_of_a_port_gives_the_loop_its_turn() -> None:
    class Flood:
        live, given = True, 0

        def next(self, timeout: float | None) -> str | None:
            self.given += 1
            return "# comment"

        def close(self) -> None:
            pass

    flood, log = Flood(), list[str]()
    complaints = Complaints(log.append, lambda: 0.0)
    source = SerialReadings(flood, LineFormat("it", CHANNELS, complaints, None))
    assert source.read(None) is None and flood.given == MOST_SKIPPED and len(log) == 1


def test_a_line_that_is_too_long_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a," * LONGEST)
    with pytest.raises(GruardError, match=r"a\.csv line 1: has more than 1048576"):
        LineSource(FileLines(open_text(path), str(path)), str(path), CHANNELS, Complaints())
    with pytest.raises(GruardError, match=r"a\.csv line 1: has more than 1048576"):
        read_table(path)


def test_a_gzip_bomb_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """64 MB of one line in 64 kB of file: for the run, and for whoever reads the whole file."""
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(b"time,a,b\n")
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(GruardError, match="line 2: has more than"):
        read_table(path)
    with pytest.raises(GruardError, match="line 2"):
        open_source(str(path), CHANNELS, 1.0, Complaints())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * LONGEST


def test_descriptors_beyond_1024_are_waited_for() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2048), before[1]))
    reading_fd, writing_fd = os.pipe()
    high = 1500
    os.dup2(reading_fd, high)
    try:
        lines = StreamLines(high, "it")
        assert lines.next(0.0) is None
        os.write(writing_fd, b"a\n")
        assert lines.next(None) == "a"
        layout = layout_of([("in_a", parse_type("le:u8/8"))])
        scan = BufferReadings(high, layout, [("in_a", Scaling())], lambda: None)
        assert scan.read(0.0) is None
        os.write(writing_fd, b"\x07")
        reading = scan.read(None)
        assert reading is not None and reading.row.tolist() == [7.0]
    finally:
        for fd in (high, reading_fd, writing_fd):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1e308", 1e308),
        ("-1e308", -1e308),
        ("5e-324", 5e-324),
        ("-0.0", 0.0),
        ("0001-01-01T00:00:00Z", -62135596800.0),
        ("0001-01-01T00:00:00+14:00", -62135596800.0 - 14 * 3600),
        ("9999-12-31T23:59:59", 253402300799.0),
        ("9999-12-31T23:59:59.999999-14:00", 253402300799.999999 + 14 * 3600),
        ("2016-12-31T23:59:60Z", 1483228800.0),
        ("2016-12-31 23:59:60.25", 1483228800.25),
        ("2017-01-01T00:59:60+01:00", 1483228800.0),
        ("2024-10-27T02:30:00", 1729996200.0),
        ("2024-10-27T02:30:00+02:00", 1729989000.0),
        ("2024-10-27T02:30:00+01:00", 1729992600.0),
    ],
)
def test_odd_times_are_read(text: str, seconds: float) -> None:
    complaints = Complaints()
    decoder = CsvDecoder("time,a,b", "it", CHANNELS, complaints)
    assert decoder.decode(f"{text},1,2").time == pytest.approx(seconds, rel=1e-12)
    quoted = text if text[-1].isdigit() and "e" in text else f'"{text}"'
    found = JsonDecoder("it", CHANNELS, complaints).decode(f'{{"time": {quoted}, "a": 1}}')
    assert found.time == pytest.approx(seconds, rel=1e-12) and complaints.cells == 0


@pytest.mark.parametrize(
    "text",
    [
        "nan", "inf", "-Infinity", "1e309", "", "noon", "0000-01-01", "10000-01-01",
        "2024-02-30", "2024-01-01T24:00:01", "2024-01-01T12:60:60", "23:59:60", "1_0",
        "2024-01-01T00:00:00+99:00", "2024-01-01T00:00:61", "9" * 400, "NaT", "\x00",
    ],
)  # fmt: skip
def test_times_that_are_none_are_none_and_counted_once(text: str) -> None:
    for make in (
        lambda complaints: CsvDecoder("t,a,b", "it", CHANNELS, complaints).decode(f'"{text}",1,2'),
        lambda complaints: JsonDecoder("it", CHANNELS, complaints).decode(
            '{{"time": "{}", "a": 1, "b": 2}}'.format(text.replace("\x00", "\\u0000"))
        ),
    ):
        complaints = Complaints()
        reading = make(complaints)
        assert reading.time is None and reading.row.tolist() == [1.0, 2.0]
        assert (complaints.cells, complaints.rows) == (1, 0)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "true", "[1]", "{}"])
def test_json_times_that_are_none(literal: str) -> None:
    complaints = Complaints()
    found = JsonDecoder("it", CHANNELS, complaints).decode(f'{{"time": {literal}, "a": 1}}')
    assert found.time is None and complaints.cells == 1


def test_a_long_text_is_no_date() -> None:
    with pytest.raises(ValueError):
        csvcell.seconds("2024-01-01T" + "0" * 100)
