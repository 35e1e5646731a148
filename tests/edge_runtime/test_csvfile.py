"""The one CSV reader: every number survives, every mistake is named with its place."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import GruardError
from edge_runtime.sources.csvfile import RowParser, channel_order, open_text, read_rows, read_table
from edge_runtime.sources.dialect import LOOKED_AT


def write(folder: Path, text: str, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def fails(lines: str, *parts: str, **columns: str) -> None:
    with pytest.raises(GruardError) as caught:
        list(read_rows(lines.splitlines(keepends=True), "file.csv", **columns)[1])
    message = str(caught.value)
    assert "\n" not in message
    for part in ("file.csv", *parts):
        assert part in message


@given(
    st.lists(
        st.lists(st.floats(width=32), min_size=3, max_size=3),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(",;\t"),
)
def test_every_float32_survives(rows: list[list[float]], mark: str) -> None:
    lines = [mark.join("abc")] + [mark.join(map(repr, row)) for row in rows]
    parser, stream = read_rows(lines, "file.csv")
    read = np.stack([row.values for row in stream])
    assert parser.channels == ("a", "b", "c")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, np.array(rows, np.float32))


def test_time_label_and_missing_cells_of_a_table(tmp_path: Path) -> None:
    head = "Time,flow,Anomaly,temp\n"
    rows = "0.5,1,0,\n1.5,NA,1,inf\n2.5, null ,false,None\n3.5,nan,TRUE,-inf\n\n"
    table = read_table(write(tmp_path, head + rows))
    assert table.channels == ("flow", "temp")
    assert table.times is not None and table.times.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert table.times.dtype == np.float64
    assert table.labels is not None and table.labels.tolist() == [0, 1, 0, 1]
    assert table.labels.dtype == np.int8
    nan, inf = np.nan, np.inf
    np.testing.assert_array_equal(table.values, [[1, nan], [nan, inf], [nan, nan], [nan, -inf]])


def test_a_number_beyond_float32_is_infinite() -> None:
    _, stream = read_rows(["a\n", "1e300\n"], "file.csv")
    assert next(stream).values.tolist() == [np.inf]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01", 0.0),
        ("1970-01-01 00:01:00", 60.0),
        ("1970-01-01T00:01:00.250Z", 60.25),
        ("1970-01-01T01:01:00+01:00", 60.0),
        ("-2.5e1", -25.0),
        ("01.05.2026 00:00:10", 1_777_593_610.0),
        ("1.5.2026", 1_777_593_600.0),
        ("1.5.2026 0:00", 1_777_593_600.0),
        ("2026/05/01 00:00:10", 1_777_593_610.0),
        ("2026-05-01T02:00:10+0200", 1_777_593_610.0),
        ("2026-05-01T02:00:10,5+02", 1_777_593_610.5),
        ("2026-05-01 00:00:10 UTC", 1_777_593_610.0),
        ("2026-05-01T00:00:10.123456789Z", 1_777_593_610.123456),
        ("1777593610.5", 1_777_593_610.5),
        ("1777593610500", 1_777_593_610.5),
        ("1777593610500000", 1_777_593_610.5),
        ("1777593610500000000", 1_777_593_610.5),
        ("500000000000", 500_000_000_000.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert RowParser(["t", "a"], "file.csv").parse([text, "1"], 2).time == seconds


def test_time_is_guessed_in_the_first_column_only() -> None:
    parser = RowParser(["flow", "t", "label"], "file.csv")
    assert (parser.channels, parser.time_column, parser.label_column) == (
        ("flow", "t"),
        None,
        "label",
    )


@pytest.mark.parametrize(
    "cells", ["31.12.2026 {:02}:00", "2026-12-31 {:02}:00:00", "17775936{:02}"]
)
@pytest.mark.parametrize("first", [True, False])
def test_a_column_of_times_is_the_time_column(cells: str, first: bool) -> None:
    lines = [f"{cells.format(i)};{i}" if first else f"{i};{cells.format(i)}" for i in range(3)]
    parser, rows = read_rows(["Wann;Druck" if first else "Druck;Wann", *lines], "file.csv")
    if not first and "." not in cells and "-" not in cells:
        assert parser.time_column is None  # a number further right is a reading
    else:
        assert (parser.time_column, parser.channels) == ("Wann", ("Druck",))
        times = [row.time for row in rows]
        assert times[1] - times[0] == times[2] - times[1] > 0


def test_readings_are_no_times() -> None:
    for cells in (["1", "2"], ["1777593610", "1777593610"], ["1777593610", "5"]):
        assert read_rows(["a,b", *(f"{cell},1" for cell in cells)], "f")[0].channels == ("a", "b")
    service = ["2026-01-01,1", "2026-01-01,2"]
    parser, _ = read_rows(["x,serviced", *(f"1,{row[:10]}" for row in service)], "f")
    assert (parser.time_column, parser.text) == (None, ("serviced",))


@pytest.mark.parametrize(
    "text", ["32.01.2026", "1.13.2026 00:00", "05/01/2026", "2026-5", "1.1.26"]
)
def test_a_date_that_is_none_or_may_be_two(text: str) -> None:
    fails(f"t,a\n0,1\n{text},1\n", "line 3, column 't'", f"'{text}' is not a time")


def test_named_columns_win_over_guessed_ones() -> None:
    parser = RowParser(["time", "clock", "label", "a"], "file.csv", "clock", "time")
    assert parser.channels == ("label", "a")
    row = parser.parse(["1", "7", "3", "4"], 2)
    assert (row.time, row.label, row.values.tolist()) == (7.0, 1.0, [3.0, 4.0])


def test_an_unknown_label_is_none_in_a_stream_and_refused_in_a_table(tmp_path: Path) -> None:
    path = write(tmp_path, "a,label\n1,0\n2,\n")
    with open_text(path) as text:
        assert [row.label for row in read_rows(text, path)[1]] == [0.0, None]
    with pytest.raises(GruardError, match="line 3: the label is empty; write 0 or 1"):
        read_table(path)


def test_rows_are_read_lazily() -> None:
    def endless():
        yield "a,b\n"
        for _ in range(LOOKED_AT):
            yield "1,2\n"
        raise AssertionError("asked for more than needed")

    _, stream = read_rows(endless(), "endless")
    assert next(stream).values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ("", ("is empty", "name the columns")),
        ("\n1,2\n", ("line 1", "is blank")),
        (",,\n", ("line 1", "is blank")),
        ("1.5,2\n3,4\n", ("line 1", "holds numbers")),
        ("a,,b\n", ("line 1", "column 2 has no name")),
        ("a,b,a\n", ("line 1", "named a", "rename")),
        ("time,label\n", ("line 1", "no channel is left")),
        ("a,label,anomaly\n", ("label, anomaly", "name the label column")),
        ("a,b\n1\n", ("line 2", "expected 2 columns", "got 1")),
        ("a,b\n1,2\n1,2,3\n", ("line 3", "expected 2 columns", "got 3")),
        ("a,flow\n1,2\n1, abc\n", ("line 3, column 'flow'", "'abc' is not a number", "empty")),
        ("a,b\n1,2\n1,1_000\n", ("line 3, column 'b'", "'1_000' is not a number")),
        ("a;b\n1;0,5\n1;0.5\n", ("line 3, column 'b'", "'0.5' is not a number")),
        ("a,b\n2,0.5\n1,'0,5'\n", ("line 3", "expected 2 columns", "got 3")),
        ("a;b\nx;y\n", ("line 2, column 'a'", "'x' is not a number")),
        ("t,a\nnoon,1\n", ("line 2, column 't'", "'noon' is not a time", "ISO 8601")),
        ("when,a\n2026-05-01,1\n2026-05-02,1\n2026-05-03x,1\n", ("line 4", "is not a time")),
        ("t,a\n,1\n", ("line 2, column 't'", "'' is not a time")),
        ("t,a\nnan,1\n", ("line 2, column 't'", "'nan' is not a time")),
        ("a,label\n1,2\n", ("line 2, column 'label'", "'2' is not a label", "0 for normal")),
        ("a,label\n1,bad\n", ("line 2, column 'label'", "'bad' is not a label")),
        ("a,b\n1,2\n\n3,4\n", ("line 3", "is blank", "remove the line")),
    ],
)
def test_mistakes_are_named_with_their_place(lines: str, parts: tuple[str, ...]) -> None:
    fails(lines, *parts)


def test_named_columns_must_be_there_and_differ() -> None:
    fails("a,b\n", "no column 'when'", "a, b", time_column="when")
    fails("a,b\n", "no column 'bad'", label_column="bad")
    fails("t,a\n", "'t' cannot hold both", label_column="t")


def test_an_oversized_cell_is_named() -> None:
    fails("a,b\n1," + "9" * 200_000 + "\n", "line 2", "is not CSV")
    fails("a," + "b" * 200_000 + "\n", "line 1", "is not CSV")


def test_a_table_needs_rows(tmp_path: Path) -> None:
    with pytest.raises(GruardError, match=r"file\.csv: has a header but no rows"):
        read_table(write(tmp_path, "a,b\n\n"))


def test_gzip_and_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfa,b\r\n1,2\r\n"))
    table = read_table(tmp_path / "a.csv.gz")
    assert table.channels == ("a", "b")
    assert table.values.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.csv", b"PK\x03\x04\x14\0", "spreadsheet or another archive; export it as CSV"),
        ("plain.csv.gz", b"a,b\n1,2\n", "not a complete gzip"),
        ("cut.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:-10], "not a complete gzip"),
    ],
)
def test_unreadable_content(tmp_path: Path, name: str, content: bytes, part: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GruardError, match=f"{name}.*{part}"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_unopenable_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(GruardError, match="no such file; check the path"):
        read_table(path)
    path.mkdir()
    with pytest.raises(GruardError, match="is a directory, not a file; name a CSV file"):
        read_table(path)


def test_a_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    write(tmp_path, "a,b\n", "a.csv")
    monkeypatch.setattr(os, "open", refuse)  # root may read everything, so no real mode helps
    with pytest.raises(GruardError, match="permission denied; make the file readable"):
        read_table(tmp_path / "a.csv")


@given(st.permutations(["a", "b", "c", "extra"]))
def test_the_order_of_channels_never_matters(available: list[str]) -> None:
    order = channel_order(available, ("a", "b", "c"), "file.csv")
    assert [available[i] for i in order] == ["a", "b", "c"]


def test_missing_channels_are_named_beside_unexpected_ones() -> None:
    with pytest.raises(GruardError) as caught:
        channel_order(["a", "x"], ["a", "b", "c"], "file.csv")
    assert "file.csv: missing channels: b, c; unexpected: x" in str(caught.value)
