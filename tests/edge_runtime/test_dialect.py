"""A table reads as the same values however it is written, in a recording and on the device."""

import csv
import gzip
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.sources.complaints import Complaints
from edge_runtime.sources.csvfile import open_binary, read_table
from edge_runtime.sources.line_source import LineSource
from edge_runtime.sources.lines import FileLines, StreamLines

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
    source = LineSource(FileLines(open_binary(path), str(path)), str(path), CHANNELS, Complaints())
    return drained(source)


def drained(source: LineSource) -> np.ndarray:
    read = []
    try:
        while True:
            reading = source.read(1.0)
            assert reading is not None
            read.append(reading.values)
    except EOFError:
        return np.array(read)
    finally:
        source.close()


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
    reading_fd, writing_fd = os.pipe()
    os.write(writing_fd, text)  # far less than a pipe holds
    os.close(writing_fd)
    lines = StreamLines(reading_fd, "stdin", lambda: os.close(reading_fd))
    source = LineSource(lines, "stdin", CHANNELS, Complaints())
    np.testing.assert_array_equal(drained(source), np.array(rows, np.float32))
