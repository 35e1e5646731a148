"""A table in Parquet gives the values and times of the same table in CSV, or one line of error."""

import csv
import os
import random
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import Complaints, GruardError
from edge_runtime.learning.recording import read_recordings
from edge_runtime.learning.settings import find_settings
from edge_runtime.sources.csvfile import Table, read_table
from edge_runtime.sources.line_source import open_lines
from edge_runtime.sources.lines import open_text

pyarrow = pytest.importorskip("pyarrow", reason="Parquet is not tested: pip install '.[parquet]'")
from pyarrow import parquet  # noqa: E402

START = datetime(2026, 5, 1, tzinfo=timezone.utc)
ROWS = 300


def table(**more: Any) -> Any:
    """Rows of every kind that a column may have, and `more`."""
    numbers = [i * 0.37 % 5 for i in range(ROWS)]
    columns = {
        "time": pyarrow.array(
            [START + timedelta(seconds=i) for i in range(ROWS)], pyarrow.timestamp("us", "UTC")
        ),
        "a": numbers,
        "on": [None if i % 7 == 0 else i % 3 == 0 for i in range(ROWS)],
        "state": pyarrow.array([f"x{i % 5}" for i in range(ROWS)]).dictionary_encode(),
    }
    return pyarrow.table(columns | more)


def saved(folder: Path, content: Any, **options: Any) -> Path:
    path = folder / "pump.parquet"
    parquet.write_table(content, path, **options)
    return path


def refusal(path: Path) -> str:
    """The one line that refuses a file."""
    with pytest.raises(GruardError) as error:
        read_table(path)
    line = str(error.value)
    assert line.isprintable() and line.startswith(str(path))
    return line


def device_rows(path: Path, channels: tuple[str, ...]) -> tuple[list[Any], list[Any]]:
    """The times and rows that a source reads."""
    source, times, rows = open_lines(str(path), channels, None, Complaints()), [], []
    try:
        while True:
            reading = source.read(None)
            assert reading is not None
            times.append(reading.time)
            rows.append(reading.row)
    except EOFError:
        return times, rows
    finally:
        source.close()


def outcome(path: Path) -> Table | str:
    """The table, or what is wrong with it but for the file's name."""
    try:
        return read_table(path)
    except GruardError as error:
        return str(error).replace(str(path), "")


def alike(one: Table, other: Table) -> None:
    assert (one.channels, one.text) == (other.channels, other.text)
    np.testing.assert_array_equal(one.values, other.values)
    for mine, its in ((one.times, other.times), (one.labels, other.labels)):
        assert (mine is None) == (its is None)
        if mine is not None:
            np.testing.assert_array_equal(mine, its)


KINDS: dict[str, tuple[Any, Any]] = {
    "float64": (pyarrow.float64(), st.floats(width=64)),
    "float32": (pyarrow.float32(), st.floats(width=32)),
    "int64": (pyarrow.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint8": (pyarrow.uint8(), st.integers(0, 255)),
    "bool": (pyarrow.bool_(), st.booleans()),
    "text": (pyarrow.string(), st.text(st.characters(exclude_categories=["C", "Z"]), max_size=9)),
}
ZONES = {"": timezone.utc, "+02:00": timezone(timedelta(hours=2)), "UTC": timezone.utc}


@given(data=st.data(), rows=st.integers(1, 40), group=st.integers(1, 41))
def test_a_table_gives_the_same_in_parquet_and_in_csv(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rows: int, group: int
) -> None:
    folder = tmp_path_factory.mktemp("both")
    zone = data.draw(st.sampled_from(sorted(ZONES)))
    steps = data.draw(st.lists(st.integers(1, 10**10), min_size=rows, max_size=rows))
    times = [START + timedelta(microseconds=int(us)) for us in np.cumsum(steps)]
    kind = pyarrow.timestamp("us", zone or None)
    columns = {"time": pyarrow.array(times, kind)}
    cells: dict[str, list[Any]] = {
        "time": [time.astimezone(ZONES[zone]).isoformat() for time in times],
        "sure": [float(i) for i in range(rows)],
    }
    columns["sure"] = pyarrow.array(cells["sure"])
    for name in data.draw(st.lists(st.sampled_from(sorted(KINDS)), unique=True)):
        kind, each = KINDS[name]
        column = data.draw(st.lists(st.none() | each, min_size=rows, max_size=rows))
        columns[name] = pyarrow.array(column, kind)
        cells[name] = [
            "" if cell is None else int(cell) if name == "bool" else cell for cell in column
        ]
    path = saved(folder, pyarrow.table(columns), row_group_size=group)
    with (folder / "pump.csv").open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerows([list(cells), *zip(*cells.values(), strict=True)])
    one, other = outcome(path), outcome(folder / "pump.csv")
    if isinstance(one, str) or isinstance(other, str):
        assert one == other  # as where a column of text has a number below its first cell
        return
    alike(one, other)
    for mine, its in zip(
        device_rows(path, one.channels), device_rows(folder / "pump.csv", one.channels), strict=True
    ):
        np.testing.assert_array_equal(mine, its)


def test_every_kind_of_column(tmp_path: Path) -> None:
    spans = pyarrow.array([i * 86_400 * 10**9 + 1 for i in range(ROWS)])  # above 2**53
    more = {
        "span": spans.cast(pyarrow.duration("ns")),
        "exact": pyarrow.array(range(ROWS)).cast(pyarrow.decimal128(21, 2)),
        "half": pyarrow.array(np.arange(ROWS, dtype=np.float16) / 2),
        "none": pyarrow.nulls(ROWS),
        "note": ['a "b",\r\n;\tc\x00' + "d" * 200_000, *["e"] * (ROWS - 1)],
        "name\n; of a ; sensor": list(range(ROWS)),
        "label": [i < 5 for i in range(ROWS)],
    }
    found = read_table(saved(tmp_path, table(**more), row_group_size=70))
    numbers = ("a", "on", "span", "exact", "half", "none", "name ; of a ; sensor")
    assert found.channels == numbers
    rows = np.arange(ROWS)
    on = np.where(rows % 7 == 0, np.nan, rows % 3 == 0)
    expected = [
        rows * 0.37 % 5,
        on,
        86_400 * rows + 1e-9,
        rows,
        rows / 2,
        np.full(ROWS, np.nan),
        rows,
    ]
    np.testing.assert_array_equal(found.values, np.transpose(expected).astype(np.float32))
    assert found.times is not None and found.labels is not None
    assert (found.times == START.timestamp() + rows).all() and found.labels.sum() == 5
    assert found.text["state"] == "x0" and found.text["note"].startswith('a "b",  ; c d')


def test_one_column_with_holes(tmp_path: Path) -> None:
    found = read_table(saved(tmp_path, pyarrow.table({"a": [1.5, None, 2.5]})))
    np.testing.assert_array_equal(found.values[:, 0], np.float32([1.5, np.nan, 2.5]))


def test_the_index_of_pandas_comes_first_as_in_its_csv(tmp_path: Path) -> None:
    columns = {"a": [5.0, 6.0, 7.0], "__index_level_0__": [0.5, 1.0, 1.5]}
    about = '{"index_columns": ["%s", {"kind": "range"}]}'
    plain = pyarrow.table(columns)
    unnamed = plain.replace_schema_metadata({"pandas": about % "__index_level_0__"})
    assert read_table(saved(tmp_path, unnamed)).channels == ("index", "a")
    named = plain.rename_columns(["a", "t"]).replace_schema_metadata({"pandas": about % "t"})
    found = read_table(saved(tmp_path, named))
    assert found.times is not None and found.times.tolist() == [0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ([[1.0, 2.0]] * ROWS, "list<"),
        ([{"x": 1}] * ROWS, "struct<"),
        ([b"\xff\xfe"] * ROWS, "binary"),
    ],
)
def test_columns_without_a_cell_are_named(tmp_path: Path, column: list[Any], kind: str) -> None:
    line = refusal(saved(tmp_path, table(fft=column)))
    assert f"column 'fft' holds {kind}" in line and "write the file without it" in line


def test_cells_that_the_reader_refuses_are_named_as_in_csv(tmp_path: Path) -> None:
    words = [str(i) for i in range(ROWS)]
    words[123] = "abc"
    assert "line 125, column 'b': 'abc' is not a number" in refusal(saved(tmp_path, table(b=words)))


@pytest.mark.parametrize("content", [b"", b"time,a\n1,2\n", b"PAR1PAR1", b"PK\3\4", b"\0" * 99])
def test_what_is_no_parquet_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pump.parquet").write_bytes(content)
    refusal(tmp_path / "pump.parquet")


def test_no_rows_and_no_columns(tmp_path: Path) -> None:
    assert "has a header but no rows" in refusal(saved(tmp_path, table().slice(0, 0)))
    refusal(saved(tmp_path, pyarrow.table({})))


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, table(), row_group_size=100)
    at = parquet.ParquetFile(path).metadata.row_group(1).column(1).data_page_offset
    harmed = bytearray(path.read_bytes())
    harmed[at : at + 16] = b"\xff" * 16
    path.write_bytes(harmed)
    assert "pump.parquet row group 1: cannot be read (" in refusal(path)
    with pytest.raises(GruardError, match="row group 1"):
        device_rows(path, ("a", "on"))


def test_a_harmed_file_is_read_or_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path, table(), row_group_size=100).read_bytes()
    chance, refused = random.Random(7), 0
    for _ in range(100):
        harmed = bytearray(whole)
        harmed[chance.randrange(len(whole))] = chance.randrange(256)
        cut = len(whole) if chance.random() < 0.8 else chance.randrange(len(whole))
        (tmp_path / "pump.parquet").write_bytes(harmed[:cut])
        try:
            read_table(tmp_path / "pump.parquet")
        except GruardError as error:
            assert "pump.parquet" in str(error)
            refused += 1
    assert refused > 20


def test_folders_and_settings_next_to_a_file(tmp_path: Path) -> None:
    saved(tmp_path, table())
    (tmp_path / "later.csv").write_text("on,a\n1,2\n0,1\n")
    (tmp_path / "pump.toml").write_text("")
    assert find_settings(tmp_path / "pump.parquet") == tmp_path / "pump.toml"
    names = [Path(each.name).name for each in read_recordings([tmp_path]).recordings]
    assert names == ["later.csv", "pump.parquet"]


def test_the_file_is_closed(tmp_path: Path) -> None:
    path = saved(tmp_path, table())
    nested = tmp_path / "nested.parquet"
    parquet.write_table(table(fft=[[1]] * ROWS), nested)
    before = len([*Path("/proc/self/fd").iterdir()])
    text = open_text(path)
    text.readline()
    text.close()
    with pytest.raises(GruardError) as error:
        open_text(nested)
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    assert text.closed and error  # so that both were alive


def test_the_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    rows = 1_000_000
    columns = {f"c{i}": np.random.default_rng(i).random(rows) for i in range(8)}
    path = saved(tmp_path, pyarrow.table(columns), row_group_size=rows)
    code = (
        "import re, sys\n"
        "from edge_runtime.sources.lines import text_lines\n"
        "def most():\n"  # ru_maxrss would be that of the parent
        "    with open('/proc/self/status') as status:\n"
        "        return int(re.search(r'VmHWM:\\s*(\\d+)', status.read())[1])\n"
        "with text_lines(sys.argv[1]) as text:\n"
        "    first, before = next(text), most()\n"
        "    print(sum(1 for _ in text), most() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True
    )
    read, grown = map(int, done.stdout.split())
    assert read == rows and grown < 45_000  # kB, and 64,000 in the columns


def test_without_pyarrow_the_extra_is_named(tmp_path: Path) -> None:
    saved(tmp_path, table())
    (tmp_path / "pyarrow.py").write_text("raise ImportError\n")
    code = "from edge_runtime.commands.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "look", str(tmp_path / "pump.parquet")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        capture_output=True, text=True,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "pip install 'gruard[parquet]'" in line


def test_other_files_do_not_import_pyarrow(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    code = (
        "import sys; from edge_runtime.sources.csvfile import read_table; "
        "read_table(sys.argv[1]); sys.exit('pyarrow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.csv")], check=True)
