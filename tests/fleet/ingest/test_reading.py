"""Files that grow, are replaced, are half there or damaged: what is new is read, once."""

import gzip
from pathlib import Path

import pytest
from device_records import stream, text, write, write_journal

pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")
from edge_runtime.errors import GruardError
from fleet.ingest import reading
from fleet.ingest.batches import LONGEST_LINE
from fleet.ingest.reading import IncompleteError, Position, read_portions

RECORDS = stream([False] * 400)
LINES = text(RECORDS).splitlines()


def new(path: Path, known: Position | None = None) -> tuple[list[bytes], Position | None]:
    """The lines that are new, and the position behind them."""
    portions = list(read_portions(path, known))
    assert all(not each.lines for each in portions[-1:])
    ends = [each.end for each in portions if each.end]
    return [line for each in portions for line in each.lines], ends[0] if ends else known


@pytest.mark.parametrize("chunk", [7, 1000, 1 << 20])
def test_a_file_that_grows_is_read_from_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(reading, "_CHUNK", chunk)
    file, data = tmp_path / "a.jsonl", text(RECORDS)
    half = len(data) // 2
    file.write_bytes(data[:half])  # within a line
    first, position = new(file)
    assert first == LINES[: len(first)] and data[:half].count(b"\n") == len(first)
    assert new(file, position) == ([], position)
    file.write_bytes(data)
    rest, end = new(file, position)
    assert first + rest == LINES and end is not None and end.lines == len(LINES)
    portion = next(read_portions(file, position))
    assert portion.number == len(first) + 1, "lines are numbered as an editor does"


@pytest.mark.parametrize("after", ["shorter", "as long", "longer"])
def test_a_replaced_file_is_read_from_its_start(tmp_path: Path, after: str) -> None:
    file = write(tmp_path / "a.jsonl", RECORDS[:200])
    _, position = new(file)
    other = stream([True] * {"shorter": 50, "as long": 200, "longer": 300}[after])
    write(file, other)
    assert new(file, position)[0] == text(other).splitlines()


def test_a_compressed_file_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", RECORDS)
    lines, position = new(file)
    assert lines == LINES and new(file, position) == ([], position)
    file.write_bytes(file.read_bytes() + gzip.compress(text(RECORDS[:1])))
    assert new(file, position)[0] == [*LINES, LINES[0]]


def test_half_a_compressed_file_is_left_for_later(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", stream([False] * 40_000))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    seen = []
    with pytest.raises(IncompleteError, match="not complete yet"):
        seen += [line for portion in read_portions(file, None) for line in portion.lines]
    harmed = bytearray(whole)
    harmed[len(whole) // 2] ^= 0xFF
    file.write_bytes(harmed)
    with pytest.raises(GruardError, match=r"a\.jsonl\.gz: is damaged after line"):
        list(read_portions(file, None))
    file.write_bytes(whole)
    assert len(new(file)[0]) == 40_000


def test_an_endless_line_is_one_bad_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(LINES[0] + b"\n" + b"x" * (5 << 20) + b"\n" + LINES[1] + b"\n")
    lines, position = new(file)
    assert [len(line) > LONGEST_LINE for line in lines] == [False, True, False]
    assert len(lines[1]) < LONGEST_LINE + (1 << 20), "the rest is not kept in memory"
    assert position is not None and position.at == file.stat().st_size
    assert new(file, position) == ([], position)


def test_a_journal_is_read_from_where_it_ended(tmp_path: Path) -> None:
    folder = write_journal(tmp_path / "journal", RECORDS[:100], "run1")
    first, position = new(folder)
    assert len(first) == 100 and new(folder, position) == ([], position)
    write_journal(folder, RECORDS[100:150], "run1", first=101)
    second, later = new(folder, position)
    assert [*first, *second] == text(RECORDS[:150], "run1").splitlines()
    (folder / f"{1:020}.journal").unlink()  # the oldest segment is dropped when it is full
    (folder / f"{101:020}.journal").unlink()
    write_journal(folder, RECORDS[150:200], "run1", first=200)
    assert new(folder, later)[0] == text(RECORDS[150:200], "run1").splitlines()


@pytest.mark.parametrize("length", [10, 100, 300])
def test_the_journal_of_another_device_is_read_from_its_start(tmp_path: Path, length: int) -> None:
    folder = write_journal(tmp_path / "journal", RECORDS[:100], "run1")
    _, position = new(folder)
    write_journal(folder, stream([True] * length), "run2")
    assert len(new(folder, position)[0]) == length


def test_half_an_entry_is_left_for_later(tmp_path: Path) -> None:
    folder = write_journal(tmp_path / "journal", RECORDS[:100], "run1")
    segment = folder / f"{1:020}.journal"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-20])
    first, position = new(folder)
    assert len(first) == 99
    segment.write_bytes(whole)
    assert new(folder, position)[0] == text(RECORDS[99:100], "run1").splitlines()
