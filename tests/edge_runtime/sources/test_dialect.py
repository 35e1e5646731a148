"""A table reads as the same values however it is written, in a recording and on the device."""

import csv
import gzip
import io
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.columns import Columns
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources.csvfile import read_table
from edge_runtime.sources.line_source import LineSource
from edge_runtime.sources.lines import FileLines, StreamLines, open_text
from edge_runtime.sources.source import Reading

EVENING = datetime(2026, 12, 1, 20, tzinfo=timezone.utc)
CHANNELS = ("Durchfluß", "Temperatur °C", "Druck")


def written(rows: list[list[float]], delimiter: str, comma: bool, trailing: bool) -> str:
    text = io.StringIO()
    quoting = csv.QUOTE_ALL if comma and delimiter == "," else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting)
    end = [""] if trailing else []
    writer.writerow([*CHANNELS, *end])
    for row in rows:
        cells = ["" if np.isnan(value) else f"{value:.4f}" for value in row]
        writer.writerow([*(c.replace(".", ",") if comma else c for c in cells), *end])
    return text.getvalue()


def from_device(path: Path) -> np.ndarray:
    source = LineSource(FileLines(open_text(path), str(path)), str(path), CHANNELS, Complaints())
    return drained(source)


def drained(source: LineSource) -> np.ndarray:
    return np.array([reading.row for reading in readings(source)])


def readings(source: LineSource) -> Iterator[Reading]:
    with suppress(EOFError):
        while True:
            reading = source.read(1.0)
            assert reading is not None
            yield reading
    source.close()


def from_pipe(text: bytes, channels: tuple[str, ...], complaints: Complaints) -> list[Reading]:
    """The readings of a live stream."""
    reading_fd, writing_fd = os.pipe()
    os.write(writing_fd, text)  # far less than a pipe holds
    os.close(writing_fd)
    lines = StreamLines(reading_fd, "in", lambda: os.close(reading_fd))
    return [*readings(LineSource(lines, "in", channels, complaints))]


finite = st.floats(-1e4, 1e4, width=32).map(lambda value: round(value, 4))
cells = st.one_of(finite, st.just(float("nan")))
tables = st.lists(st.lists(cells, min_size=3, max_size=3), max_size=30)
"""The first row has a reading everywhere, as a column without any is no channel."""


@given(
    first=st.lists(finite, min_size=3, max_size=3),
    rest=tables,
    delimiter=st.sampled_from(",;\t"),
    comma=st.booleans(),
    trailing=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"]),
    zipped=st.booleans(),
)
def test_any_dialect_reads_as_the_same_values(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[float],
    rest: list[list[float]],
    delimiter: str,
    comma: bool,
    trailing: bool,
    encoding: str,
    zipped: bool,
) -> None:
    rows = [first, *rest]
    data = written(rows, delimiter, comma, trailing).encode(encoding)
    path = tmp_path_factory.mktemp("csv") / ("a.csv.gz" if zipped else "a.csv")
    path.write_bytes(gzip.compress(data) if zipped else data)
    expected = np.array([[float(f"{v:.4f}") for v in row] for row in rows], np.float32)
    table = read_table(path)
    assert table.channels == CHANNELS
    np.testing.assert_array_equal(table.values, expected)
    np.testing.assert_array_equal(from_device(path), expected)


@given(
    rows=st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=30),
    delimiter=st.sampled_from(";\t"),
    trailing=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "latin-1"]),
)
def test_a_live_stream_learns_from_its_first_lines(
    rows: list[list[float]], delimiter: str, trailing: bool, encoding: str
) -> None:
    text = written(rows, delimiter, True, trailing).encode(encoding)
    found = [reading.row for reading in from_pipe(text, CHANNELS, Complaints())]
    np.testing.assert_array_equal(found, np.array(rows, np.float32))


PREAMBLE = "# Logger 7, Halle 3\nsep=;\n\n"
UNITS = ";l/min;°C;bar;\n"
ROWS = "".join(f"{1 + i // 24:02}.05.2026 {i % 24:02}:00;{i},5;{-i};1,25;AN\n" for i in range(40))
EXPORT = "Zeitstempel;Durchfluß;Temperatur °C;Druck;Zustand\n"


@pytest.mark.parametrize("preamble", ["", PREAMBLE])
@pytest.mark.parametrize("units", ["", UNITS])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_an_export_with_preamble_units_times_and_text(
    tmp_path: Path, preamble: str, units: str, encoding: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes((preamble + EXPORT + units + ROWS).encode(encoding))
    table = read_table(path)
    assert (table.channels, table.text) == (CHANNELS, {"Zustand": "AN"})
    assert table.times is not None and set(np.diff(table.times)) == {3600.0}
    columns = ["Zeitstempel", *CHANNELS, "Zustand"]
    found = dict(zip(columns, ["", "l/min", "°C", "bar", ""], strict=True))
    assert table.units == (found if units else {})
    np.testing.assert_array_equal(table.values[:, 0], np.arange(40) + 0.5)
    assert table.first_line == 2 + preamble.count("\n") + units.count("\n")
    complaints = Complaints()
    source = LineSource(FileLines(open_text(path), "a"), "a", CHANNELS, complaints)
    times = []
    with pytest.raises(EOFError):
        while True:
            reading = source.read(None)
            assert reading is not None
            times.append(reading.time)
            np.testing.assert_array_equal(reading.row, table.values[len(times) - 1])
    assert times == table.times.tolist()
    assert (complaints.cells, complaints.rows) == (0, 0)


def test_a_header_in_a_comment_as_numpy_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    np.savetxt(path, np.arange(12).reshape(3, 4), header="made today\ntime,a,b,c", delimiter=",")
    table = read_table(path)
    assert table.channels == ("a", "b", "c")
    assert table.times is not None and table.times.tolist() == [0, 4, 8]
    source = LineSource(FileLines(open_text(path), "a"), "a", ("c", "a"), Complaints())
    np.testing.assert_array_equal(drained(source), table.values[:, [2, 0]])


def apart(header: str, row: str) -> str:
    """A recording over two midnights, a row in 20 minutes; row: with {day}, {clock} and {value}."""
    moments = [EVENING + timedelta(minutes=20 * i) for i in range(120)]
    lines = [
        row.format(day=f"{when:%d.%m.%y}", clock=f"{when:%H:%M:%S}", value=f"{i},5")
        for i, when in enumerate(moments)
    ]
    return "\n".join([header, *lines, ""])


@pytest.mark.parametrize(
    ("header", "row", "named"),
    [
        ("Datum;Uhrzeit;Druck", "{day};{clock};{value}", None),
        ("Datum;Uhrzeit;Druck", "{day};{clock};{value}", "Datum"),
        ("Datum;Uhrzeit;Druck", "{day};{clock};{value}", "Uhrzeit"),
        ("Date;Time;Druck", " {day} ; {clock} ;{value}", None),
        ("time;day;Druck", "{clock};{day};{value}", None),
        ("Nr;Datum;Uhrzeit;Druck", "1;{day};{clock};{value}", None),
        ("Druck;Uhrzeit;Zustand;Datum", "{value};{clock};;{day}", None),
        ("Datum;Druck", "{day} {clock};{value}", None),
        ("Datum;Schicht;Druck", "{day} {clock};06:00;{value}", None),
    ],
)
def test_a_date_and_a_time_of_day_apart_are_one_time(
    tmp_path: Path, header: str, row: str, named: str | None
) -> None:
    path, text = tmp_path / "a.csv", apart(header, row)
    path.write_text(text)
    table = read_table(path, Columns(named))
    assert table.times is not None and table.times[0] == EVENING.timestamp()
    assert set(np.diff(table.times)) == {1200.0}
    assert set(table.channels) <= {"Druck", "Nr", "Zustand"}
    complaints = Complaints()
    source = LineSource(FileLines(open_text(path), "a"), "a", ("Druck",), complaints)
    assert [reading.time for reading in readings(source)] == table.times.tolist()
    live = [reading.time for reading in from_pipe(text.encode(), ("Druck",), complaints)]
    assert live[1:] == table.times[1:].tolist()
    # One row tells a first column of dates; another column is known when its times go on.
    assert live[0] == (EVENING.timestamp() if header[0] in "Dt" and header[1] != "r" else None)
    assert (complaints.cells, complaints.rows) == (0, 0)


def test_days_without_a_time_of_day_are_no_time_of_day(tmp_path: Path) -> None:
    """A clock next to no date, and a date that does not go on with it, are text."""
    path = tmp_path / "a.csv"
    path.write_text("Druck;Schicht;Wartung\n" + "1,5;06:00;01.12.26\n2,5;06:00;01.12.26\n")
    table = read_table(path)
    assert (table.times, table.channels) == (None, ("Druck",))
    assert table.text == {"Schicht": "06:00", "Wartung": "01.12.26"}


def test_a_time_of_two_columns_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    text = apart("Datum;Uhrzeit;Druck", "{day};{clock};{value}")
    path.write_text(text + "04.12.26;25:00:00;1,5\n")
    place = r"line 122, column 'Datum \+ Uhrzeit': '04\.12\.26 25:00:00' is not a time"
    with pytest.raises(GruardError, match=place):
        read_table(path)
    with pytest.raises(GruardError, match="'Datum' cannot hold both the time and the label"):
        read_table(path, Columns("Uhrzeit", "Datum"))


def test_a_live_stream_learns_no_more_from_lines_that_it_can_read() -> None:
    """The times of a clock that was set are still times."""
    lines = [f"1,5;01.05.2026 10:{minute:02}\n" for minute in (0, 1, 2, 1, 0)]
    found = from_pipe(("Druck;Wann\n" + "".join(lines)).encode(), ("Druck",), Complaints())
    begin = datetime(2026, 5, 1, 10, tzinfo=timezone.utc).timestamp()
    times = [None if reading.time is None else reading.time - begin for reading in found]
    assert times == [None, 60.0, 120.0, 60.0, 0.0]


def test_a_live_stream_keeps_its_columns_whatever_its_first_lines_hold() -> None:
    """Under `;` the header would have other names than the channels."""
    found = from_pipe(b"a,b;c\n" + b"1;2\n" * 3 + b"3,4\n", ("a",), Complaints())
    np.testing.assert_array_equal([reading.row[0] for reading in found], [np.nan] * 3 + [3])


def test_a_broken_line_early_in_a_stream_spoils_itself_only() -> None:
    rows = [f"0{1 + i}.05.2026;{i},5;1;2,5;\n" for i in range(9)]
    rows[1], rows[5] = "0x.05.2026;1,5;1;2,5;\n", "7,5;\n"
    complaints, header = Complaints(), ";".join(["Wann", *CHANNELS]) + "\n"
    found = from_pipe((header + "".join(rows)).encode(), CHANNELS, complaints)
    assert [i for i, reading in enumerate(found) if reading.time is None] == [1, 5]
    values = [reading.row[0] for reading in found]
    np.testing.assert_array_equal(values, [0.5, 1.5, 2.5, 3.5, 4.5, np.nan, 6.5, 7.5, 8.5])
    assert (complaints.cells, complaints.rows) == (1, 1)


def test_a_column_that_the_bundle_wants_is_no_time(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ticks,b\n1777593610,1\n1777593620,2\n")
    assert read_table(path).channels == ("b",)
    assert read_table(path, channels=("ticks", "b")).times is None
    source = LineSource(FileLines(open_text(path), "a"), "a", ("ticks",), Complaints())
    reading = source.read(None)
    assert reading is not None and reading.time is None
    assert reading.row.tolist() == [np.float32(1777593610)]
    source.close()


def test_a_thousand_is_not_taken_for_a_decimal(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"1,234",5\n"2,345",6.5\n')
    table = read_table(path)
    assert (table.channels, table.text) == (("b",), {"a": "1,234"})
    path.write_text('a,b\n"1,25",5\n"2,345",6\n')
    assert read_table(path).values[:, 0].tolist() == [1.25, np.float32(2.345)]
    path.write_text("a;b\n1,25;5\n1.234,5;6\n")
    with pytest.raises(GruardError, match=r"line 3, column 'a': '1\.234,5' is not a number"):
        read_table(path)


def test_row_names_of_pandas(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",a\n2026-05-01 00:00:00,1\n2026-05-01 00:00:01,2\n")
    table = read_table(path)
    assert table.channels == ("a",)
    assert table.times is not None and table.times[1] - table.times[0] == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a;b\n1,234;5\n2,345;6\n", 1.234),
        ("a\tb\n1,25\t5\n2,345\t6\n", 1.25),
        ("a\tb\n0,234\t5\n2,345\t6\n", 0.234),
        ("a\tb\n1,234\t5\n2,345\t6.5\n", None),
        ("a\tb\n1,25\t5\n2,345\t6.5\n", None),
    ],
)
def test_when_a_comma_is_a_decimal_mark(tmp_path: Path, text: str, value: float | None) -> None:
    (tmp_path / "a.csv").write_text(text)
    table = read_table(tmp_path / "a.csv")
    if value is None:
        assert (table.channels, list(table.text)) == (("b",), ["a"])
    else:
        assert table.channels == ("a", "b")
        assert table.values[0].tolist() == [np.float32(value), 5]


pieces = st.sampled_from(
    [
        *(b'a time 1 1,5 0.5 , ; # " \0 \xff \xfe \xc3\xbc \xe9 01.05.2026'.split()),
        b"\t",
        b"\n",
        b" ",
    ]
)


@settings(max_examples=500)
@given(st.lists(pieces, max_size=40).map(b"".join))
def test_any_bytes_are_a_table_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    try:
        table = read_table(path)
        source = LineSource(FileLines(open_text(path), "a"), "a", table.channels, Complaints())
    except GruardError as error:
        assert str(path) in str(error)
    else:
        assert len(drained(source)) >= 1


def test_a_comment_of_any_length_above_the_header_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text(f"# {'made by a machine; ' * 20_000}\na,b\n1,2\n3,4\n")
    source = LineSource(FileLines(open_text(path), str(path)), str(path), ("a", "b"), Complaints())
    assert drained(source).tolist() == [[1, 2], [3, 4]]
    assert read_table(path).channels == ("a", "b")


ABOVE = "Logger v3\nSite;7\nStart;2026-05-01 00:00:00\n\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_a_logger_writes_above_the_header_is_left_out(tmp_path: Path, delimiter: str) -> None:
    rows = [f"2026-05-01 00:00:{i:02},{i}.5,OK\n" for i in range(60)]
    text = "time,a,state\n" + "".join(rows)
    path = tmp_path / "a.csv"
    path.write_text(ABOVE + text.replace(",", delimiter))
    table = read_table(path)
    assert (table.channels, len(table.values), table.first_line) == (("a",), 60, 6)
    complaints = Complaints()
    source = LineSource(FileLines(open_text(path), "a"), "a", ("a",), complaints)
    assert [reading.row[0] for reading in readings(source)] == table.values[:, 0].tolist()
    assert (complaints.cells, complaints.rows) == (0, 0)


def test_rows_are_not_taken_for_lines_above_a_header(tmp_path: Path) -> None:
    """A file without a header, and later with one, as of joined files, loses no row in silence."""
    path = tmp_path / "a.csv"
    path.write_text("1,2\n" * 30 + "a,b\n" + "1,2\n" * 30)
    with pytest.raises(GruardError, match="line 1: holds numbers"):
        read_table(path)


def test_a_late_day_tells_the_order_of_the_dates() -> None:
    """The rows before it were read day first, as good as any."""
    rows = [f"05/{day:02}/2026 12:00:00,1\n" for day in range(10, 16)]
    rows.append("06/01/2026 12:00:00,1\n")
    complaints = Complaints()
    source = LineSource(
        FileLines(io.StringIO("time,a\n" + "".join(rows[:3]) * 8 + "".join(rows)), "a"),
        "a", ("a",), complaints,
    )  # fmt: skip
    found = [reading.time for reading in readings(source)]
    assert (complaints.cells, complaints.rows) == (0, 0)
    first = datetime(2026, 5, 13, 12, tzinfo=timezone.utc).timestamp()
    assert found[-4:] == [first + days * 86400 for days in (0, 1, 2, 19)]
