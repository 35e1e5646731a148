"""Sources: nothing in the data stops a run, everything wrong is counted, nothing is batched."""

import gzip
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import GruardError
from edge_runtime.sources.csv_sources import CsvSource, GapWatch, Reading, open_source


def source(text: str, channels: tuple[str, ...] = ("a", "b")) -> CsvSource:
    return CsvSource(io.StringIO(text), "test.csv", channels)


def values(readings: list[Reading]) -> list[list[float]]:
    return [reading.values.tolist() for reading in readings]


def test_rows_come_in_the_bundles_order() -> None:
    readings = list(source("time,b,extra,a,label\n0.5,2,9,1,0\n1.5,4,9,3,1\n"))
    assert values(readings) == [[1.0, 2.0], [3.0, 4.0]]
    assert [reading.time for reading in readings] == [0.5, 1.5]
    assert readings[0].values.dtype == np.float32


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_are_recognised(delimiter: str) -> None:
    assert values(list(source("a,b\n1,2\n".replace(",", delimiter)))) == [[1.0, 2.0]]


def test_unreadable_cells_are_missing_readings_and_counted() -> None:
    rows = source("time,a,b\n0,1,oops\n1,,4\n2,x,y\nnever,5,6\n")
    readings = list(rows)
    expected = [[1, np.nan], [np.nan, 4], [np.nan, np.nan], [5, 6]]
    np.testing.assert_array_equal(np.stack([r.values for r in readings]), expected)
    assert [reading.time for reading in readings] == [0.0, 1.0, 2.0, None]
    assert (rows.bad_cells, rows.bad_rows) == (4, 0)  # an empty cell is not a bad one


def test_a_bad_label_spoils_nothing_but_is_counted() -> None:
    rows = source("a,b,label\n1,2,perhaps\n")
    assert values(list(rows)) == [[1.0, 2.0]] and rows.bad_cells == 1


@pytest.mark.parametrize("line", ["1", "1,2,3", '"1,2', "\x00", "\ufffd"])
def test_ragged_lines_are_rows_of_nothing_and_counted(line: str) -> None:
    rows = source(f"a,b\n1,2\n{line}\n3,4\n")
    readings = list(rows)
    assert len(readings) == 3 and np.isnan(readings[1].values).all()
    assert readings[2].values.tolist() == [3.0, 4.0]
    assert (rows.bad_rows, rows.bad_cells) == (1, 0)


def test_blank_lines_are_no_samples() -> None:
    assert len(list(source("a,b\n1,2\n\n  \n3,4"))) == 2


@pytest.mark.parametrize("text", ["", "a\n1\n", "time\n", "1,2\n3,4\n"])
def test_an_unusable_header_is_refused_at_once(text: str) -> None:
    with pytest.raises(GruardError, match=r"test\.csv"):
        source(text)


def test_a_reading_is_there_when_its_line_break_is() -> None:
    reading_fd, writing_fd = os.pipe()
    os.write(writing_fd, b"a,b\n")
    with os.fdopen(reading_fd, encoding="utf-8") as lines:
        rows = iter(CsvSource(lines, "pipe", ("a", "b")))
        for row in range(3):  # would block for ever if anything were read ahead
            os.write(writing_fd, b"%d,2\n" % row)
            assert next(rows).values.tolist() == [row, 2.0]
        os.close(writing_fd)
        assert list(rows) == []


def test_files_plain_and_packed(tmp_path: Path) -> None:
    plain, packed = tmp_path / "x.csv", tmp_path / "x.csv.gz"
    data = "\ufeffa,b\r\n1,2\r\n".encode() + b"3,\xff\r\n"
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data))
    for path in (plain, packed):
        with open_source(str(path), ("a", "b")) as rows:
            readings = list(rows)
        assert readings[0].values.tolist() == [1.0, 2.0] and readings[1].values[0] == 3.0
        assert rows.bad_cells == 1


def test_a_missing_file_is_the_users_to_mend(tmp_path: Path) -> None:
    with (
        pytest.raises(GruardError, match="no such file"),
        open_source(str(tmp_path / "no"), ("a",)),
    ):
        pass


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa,b\n1,\xff\n")))
    with open_source("-", ("a", "b")) as rows:
        assert next(iter(rows)).values[0] == 1.0 and rows.bad_cells == 1


def test_closed_stdin_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(GruardError, match="stdin is closed"), open_source("-", ("a",)):
        pass


def test_a_failing_device_is_the_users_to_mend() -> None:
    class Broken(io.StringIO):
        def readline(self, size: int | None = -1, /) -> str:
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().readline(size or -1)

    rows = CsvSource(Broken("a,b\n1,2\n"), "serial", ("a", "b"))
    with pytest.raises(GruardError, match="serial: reading failed"):
        next(iter(rows))


def missing(period: float | None, times: list[float | None]) -> list[int]:
    watch = GapWatch(period)
    return [watch.missing(time) for time in times]


def test_gaps_are_counted_by_the_sources_own_times() -> None:
    assert missing(1.0, [0.0, 1.0, 4.0, 5.0]) == [0, 0, 2, 0]
    assert missing(0.1, [0.0, 0.1, 0.24, 0.4]) == [0, 0, 0, 1]


def test_times_that_jitter_stand_still_or_run_back_are_no_gaps() -> None:
    assert missing(1.0, [0.0, 1.4, 1.4, 0.5, 1.9, 3.0]) == [0] * 6


def test_rows_without_a_time_still_count_as_rows() -> None:
    assert missing(1.0, [0.0, None, None, 3.0, None, 7.0]) == [0, 0, 0, 0, 0, 2]


def test_no_gap_is_seen_without_a_period() -> None:
    assert missing(None, [0.0, 1e9]) == [0, 0]
