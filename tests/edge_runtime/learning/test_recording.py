"""Recordings: read back as written, split at gaps, checked against one another."""

import gzip
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_runtime.errors import GruardError
from edge_runtime.learning.recording import (
    Dataset,
    Recording,
    bridged,
    read_recordings,
    require_rows,
    write_recording,
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def timed(*times: float, header: str = "time,a") -> str:
    return header + "\n" + "".join(f"{t},{i}\n" for i, t in enumerate(times))


@given(
    values=arrays(np.float32, (7, 2), elements=st.floats(width=32, allow_infinity=False)),
    labels=st.one_of(st.none(), arrays(np.int8, 7, elements=st.integers(0, 1))),
    period=st.one_of(st.none(), st.floats(0.001, 100)),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    values: np.ndarray,
    labels: np.ndarray | None,
    period: float | None,
) -> None:
    values[0] = 1.0  # a channel without any reading is refused
    times = None if period is None else np.arange(7) * period
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    write_recording(path, Recording("a.csv", ("x", "y"), times, values, labels, period))
    (read,) = read_recordings([path]).recordings
    assert read.channels == ("x", "y")
    np.testing.assert_array_equal(read.values, values)
    if times is None:
        assert read.times is None and read.period is None
    else:
        np.testing.assert_array_equal(read.times, times)
        assert read.period == pytest.approx(period, rel=1e-5)
    if labels is None:
        assert read.labels is None
    else:
        np.testing.assert_array_equal(read.labels, labels)


def test_a_directory_is_read_by_name_and_reordered_to_the_first(tmp_path: Path) -> None:
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"y,x\n1,2\n"))
    write(tmp_path, "a.csv", "x,y\n3,4\n")
    write(tmp_path, "README.txt", "not data")
    dataset = read_recordings([tmp_path])
    assert [Path(r.name).name for r in dataset.recordings] == ["a.csv", "b.csv.gz"]
    assert dataset.channels == ("x", "y")
    assert [r.values.tolist() for r in dataset.recordings] == [[[3, 4]], [[2, 1]]]
    assert dataset.rows == 2


def test_gaps_split_a_file_and_are_reported(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", timed(0, 1, 2, 3.4, 5, 6, 7, 8))
    dataset = read_recordings([path])
    assert [(r.first_row, r.rows) for r in dataset.recordings] == [(0, 4), (4, 4)]
    assert dataset.period == 1.0
    assert any("1 gaps in time of up to 4 rows count as" in line for line in dataset.warnings)
    path = write(tmp_path, "a.csv", timed(0, 1, 2, 3.4, 5, 6, 12, 13, 14, 15))
    warnings = read_recordings([path]).warnings
    assert [line.split(": ")[1][:14] for line in warnings] == ["1 gaps in time", "1 gaps in time"]
    assert "split the recording" in warnings[1]


@given(data=st.data())
def test_missing_rows_are_rows_without_readings(data: st.DataObject) -> None:
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=10, max_size=60)))
    kept[[0, -1]] = True
    times, values = np.arange(len(kept)) * 2.0 + 7, np.arange(len(kept), dtype=np.float32)
    whole = Recording("a", ("x",), times[kept], values[kept, None], kept[kept].astype(np.int8), 2.0)
    edges = [0, *(np.flatnonzero(np.diff(whole.times) > 3) + 1).tolist(), whole.rows]
    pieces = [whole.cut(a, b) for a, b in pairwise(edges)]
    joined = bridged(Dataset(tuple(pieces))).recordings
    # Only more than four missing rows in a row still split it.
    assert len(joined) == 1 + sum(b - a > 5 for a, b in pairwise(np.flatnonzero(kept).tolist()))
    for piece in joined:
        np.testing.assert_allclose(np.diff(piece.times), 2.0)
        rows = ((piece.times - 7) / 2).astype(int)
        np.testing.assert_array_equal(piece.values[:, 0], np.where(kept, values, np.nan)[rows])
        np.testing.assert_array_equal(piece.labels, kept[rows])


def test_only_what_follows_in_the_same_file_is_joined() -> None:
    first = Recording("a", ("x",), np.arange(3.0), np.ones((3, 1), np.float32), None, 1.0)
    later = replace(first, times=np.arange(4.0, 7))
    apart = [
        replace(later, name="b"),
        replace(first, times=np.arange(3.0) + 1),  # goes back
        replace(later, times=None),
        replace(later, times=later.times + 5),
    ]
    for other in apart:
        assert bridged(Dataset((first, other))).recordings == (first, other)
    (joined,) = bridged(Dataset((first, later))).recordings
    assert joined.rows == 7 and np.isnan(joined.values[3]).all() and joined.labels is None


@pytest.mark.parametrize("period", [0.01, 0.02, 0.1, 0.3, 1.0, 7.5, 3600.0])
def test_epoch_seconds_give_a_clean_period(tmp_path: Path, period: float) -> None:
    times = 1_777_593_600 + np.arange(900) * period
    path = tmp_path / "a.csv"
    path.write_text("time,x\n" + "".join(f"{time!r},{i % 7}\n" for i, time in enumerate(times)))
    assert read_recordings([path]).period == period


def test_files_must_agree(tmp_path: Path) -> None:
    a = write(tmp_path, "a.csv", timed(0, 1, 2))
    b = write(tmp_path, "b.csv", timed(0, 1, 2, header="time,other"))
    c = write(tmp_path, "c.csv", timed(0, 1.1, 2.2))
    d = write(tmp_path, "d.csv", timed(0, 1.04, 2.08))
    with pytest.raises(GruardError, match=r"b\.csv: missing channels: a; unexpected: other"):
        read_recordings([a, b])
    with pytest.raises(GruardError, match=r"c\.csv: the period is 1\.1 s but .*a\.csv has 1 s"):
        read_recordings([a, c])
    assert len(read_recordings([a, d]).recordings) == 2


def test_a_given_period(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", timed(0, 1, 2))
    assert read_recordings([path], period=1.02).period == 1.02
    with pytest.raises(GruardError, match=r"a\.csv: the times are 1 s apart .* given as 2 s"):
        read_recordings([path], period=2.0)
    untimed = write(tmp_path, "b.csv", "a\n1\n2\n")
    assert read_recordings([untimed]).period is None
    assert read_recordings([untimed], period=2.0).period == 2.0


@pytest.mark.parametrize("times", [(0, 1, 1, *range(2, 30)), (0, 1, 0.5, 1.5, 2.5)])
def test_a_time_that_repeats_or_goes_back_cuts_the_recording(
    tmp_path: Path, times: tuple[float, ...]
) -> None:
    dataset = read_recordings([write(tmp_path, "a.csv", "# logger 7\n" + timed(*times))])
    assert [(r.first_row, r.rows) for r in dataset.recordings] == [(0, 2), (2, len(times) - 2)]
    assert dataset.period == 1.0
    (warning,) = dataset.warnings
    assert "repeats or goes back at 1 places, first in line 5; the recording is cut" in warning


def test_rows_are_evenly_spaced_where_the_clock_is_too_coarse_for_them(tmp_path: Path) -> None:
    ticks = np.repeat(np.arange(20), 10)
    path = write(tmp_path, "a.csv", timed(*ticks.tolist(), *(ticks + 50).tolist()))
    dataset = read_recordings([path])
    assert [r.rows for r in dataset.recordings] == [200, 200]  # the gap is still one
    assert dataset.period == pytest.approx(0.1, rel=0.06)
    for recording in dataset.recordings:
        np.testing.assert_allclose(np.diff(recording.times), dataset.period, rtol=1e-4)
    assert any("clock is coarser than its rows" in line for line in dataset.warnings)


@pytest.mark.parametrize("times", [(3, 2, 1, 0), (5, 5, 5), (0, 0, 0, 1, 1, 0)])
def test_time_must_go_on_in_most_rows(tmp_path: Path, times: tuple[float, ...]) -> None:
    path = write(tmp_path, "a.csv", timed(*times))
    with pytest.raises(GruardError, match=r"a\.csv line 3: the time does not increase"):
        read_recordings([path])


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    a = write(
        tmp_path, "a.csv", "time,x,y\n0,1,1\n1,bad,2\n2,worse,-\n3\n4,1,1\nnoon,1,1\n\n6,1,1\n"
    )
    b = write(tmp_path, "b.csv", "time,x,,x\n")
    with pytest.raises(GruardError) as caught:
        read_recordings([a, b, tmp_path / "c.csv"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 8
    assert "a.csv line 3, column 'x': 'bad' is not a number" in lines[0]
    assert lines[0].endswith("(and 1 more)")
    assert "a.csv line 4, column 'y': '-' is not a number" in lines[1]
    assert "a.csv line 5: expected 3 columns" in lines[2]
    assert "a.csv line 7, column 'time': 'noon' is not a time" in lines[3]
    assert "a.csv line 8: is blank" in lines[4]
    assert "b.csv line 1: column 3 has no name" in lines[5]
    assert "b.csv line 1: more than one column is named x" in lines[6]
    assert "c.csv: no such file" in lines[7]


def test_a_text_column_of_one_file_is_no_channel_of_any(tmp_path: Path) -> None:
    a = write(tmp_path, "a.csv", "x,code\n" + "1,\n" * 30 + "2,E17\n3,\n")
    b = write(tmp_path, "b.csv", "x,code\n1,5\n2,6\n")
    dataset = read_recordings([a, b])
    assert dataset.channels == ("x",)
    assert dataset.text == {"code": "E17"}
    assert [r.rows for r in dataset.recordings] == [32, 2]


def test_units_below_the_header_are_kept(tmp_path: Path) -> None:
    text = "# pump 3\n# by hand\n\nZeit;Druck;Q\ns;bar;l/min\n0;1,5;3\n1;1,6;4\n2;1,7;5\n"
    dataset = read_recordings([write(tmp_path, "a.csv", text)])
    assert dataset.channels == ("Zeit", "Druck", "Q")  # a number is no date
    assert dataset.units == {"Zeit": "s", "Druck": "bar", "Q": "l/min"}
    assert dataset.recordings[0].values[0].tolist() == [0, 1.5, 3]


def test_there_must_be_data(tmp_path: Path) -> None:
    with pytest.raises(GruardError, match="no recording was given"):
        read_recordings([])
    with pytest.raises(GruardError, match=r"holds no \*\.csv"):
        read_recordings([tmp_path])


def test_too_few_rows(tmp_path: Path) -> None:
    dataset = read_recordings([write(tmp_path, "a.csv", "x\n1\n2\n")])
    require_rows(dataset, 2)
    with pytest.raises(GruardError, match=r"a\.csv: 2 rows are too few, at least 3 are needed"):
        require_rows(dataset, 3)
