"""Line sources: nothing in the data stops a run, all that is wrong is counted, nothing waits."""

import gzip
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources.line_source import LineSource
from edge_runtime.sources.lines import FileLines, StreamLines
from edge_runtime.sources.open_source import open_source, open_unnamed
from edge_runtime.sources.source import Reading, Source


class Told:
    """A source over text, its readings, and the complaints that were told in the log."""

    def __init__(self, text: str, channels: tuple[str, ...] = ("a", "b")) -> None:
        self.log: list[str] = []
        self.now = 0.0
        self.complaints = Complaints(self.log.append, lambda: self.now)
        lines = FileLines(io.StringIO(text, newline=""), "test.csv")
        self.source = LineSource(lines, "test.csv", channels, self.complaints)

    def readings(self) -> list[Reading]:
        return list(readings(self.source))

    @property
    def counts(self) -> tuple[int, int]:
        return self.complaints.cells, self.complaints.rows


def readings(source: Source) -> Iterator[Reading]:
    try:
        while True:
            reading = source.read(None)
            assert reading is not None
            yield reading
    except EOFError:
        return


def values(found: list[Reading]) -> list[list[float]]:
    return [reading.row.tolist() for reading in found]


def test_rows_come_in_the_bundles_order() -> None:
    found = Told("time,b,extra,a,label\n0.5,2,9,1,0\n1.5,4,9,3,1\n").readings()
    assert values(found) == [[1.0, 2.0], [3.0, 4.0]]
    assert [reading.time for reading in found] == [0.5, 1.5]
    assert found[0].row.dtype == np.float32


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_are_recognised(delimiter: str) -> None:
    assert values(Told("a,b\n1,2\n".replace(",", delimiter)).readings()) == [[1.0, 2.0]]


def test_unreadable_cells_are_missing_readings_and_counted() -> None:
    told = Told("time,a,b\n0,1,oops\n1,,4\n2,x,y\nnever,5,6\n")
    found = told.readings()
    expected = [[1, np.nan], [np.nan, 4], [np.nan, np.nan], [5, 6]]
    np.testing.assert_array_equal(np.stack([r.values for r in found]), expected)
    assert [reading.time for reading in found] == [0.0, 1.0, 2.0, None]
    assert told.counts == (4, 0)  # an empty cell is not a bad one


def test_a_column_that_nobody_wants_may_be_anything_and_counts_nothing() -> None:
    told = Told('state,a,b,label,note\nRUN,1,2,perhaps,"x;y"\n,x,4,,\n')
    np.testing.assert_array_equal(values(told.readings()), [[1.0, 2.0], [np.nan, 4.0]])
    assert told.counts == (1, 0) and told.log == [
        "test.csv, a: 'x' cannot be read and counts as missing"
    ]


@pytest.mark.parametrize("line", ["1", "1,2,3", '"1,2', "\x00", "\ufffd"])
def test_ragged_lines_are_rows_of_nothing_and_counted(line: str) -> None:
    told = Told(f"a,b\n1,2\n{line}\n3,4\n")
    found = told.readings()
    assert len(found) == 3 and np.isnan(found[1].values).all()
    assert found[2].values.tolist() == [3.0, 4.0]
    assert told.counts == (0, 1)


def test_complaints_quote_once_a_minute() -> None:
    told = Told("a,b\n1,oops\n2,\x07" + "y" * 90 + "\n3,z\n4,w\n")
    told.source.read(None)
    assert told.log == ["test.csv, b: 'oops' cannot be read and counts as missing"]
    told.source.read(None)
    told.source.read(None)
    assert len(told.log) == 1
    told.now = 60.0
    told.source.read(None)
    assert told.log[1].startswith("test.csv, b: 'w' cannot be read")
    assert told.log[1].endswith("(3 times since the last line)")
    assert told.complaints.cells == 4


def test_a_quotation_is_short_and_prints_nothing_but_text() -> None:
    told = Told("a,b\n\x1b[2J" + "y" * 90 + "\n")
    told.readings()
    assert told.log[0].startswith("test.csv: '\\x1b[2Jyyy")
    assert told.log[0].endswith("…' has 1 cells instead of 2")
    assert len(told.log[0]) < 120


def test_blank_lines_are_no_samples() -> None:
    assert len(Told("a,b\n1,2\n\n  \n3,4").readings()) == 2


@pytest.mark.parametrize("text", ["", "a\n1\n", "time\n", "1,2\n3,4\n"])
def test_an_unusable_header_is_refused_at_once(text: str) -> None:
    with pytest.raises(GruardError, match=r"test\.csv"):
        Told(text)


def test_json_lines_are_recognised() -> None:
    told = Told(
        '{"time": 1.5, "b": 2, "a": 1, "extra": {"deep": []}}\n'
        '{"t": "2024-01-01T00:00:00Z", "a": "3.5", "b": null}\n'
        '{"a": true}\n'
    )
    found = told.readings()
    expected = [[1, 2], [3.5, np.nan], [1, np.nan]]
    np.testing.assert_array_equal(np.stack([r.values for r in found]), expected)
    assert [reading.time for reading in found] == [1.5, 1704067200.0, None]
    assert told.counts == (0, 0)


def test_unreadable_json_is_counted_and_missing() -> None:
    told = Told('{"a": 1, "b": 2}\n{"a": "x", "b": [1]}\n[1, 2]\n{"a": 1\n{"a": 1, "time": "x"}\n')
    found = told.readings()
    assert [np.isnan(r.values).all() for r in found] == [False, True, True, True, False]
    assert found[4].time is None
    assert told.counts == (3, 2)


@given(st.lists(st.text(max_size=40), max_size=8), st.booleans())
def test_no_text_stops_a_run(lines: list[str], as_json: bool) -> None:
    first = '{"a": 1, "b": 2}\n' if as_json else "a,b\n1,2\n"
    told = Told(first + "".join(line.replace("\n", "") + "\n" for line in lines))
    found = told.readings()
    assert values(found[:1]) == [[1.0, 2.0]]
    assert all(reading.row.shape == (2,) for reading in found)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["a", "b", "time", "x"]), inner, max_size=3)))  # fmt: skip
def test_no_json_stops_a_run(value: object) -> None:
    told = Told('{"a": 1, "b": 2}\n' + json.dumps(value) + "\n")
    assert len(told.readings()) == 2


@contextmanager
def pipe() -> Iterator[tuple[StreamLines, int]]:
    reading_fd, writing_fd = os.pipe()
    lines = StreamLines(reading_fd, "pipe", lambda: os.close(reading_fd))
    try:
        yield lines, writing_fd
    finally:
        lines.close()


def test_a_reading_is_there_when_its_line_break_is() -> None:
    with pipe() as (lines, writing_fd):
        os.write(writing_fd, b"a,b\n")
        source = LineSource(lines, "pipe", ("a", "b"), Complaints())
        assert source.live
        for row in range(3):  # would block for ever if anything were read ahead
            os.write(writing_fd, b"%d,2\n" % row)
            assert values([r for r in [source.read(None)] if r]) == [[row, 2.0]]
        os.write(writing_fd, b"4,")
        assert source.read(0.0) is None  # half a line is none
        os.write(writing_fd, b"2\n5,2")
        os.close(writing_fd)
        assert values(list(readings(source))) == [[4.0, 2.0], [5.0, 2.0]]


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"time,a,b\n0,1,2\n1,3,x\n"))
    complaints = Complaints()
    source = open_source(str(path), ("a", "b"), 1.0, complaints)
    assert not source.live
    assert len(list(readings(source))) == 2
    source.close()
    assert complaints.cells == 1


def test_a_cut_gzip_file_is_told(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i * 7919 % 1013},{i * 104729 % 997}\n" for i in range(20_000))
    whole = gzip.compress(("time,a,b\n" + rows).encode())
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    source = open_source(str(path), ("a", "b"), 1.0, Complaints())
    with pytest.raises(GruardError, match="is not a complete gzip file"):
        list(readings(source))


def test_a_missing_file_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(GruardError, match="no such file"):
        open_source(str(tmp_path / "no"), ("a",), None, Complaints())


def test_a_recording_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"time": 0, "a": 1}\n{"time": 1, "a": 2}\n')
    source = open_source(str(path), ("a",), 1.0, Complaints())
    assert values(list(readings(source))) == [[1.0], [2.0]]


@pytest.mark.parametrize("kind", ["a file", "a pipe", "stdin"])
@pytest.mark.parametrize(
    ("text", "channels", "first"),
    [
        ("# pump 7\nDatum;Uhrzeit;b;a\n01.12.26;10:00:00;1,5;2\n", ("b", "a"), [1.5, 2.0]),
        ("# time,b,a\n5,1.5,2\n6,3,4\n", ("b", "a"), [1.5, 2.0]),
        ('{"Time": 5, "b": 1.5, "a": 2, "label": 0}\n{"b": 3}\n', ("b", "a"), [1.5, 2.0]),
    ],
)
def test_channels_that_nobody_named_are_those_of_the_first_line(
    kind: str,
    text: str,
    channels: tuple[str, ...],
    first: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that readings are answered by the fallback when no bundle can be read."""
    path = tmp_path / "it"
    if kind == "a pipe":
        os.mkfifo(path)
        writer = threading.Thread(target=path.write_text, args=(text,))
        writer.start()
    else:
        path.write_text(text)
    with path.open() if kind == "stdin" else nullcontext() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        source, found = open_unnamed("-" if stdin else str(path), Complaints())
        assert found == channels
        reading = source.read(None)
        while reading is None:
            reading = source.read(None)
        assert reading.row.tolist() == first and reading.time is not None
    source.close()
    if kind == "a pipe":
        writer.join()


def test_a_first_line_that_names_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "it"
    for text, why in (("{1: 2}\n", "is not a JSON object"), ("", "is empty"), ("1,2\n", "numbers")):
        path.write_text(text)
        with pytest.raises(GruardError, match=f"{path}.*{why}"):
            open_unnamed(str(path), Complaints())


def test_closed_stdin_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(GruardError, match="stdin is closed"):
        open_source("-", ("a",), None, Complaints())


def test_a_byte_order_mark_and_broken_bytes_spoil_nothing_else() -> None:
    with pipe() as (lines, writing_fd):
        os.write(writing_fd, b"\xef\xbb\xbfa,b\n1,\xff\n")
        complaints = Complaints()
        source = LineSource(lines, "stdin", ("a", "b"), complaints)
        reading = source.read(None)
        assert reading is not None and reading.row[0] == 1.0
        assert complaints.cells == 1
        os.close(writing_fd)


def test_a_device_that_is_gone_is_the_users_to_mend() -> None:
    lines = StreamLines(os.open("/proc/self/mem", os.O_RDONLY), "serial")  # reading it fails
    with pytest.raises(GruardError, match="serial: reading failed"):
        lines.next(None)
