"""The one CSV reader: every number survives, every mistake is named with its place."""

import gzip
import os
import re
import tracemalloc
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.errors import GruardError
from edge_runtime.sources import csvcell, csvfile
from edge_runtime.sources.csvfile import Table, read_table
from edge_runtime.sources.csvlayout import LOOKED_AT, channel_order, read_layout


def write(folder: Path, text: str, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(text: str, said: Columns = NOTHING_SAID) -> Table:
    """The table of a file that holds `text`."""
    with TemporaryDirectory() as folder:
        return read_table(write(Path(folder), text), said)


def fails(text: str, *parts: str, said: Columns = NOTHING_SAID) -> None:
    """One problem, whose message has the parts."""
    with pytest.raises(GruardError) as caught:
        read(text, said)
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
    table = read("\n".join(lines))
    assert table.channels == ("a", "b", "c")
    assert table.values.dtype == np.float32
    np.testing.assert_array_equal(table.values, np.array(rows, np.float32))


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
    assert read("a\n1e300\n").values.tolist() == [[np.inf]]


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
        ("01.05.26", 1_777_593_600.0),
        ("01.05.26 00:00:10,5", 1_777_593_610.5),
        ("31.12.68 23:59:59", 3_124_223_999.0),
        ("01.01.69", -31_536_000.0),
        ("31.12.16 23:59:60", 1_483_228_800.0),
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
    assert csvcell.seconds(text) == seconds


ZONES = st.sampled_from([None, timezone.utc, timezone(timedelta(hours=-9, minutes=-30))])
moments = st.datetimes(datetime(1000, 1, 1), timezones=ZONES)


@given(moments, st.sampled_from("T "), st.sampled_from(["auto", "seconds", "milliseconds"]))
def test_a_date_is_its_moment_to_the_microsecond(when: datetime, mark: str, fine: str) -> None:
    """A minute is read once and kept; the time is the same as if each were read by itself."""
    text = when.isoformat(mark, fine)
    exact = datetime.fromisoformat(text)
    moment = (exact if exact.tzinfo else exact.replace(tzinfo=timezone.utc)).timestamp()
    assert csvcell.seconds(text) == moment
    german = f"{exact:%d.%m.}{exact.year} {text[11:19]},{exact.microsecond:06}"
    if exact.tzinfo is None:
        assert csvcell.seconds(german) == moment


def test_time_is_guessed_in_the_first_column_only() -> None:
    layout = read_layout("flow,t,label", "file.csv")
    assert layout.channels == ("flow", "t")
    assert (layout.time_at, layout.name(layout.label_at)) == ((), "label")


@pytest.mark.parametrize(
    "cells", ["31.12.2026 {:02}:00", "2026-12-31 {:02}:00:00", "17775936{:02}"]
)
@pytest.mark.parametrize("first", [True, False])
def test_a_column_of_times_is_the_time_column(cells: str, first: bool) -> None:
    lines = [f"{cells.format(i)};{i}" if first else f"{i};{cells.format(i)}" for i in range(3)]
    table = read("\n".join(["Wann;Druck" if first else "Druck;Wann", *lines]))
    if not first and "." not in cells and "-" not in cells:
        assert table.times is None  # a number further right is a reading
    else:
        assert table.channels == ("Druck",)
        assert table.times is not None
        steps = np.diff(table.times)
        assert steps[0] == steps[1] > 0


def test_readings_are_no_times() -> None:
    for cells in (["1", "2"], ["1777593610", "1777593610"], ["1777593610", "5"]):
        assert read("a,b\n" + "".join(f"{cell},1\n" for cell in cells)).channels == ("a", "b")
    table = read("x,serviced\n1,2026-01-01\n2,2026-01-01\n")
    assert (table.times, table.text) == (None, {"serviced": "2026-01-01"})


@pytest.mark.parametrize(
    "text", ["32.01.2026", "1.13.2026 00:00", "13/13/2026", "2026-5", "1.1.26"]
)
def test_a_date_that_is_none_or_may_be_two(text: str) -> None:
    fails(f"t,a\n0,1\n{text},1\n", "line 3, column 't'", f"'{text}' is not a time")


def test_named_columns_win_over_guessed_ones() -> None:
    table = read("time,clock,label,a\n1,7,3,4\n", Columns("clock", "time"))
    assert table.channels == ("label", "a")
    assert table.times is not None and table.labels is not None
    assert (*table.times, *table.labels, *table.values[0]) == (7, 1, 3, 4)


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
        ("a\nx\n", ("line 2, column 'a'", "'x' is not a number")),
        ("t,a\nnoon,1\n", ("line 2, column 't'", "'noon' is not a time", "ISO 8601")),
        ("when,a\n2026-05-01,1\n2026-05-02,1\n2026-05-03x,1\n", ("line 4", "is not a time")),
        ("t,a\n,1\n", ("line 2, column 't'", "'' is not a time")),
        ("t,a\nnan,1\n", ("line 2, column 't'", "'nan' is not a time")),
        ("a,label\n1,2\n", ("line 2, column 'label'", "'2' is not a label", "0 for normal")),
        ("a,label\n1,0\n2,\n", ("line 3, column 'label'", "'' is not a label")),
        ("a,label\n1,bad\n", ("line 2, column 'label'", "'bad' is not a label")),
        ("a,b\n1,2\n\n3,4\n", ("line 3", "is blank", "remove the line")),
    ],
)
def test_mistakes_are_named_with_their_place(lines: str, parts: tuple[str, ...]) -> None:
    fails(lines, *parts)


numbers = st.one_of(
    st.floats(width=32).map(repr),
    st.integers(-(10**40), 10**40).map(str),
    st.sampled_from(["", "NA", " null ", " 7 ", "-0.0", "1e400", "nan", "-inf", "٣", "1e-50"]),
)
bad_numbers = st.sampled_from(
    ["x", "1_000", "0x1", "1.2.3", '"1,5"', "2026-05-01", "--1", '"1\n2"']
)
times = st.one_of(
    st.datetimes(datetime(1971, 1, 1)).map(str),
    st.datetimes(datetime(1971, 1, 1)).map("{:%d.%m.%y %H:%M}".format),
    st.sampled_from(["1777593610", "2016-12-31 23:59:60", "2026-05-01T00:00:10+02:00"]),
)
bad_times = st.sampled_from(["", "noon", "2026-05-01 24:00:01", "2026-05-01 12:00:60", "1_0"])


@pytest.mark.long
@pytest.mark.parametrize("block", [1, 100, csvfile._BLOCK])
@given(
    rows=st.lists(st.tuples(times, numbers, numbers), max_size=60),
    harm=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 2), bad_times, bad_numbers)),
)
def test_a_column_reads_as_its_cells_and_names_each_bad_one(
    block: int, rows: list[tuple[str, ...]], harm: list[tuple[int, int, str, str]]
) -> None:
    """Blocks of a column are read at once: exactly what the function of one cell reads."""
    cells = [["2026-05-01 00:00:00", "1.5", "2.5"]] * LOOKED_AT + [[*row] for row in rows]
    for row, column, time, number in harm:
        if row < len(rows):
            place = cells[LOOKED_AT + row] = [*cells[LOOKED_AT + row]]
            place[column] = number if column else time
    readers = (csvcell.seconds, csvcell.number, csvcell.number)
    first: dict[int, int] = {}
    counts = [0, 0, 0]
    line = 1
    for row in cells:
        line += 1 + sum(cell.count("\n") for cell in row)
        for column, cell in enumerate(row):
            if not csvcell.reads(readers[column], cell.strip('"')):
                first.setdefault(column, line)
                counts[column] += 1
    text = "".join(",".join(row) + "\n" for row in [["time", "a", "b"], *cells])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvfile, "_BLOCK", block)
        if not first:
            table = read(text)
            with np.errstate(over="ignore"):
                values = np.array([[*map(csvcell.number, row[1:])] for row in cells], np.float32)
            assert table.times is not None
            assert table.times.tolist() == [csvcell.seconds(row[0]) for row in cells]
            np.testing.assert_array_equal(table.values.view(np.uint32), values.view(np.uint32))
            return
        with pytest.raises(GruardError) as caught:
            read(text)
    place = re.compile(r"line (\d+), column '(\w+)'.*?(?:\(and (\d+) more\))?$", re.MULTILINE)
    told = place.findall(str(caught.value))
    names = ("time", "a", "b")
    found = [(int(line), names.index(name), 1 + int(more or 0)) for line, name, more in told]
    assert sorted(found) == sorted((first[i], i, counts[i]) for i in first)
    assert [line for line, *_ in found] == sorted(first.values())


def test_a_column_that_turns_out_to_be_text_is_left_out() -> None:
    head = "time,a,state\n" + "".join(f"{i},1,\n" for i in range(LOOKED_AT))
    table = read(head + f"{LOOKED_AT},2,RUN\n{LOOKED_AT + 1},3,STOP\n")
    assert (table.channels, table.text) == (("a",), {"state": "RUN"})
    assert table.values[-2:].tolist() == [[2.0], [3.0]]
    fails(head + "99,2,RUN\n99,2,5\n", "line 22, column 'state'", "'RUN' is not a number")
    with TemporaryDirectory() as folder, pytest.raises(GruardError, match="'RUN' is not a num"):
        read_table(write(Path(folder), head + "99,2,RUN\n"), channels=("a", "state"))


def test_a_quotation_mark_too_many_loses_no_rows_unseen() -> None:
    rows = "".join(f"{i},1,OK\n" for i in range(30))
    remark = read("time,a,state\n" + rows + '30,1,"two\nlines"\n31,1,OK\n')
    assert remark.times is not None and len(remark.times) == 32
    fails(f'time,a,state\n{rows}30,1,"OK\n{rows}', "line 32:", "quotation mark is not closed")
    fails('a,b\n"1,2\n' + "3,4\n" * 30, "line 2:", "remove or close it")


def test_two_columns_of_times_are_one_time_and_text() -> None:
    table = read("time,when,a\n" + "".join(f"{i},2026-05-01 00:00:{i:02},1\n" for i in range(9)))
    assert (table.channels, table.text) == (("a",), {"when": "2026-05-01 00:00:00"})
    assert table.times is not None and table.times.tolist() == list(range(9))


def test_what_is_read_at_once_is_bounded() -> None:
    row = f"1,{'x' * 100_000}\n"
    with TemporaryDirectory() as folder:
        path = write(Path(folder), "a,remark\n" + row * 200)
        tracemalloc.start()
        table = read_table(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(table.values) == 200 and peak < 8_000_000  # of 20,000,000


def test_a_file_that_cannot_be_read_on_is_told() -> None:
    with pytest.raises(GruardError, match="/proc/self/mem: reading failed"):
        read_table("/proc/self/mem")


def test_named_columns_must_be_there_and_differ() -> None:
    fails("a,b\n", "no column 'when'", "a, b", said=Columns(time="when"))
    fails("a,b\n", "no column 'bad'", said=Columns(label="bad"))
    fails("t,a\n", "'t' cannot hold both", said=Columns(label="t"))


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


def test_all_problems_of_a_file_are_told_at_once() -> None:
    rows = [f"2026-05-01 00:{i // 60:02}:{i % 60:02},{i}.5,{i}.25" for i in range(600)]
    rows[40] = rows[40].replace(",", ";")
    rows[60] = rows[60].replace("60.5", "ERR")
    rows[80] = rows[80].replace("2026-05", "2026-13")
    rows[100] = "time,a,b"
    rows[120] = ""
    rows[140] = rows[140][:-4] + "\0"
    rows[160] += ",1,2"
    rows[180] = rows[180].replace(",180.5", ',"180.5')
    rows[182] = rows[182].replace("182.5", "next but one")
    rows[400] = rows[400].replace("400.5", "text far below")
    rows[599] = rows[599][:25]
    with pytest.raises(GruardError) as caught:
        read("\n".join(["time,a,b", *rows]))
    told = str(caught.value).splitlines()
    for problem in (
        "line 42: has ';' between its cells, the header has ','",
        "line 62, column 'a': 'ERR' is not a number",
        "line 82, column 'time': '2026-13-01 00:01:20' is not a time",
        "line 102: is the header again; remove the line",
        "line 122: is blank; remove the line",
        "line 142, column 'b':",
        "line 162: expected 3 columns as in the header, got 5",
        "line 182: a quotation mark is not closed",
    ):
        assert sum(problem in line for line in told) == 1, problem
    assert len(told) == 8
    assert "(and 2 more)" in next(line for line in told if "'ERR'" in line)  # lines 184, 402
    assert "(and 1 more)" in next(line for line in told if "expected 3" in line)  # the last line


@pytest.mark.parametrize("form", ["{:%d/%m/%Y %H:%M:%S}", "{:%m/%d/%y %I:%M:%S %p}", "{:%m-%d-%Y}"])
@pytest.mark.parametrize("days", [1, 3, 20])
def test_the_order_of_a_slashed_date_is_found(form: str, days: int) -> None:
    """By a day after the 12th, or else by the order in which the dates go on."""
    moments = [datetime(2026, 5, 1) + timedelta(hours=24 * i) for i in range(days)]
    table = read("t,a\n" + "".join(f"{form.format(moment)},1\n" for moment in moments))
    assert table.times is not None
    assert table.dates == (
        "" if days == 1 else "day first" if form.startswith("{:%d") else "month first"
    )
    if days > 1:
        assert table.times.tolist() == [
            each.replace(tzinfo=timezone.utc).timestamp() for each in moments
        ]


def test_one_wrong_date_decides_no_order() -> None:
    rows = [f"{day:02}/05/2026,1\n" for day in range(1, 29)]
    rows[5] = "05/23/2026,1\n"
    with pytest.raises(GruardError, match=r"line 7, column 't': '05/23/2026' is not a time"):
        read("t,a\n" + "".join(rows))


def test_days_since_1900_are_dates() -> None:
    """46143 is 2026-05-01 in a spreadsheet; 40000.0 s are no such days."""
    days = [46143 + i * 10 / 86400 for i in range(50)]
    table = read("Zeit;a\n" + "".join(f"{day:.8f};1,5\n".replace(".", ",") for day in days),
                 Columns("Zeit"))  # fmt: skip
    start = datetime(2026, 5, 1, tzinfo=timezone.utc).timestamp()
    assert table.times is not None and table.dates == "days since 1900"
    np.testing.assert_allclose(table.times, [start + 10 * i for i in range(50)], atol=2e-3)
    assert read("t,a\n40000.0,1\n40000.1,1\n").times.tolist() == [40000.0, 40000.1]  # type: ignore[union-attr]


def test_decimals_that_only_late_rows_tell_are_read() -> None:
    """A machine that stands still writes 0;0;0."""
    still = "0;0\n" * 40
    assert read("a;b\n" + still + "0,5;1\n").values[-1].tolist() == [0.5, 1.0]
    assert read("a;b\n" + still + "0.5;1\n").values[-1].tolist() == [0.5, 1.0]
    fails("a;b\n" + still + "1.234,5;1\n", "line 42", "'1.234,5' is not a number")
    fails("a;b\n" + "0,5;1\n" + "0.5;1\n", "line 3", "'0.5' is not a number")


def test_chosen_and_ignored_columns() -> None:
    with TemporaryDirectory() as folder:
        path = write(Path(folder), "t,a,b,c\n0,1,2,3\n1,4,5,broken\n")
        assert read_table(path, ignored=("c",)).channels == ("a", "b")
        assert read_table(path, chosen=("b", "a")).channels == ("b", "a")
        with pytest.raises(GruardError, match="no column 'd'; the columns are t, a, b, c"):
            read_table(path, ignored=("d",))
        with pytest.raises(GruardError, match="no channel is left"):
            read_table(path, ignored=("a", "b", "c"))
        with pytest.raises(GruardError, match="missing channels: d"):
            read_table(path, chosen=("d",))
        with pytest.raises(GruardError, match="no channel 'd' to count with"):
            read_table(path, Columns(counters=("d",)), ignored=("c",))
