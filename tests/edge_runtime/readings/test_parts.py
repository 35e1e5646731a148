"""The parts of a folder of readings: what is written comes back, whatever happened to the rest."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import GruardError
from edge_runtime.journal.segments import JournalDisk
from edge_runtime.readings import parts as module
from edge_runtime.readings.part_writer import AROUND, PartWriter
from edge_runtime.readings.parts import (
    MARK,
    Member,
    Row,
    last_row,
    members,
    pack,
    part_of,
    parts_in,
    read_channels,
    read_rows,
)
from tests.apparatus.forgetful_disk import PowerCutDisk, PowerCutError

CHANNELS = ("a", "b")
DAY = "2026-12-01"
BLOCK = 4096
ROOMY = 1 << 40


class UnsyncedDisk(JournalDisk):
    """The real files without the wait for the real disk."""

    def sync(self, file: int) -> None:
        pass

    def sync_names(self) -> None:
        pass

    def replace(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)


def line(number: int) -> str:
    return f"{number}.0,{number}.000,{number * 0.5},\n"


def writer(
    folder: Path, capacity: int = ROOMY, log: list[str] | None = None, room: int = ROOMY
) -> PartWriter:
    told = [] if log is None else log
    return PartWriter(UnsyncedDisk(folder), CHANNELS, capacity, lambda: room, told.append)


def written(folder: Path, rows: int, rows_a_member: int = 3) -> Path:
    """A folder with one part: rows 0, 1, 2 … in members; the path of the part."""
    parts = writer(folder)
    for first in range(0, rows, rows_a_member):
        parts.append("".join(map(line, range(first, first + rows_a_member))), DAY, False)
    parts.close()
    return folder / f"{DAY}.000001.csv.gz"


def numbers(folder: Path, report: list[str] | None = None) -> list[int]:
    told = [] if report is None else report
    return [int(row.time) for row in read_rows(folder, parts_in(folder), 2, told.append)]


def fresh(folder: Path) -> Path:
    """An empty folder for one example of hypothesis."""
    made = folder / str(len([*folder.iterdir()]))
    made.mkdir()
    return made


def test_a_part_is_an_ordinary_gzip_file_with_a_header(tmp_path: Path) -> None:
    import gzip

    part = written(tmp_path, 6)
    lines = gzip.decompress(part.read_bytes()).decode().splitlines()
    assert lines[0] == "time,monotonic,a,b" and len(lines) == 7
    assert lines[3] == "2.0,2.000,1.0,"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("whole"), 12).read_bytes()


@given(st.data())
def test_a_part_cut_at_any_byte_gives_its_whole_members_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(whole)))
    folder = tmp_path_factory.mktemp("cut")
    (folder / f"{DAY}.000001.csv.gz").write_bytes(whole[:cut])
    ends = [member.end for member in members(whole)][1:]  # without the header's
    rows = 3 * sum(end <= cut for end in ends)
    torn = cut not in (0, *(m.end for m in members(whole)))
    report: list[str] = []
    assert numbers(folder, report) == [*range(rows)]
    assert any("unfinished" in each for each in report) == torn
    log: list[str] = []
    again = writer(folder, log=log)
    again.append(line(100), DAY, False)
    again.close()
    report.clear()
    assert numbers(folder, report) == [*range(rows), 100] and not report
    assert any("torn" in each for each in log) == torn


def test_every_single_byte_of_the_tail(tmp_path: Path, whole: bytes) -> None:
    last = [*members(whole)][-1]
    for cut in range(last.start, last.end):
        folder = fresh(tmp_path)
        (folder / f"{DAY}.000001.csv.gz").write_bytes(whole[:cut])
        assert numbers(folder) == [*range(9)]


@given(st.data())
def test_a_flipped_bit_costs_its_member_and_is_told(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    folder = tmp_path_factory.mktemp("flipped")
    harmed = bytearray(whole)
    harmed[place] ^= 1 << bit
    (folder / f"{DAY}.000001.csv.gz").write_bytes(harmed)
    hit = next(i for i, member in enumerate(members(whole)) if place < member.end)
    report: list[str] = []
    found = numbers(folder, report)
    lost = [*range(3 * (hit - 1), 3 * hit)] if hit else []
    # A bit that gzip does not look at (its file system, its speed) may change nothing.
    assert found in ([n for n in range(12) if n not in lost], [*range(12)])
    if len(found) < 12 and hit < 4:
        assert len(report) == 1 and f"000001.csv.gz: {len(lost) and ''}" in report[0]
        before = f"{lost[0] - 1}.0" if lost[0] else "the beginning"
        assert f"readings between {before} and {lost[-1] + 1}.0 are missing" in report[0]


def test_channels_are_known_where_one_of_their_places_is_damaged(tmp_path: Path) -> None:
    part = written(tmp_path, 6)
    assert read_channels(tmp_path) == CHANNELS  # by the header
    (tmp_path / "channels.json").write_text("{")
    assert read_channels(tmp_path) == CHANNELS
    data = part.read_bytes()
    part.write_bytes(data[:12] + b"?" + data[13:])
    with pytest.raises(GruardError, match="header of every part are damaged"):
        read_channels(tmp_path)


def test_a_clock_that_jumps_back_over_midnight_keeps_the_order(tmp_path: Path) -> None:
    parts = writer(tmp_path)
    days = ["2026-12-01", "2026-12-02", "2026-12-01", "2026-12-02", "2001-01-01"]
    for number, day in enumerate(days):
        parts.append(line(number), day, False)
    parts.close()
    assert [part.day for part in parts_in(tmp_path)] == days
    assert numbers(tmp_path) == [0, 1, 2, 3, 4]
    again = writer(tmp_path)
    again.append(line(5), "2001-01-01", False)
    again.close()
    assert len(parts_in(tmp_path)) == 5 and numbers(tmp_path) == [0, 1, 2, 3, 4, 5]
    newest = last_row(tmp_path, parts_in(tmp_path), 2)
    assert newest is not None and newest.time == 5.0


def test_the_oldest_go_at_the_cap(tmp_path: Path) -> None:
    capacity = 10 * BLOCK
    parts = writer(tmp_path, capacity)
    for number in range(2000):
        parts.append(line(number), DAY, False)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= capacity
    parts.close()
    found = numbers(tmp_path)
    assert 100 < len(found) < 2000 and found == [*range(found[0], 2000)]


def alarming(folder: Path, alarms: set[int], rows: int, capacity: int = 10 * BLOCK) -> list[int]:
    """The rows that are left of so many, one a second; each alarm comes with its row's member."""
    parts = writer(folder, capacity)
    for first in range(0, rows, 5):
        numbers_ = range(first, first + 5)
        parts.append("".join(map(line, numbers_)), DAY, bool(alarms & {*numbers_}))
    parts.close()
    return numbers(folder)


def test_the_minutes_around_an_alarm_outlast_the_rest(tmp_path: Path) -> None:
    found = alarming(tmp_path, {500, 501, 502}, 20_000)
    around = [*range(500 - int(AROUND), 503 + int(AROUND))]
    assert [n for n in around if n not in found] == []
    old = [n for n in found if n < 1000]
    assert old[0] >= 500 - AROUND - 15 and old[-1] <= 503 + AROUND + 15
    assert {part.alarms for part in parts_in(tmp_path)} == {True, False}


@pytest.mark.long
def test_an_alarm_keeps_what_lies_in_the_part_before_and_after(tmp_path: Path) -> None:
    """Whatever part an alarm is in, also at the beginning or the end of it."""
    for start in range(400, 700, 20):
        folder = fresh(tmp_path)
        found = {*alarming(folder, {start}, 8000, 20 * BLOCK)}
        assert {*range(start - int(AROUND), start + int(AROUND) + 1)} <= found


def test_alarms_without_end_have_a_share_of_the_cap(tmp_path: Path) -> None:
    capacity = 20 * BLOCK
    found = alarming(tmp_path, {*range(20_000)}, 20_000, capacity)
    kept = [part for part in parts_in(tmp_path) if part.alarms]
    assert 0 < len(kept) * BLOCK <= capacity // 5 + BLOCK
    assert found[-1] == 19_999 and found == sorted(found)


def test_a_part_that_was_condensed_when_the_power_went_counts_once(tmp_path: Path) -> None:
    part = written(tmp_path, 6)
    (tmp_path / f"{DAY}.000001.alarms.csv.gz").write_bytes(part.read_bytes())
    assert numbers(tmp_path) == [*range(6)]


def test_no_room_is_an_error_before_a_byte_is_written(tmp_path: Path) -> None:
    parts = writer(tmp_path, room=10)
    with pytest.raises(OSError, match="No space left"):
        parts.append(line(0), DAY, False)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0


class FailingDisk(UnsyncedDisk):
    """Writes half and fails, or loses what it wrote in the sync, while `fails`."""

    fails = ""

    def write(self, file: int, data: bytes) -> None:
        super().write(file, data[: len(data) // 2] if self.fails == "write" else data)
        if self.fails == "write":
            raise OSError(28, "No space left on device")

    def sync(self, file: int) -> None:
        if self.fails == "sync":
            raise OSError(5, "Input/output error")


@pytest.mark.parametrize("fails", ["write", "sync"])
def test_what_a_disk_did_not_take_is_written_again_and_once(tmp_path: Path, fails: str) -> None:
    disk = FailingDisk(tmp_path)
    parts = PartWriter(disk, CHANNELS, ROOMY, lambda: ROOMY, print)
    for number in range(6):
        disk.fails = fails if number in (0, 3) else ""
        if disk.fails:
            with pytest.raises(OSError):
                parts.append(line(number), DAY, False)
            disk.fails = ""
        parts.append(line(number), DAY, False)
    parts.close()
    report: list[str] = []
    assert numbers(tmp_path, report) == [*range(6)] and not report


def live(disk: PowerCutDisk, rows: int, story: list[int]) -> None:
    """Rows one by one, an alarm now and then; the story is how many `append` came back from."""
    parts = PartWriter(disk, CHANNELS, 4 * BLOCK, lambda: ROOMY, lambda line: None)
    for number in range(rows):
        # A clock that is a day further each time makes parts of a row each.
        parts.append(line(number), f"2026-12-{number % 28 + 1:02}", number % 3 == 0)
        story.append(number)


def aftermaths(rows: int) -> Iterator[tuple[PowerCutDisk, list[int]]]:
    whole = PowerCutDisk()
    live(whole, rows, [])
    for left in range(whole.done):
        disk, story = PowerCutDisk(left), []
        with contextlib.suppress(PowerCutError):
            live(disk, rows, story)
        for found in disk.aftermaths():
            yield found, story


@pytest.mark.long
def test_what_was_written_before_a_power_cut_is_there(tmp_path: Path) -> None:
    count = 0
    for found, story in aftermaths(6):
        again = PartWriter(found, CHANNELS, 4 * BLOCK, lambda: ROOMY, lambda line: None)
        again.append(line(99), "2026-12-31", False)
        folder = fresh(tmp_path)
        for name, inode in found.names.items():
            (folder / name).write_bytes(inode.data)
        there = numbers(folder)
        assert there[-1] == 99 and there == sorted({*there})
        # The cap has room for three parts and the new one; the row before may be there too.
        assert {*story[-2:]} <= {*there} <= {*range(len(story) + 1), 99}
        count += 1
    assert count > 500


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.long)])
def test_an_alarm_outlasts_a_power_cut_while_its_part_is_condensed(
    every: int, tmp_path: Path
) -> None:
    """Parts of one row, two minutes apart; the oldest give way, and the first row is an alarm."""

    def live_with_alarm(disk: PowerCutDisk) -> None:
        parts = PartWriter(disk, CHANNELS, 10 * BLOCK, lambda: ROOMY, lambda line: None)
        for number in range(13):
            parts.append(line(120 * number), f"2026-12-{number + 1:02}", number == 0)

    whole = PowerCutDisk()
    live_with_alarm(whole)
    condensed = 0
    for left in range(8, whole.done, every):
        disk = PowerCutDisk(left)
        with contextlib.suppress(PowerCutError):
            live_with_alarm(disk)
        for found in disk.aftermaths():
            folder = fresh(tmp_path)
            for name, inode in found.names.items():
                (folder / name).write_bytes(inode.data)
            condensed += any(part.alarms for part in parts_in(folder))
            assert numbers(folder)[0] == 0
    assert condensed > 100 / every


def test_garbage_that_looks_like_members_is_not_read_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each head begins a stored block of 64 kB, in which the others are."""
    looked_at = 0
    look = module._member_at

    def count(data: bytes, start: int) -> tuple[Member | None, int]:
        nonlocal looked_at
        found = look(data, start)
        looked_at += found[1]
        return found

    monkeypatch.setattr(module, "_member_at", count)
    head = pack("x")[:10]
    garbage = (head + b"\0\xff\xff\0\0") * 20_000
    assert [*members(garbage)] == []
    assert 0 < looked_at < 20 * len(garbage)
    data = b"?" * 50 + pack("1,") + head * 3 + MARK
    assert [member.text for member in members(data)] == ["1,", ""]


def test_a_member_that_decompresses_to_gigabytes_is_damage() -> None:
    assert [member.text for member in members(pack("0" * (1 << 26)) + pack("1,1,1\n"))] == [
        "1,1,1\n"
    ]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    names = ["notes.txt", "2026-12-01.csv.gz", "x.000001.csv.gz", "2026-12-01.000001.csv"]
    assert [part_of(name) for name in names] == [None] * 4
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(GruardError, match="has no readings"):
        parts_in(tmp_path)
    alarming(tmp_path, set(), 20_000)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_rows_of_another_width_are_not_given(tmp_path: Path) -> None:
    written(tmp_path, 3)
    rows = [*read_rows(tmp_path, parts_in(tmp_path), 3, print)]
    assert rows == []
    assert isinstance(next(read_rows(tmp_path, parts_in(tmp_path), 2, print)), Row)


def test_a_part_that_is_no_file_or_too_large_is_told(tmp_path: Path) -> None:
    written(tmp_path, 3)
    (tmp_path / f"{DAY}.000002.csv.gz").mkdir()
    with (tmp_path / f"{DAY}.000003.csv.gz").open("wb") as file:
        file.truncate(module.LARGEST_PART + 1)
    report: list[str] = []
    assert numbers(tmp_path, report) == [0, 1, 2]
    assert ["000002" in report[0] and "is a directory" in report[0], "is larger" in report[1]] == [
        True, True,
    ]  # fmt: skip


class BadSectorDisk(UnsyncedDisk):
    """Cannot read what is in `bad`."""

    def __init__(self, folder: Path, bad: str = "") -> None:
        super().__init__(folder)
        self.bad = {bad}

    def read(self, name: str) -> bytes:
        if name in self.bad:
            raise OSError(5, "Input/output error")
        return super().read(name)


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_a_bad_sector_costs_what_is_in_its_part_and_no_alarm_next_to_it(
    tmp_path: Path, bad: int
) -> None:
    disk = BadSectorDisk(tmp_path, f"{DAY}.{bad:06}.csv.gz")
    parts = PartWriter(disk, CHANNELS, 10 * BLOCK, lambda: ROOMY, print)
    alarm: int | None = None  # the second member of part 2
    for number in range(0, 4000, 5):
        if alarm is None and (tmp_path / f"{DAY}.000002.csv.gz").exists():
            alarm = number
        parts.append("".join(map(line, range(number, number + 5))), DAY, number == alarm)
    parts.close()
    assert alarm is not None and not (tmp_path / f"{DAY}.000002.csv.gz").exists()
    found = {*numbers(tmp_path)} & {*range(alarm, alarm + 5)}
    assert found == (set() if bad == 2 else {*range(alarm, alarm + 5)})


def test_a_last_part_that_cannot_be_read_is_left_as_it_is(tmp_path: Path) -> None:
    part = written(tmp_path, 3)
    before = part.read_bytes()
    parts = PartWriter(BadSectorDisk(tmp_path, part.name), CHANNELS, ROOMY, lambda: ROOMY, print)
    parts.append(line(3), DAY, False)
    parts.close()
    assert part.read_bytes() == before and numbers(tmp_path) == [0, 1, 2, 3]


def test_a_last_part_of_alarms_is_left_as_it_is(tmp_path: Path) -> None:
    part = written(tmp_path, 3)
    alarms = part.rename(tmp_path / f"{DAY}.000001.alarms.csv.gz")
    before = alarms.read_bytes()
    parts = writer(tmp_path)
    parts.append(line(3), DAY, False)
    parts.close()
    assert alarms.read_bytes() == before and numbers(tmp_path) == [0, 1, 2, 3]


def test_the_newest_part_stays_under_a_cap_that_nothing_fits_into(tmp_path: Path) -> None:
    parts = writer(tmp_path, capacity=1)
    for number in range(3):
        parts.append(line(number), DAY, False)
    parts.close()
    assert numbers(tmp_path) == [2]


def test_a_disk_that_fails_when_a_part_is_opened_gives_the_file_back(tmp_path: Path) -> None:
    class Disk(UnsyncedDisk):
        fails, opened = True, 0

        def open(self, name: str) -> int:
            self.opened += 1
            return super().open(name)

        def close(self, file: int) -> None:
            self.opened -= 1
            super().close(file)

        def sync_names(self) -> None:
            if self.fails:
                raise OSError(5, "Input/output error")

    disk = Disk(tmp_path)
    parts = PartWriter(disk, CHANNELS, ROOMY, lambda: ROOMY, print)
    with pytest.raises(OSError):
        parts.append(line(0), DAY, False)
    assert disk.opened == 0
    disk.fails = False
    parts.append(line(0), DAY, False)
    parts.close()
    assert disk.opened == 0 and numbers(tmp_path) == [0]


def test_bytes_at_the_end_of_a_part_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    part = written(tmp_path, 3)
    with part.open("ab") as file:
        file.write(b"rot")
    report: list[str] = []
    assert numbers(tmp_path, report) == [0, 1, 2]
    assert "3 damaged, torn or unfinished bytes" in report.pop()
    (tmp_path / f"{DAY}.000002.csv.gz").write_bytes(pack(line(3)))
    assert numbers(tmp_path, report) == [0, 1, 2, 3]
    (told,) = report
    assert "000001.csv.gz: 3 damaged bytes at" in told and told.endswith("are missing")


def test_lines_that_are_no_rows_are_passed_over(tmp_path: Path) -> None:
    text = "1.0.0,1.0,1,2\n" + line(7) + "-,,,\n.5\n"
    (tmp_path / f"{DAY}.000001.csv.gz").write_bytes(pack(text))
    assert numbers(tmp_path) == [7]
    (member,) = members(pack("1.0,one,2\n2\n"))
    assert member.monotonic() == (0.0, 0.0)


def test_the_newest_row_is_that_of_the_last_part_with_one(tmp_path: Path) -> None:
    written(tmp_path, 3)
    (tmp_path / f"{DAY}.000002.csv.gz").write_bytes(b"rot")
    newest = last_row(tmp_path, parts_in(tmp_path), 2)
    assert newest and newest.time == 2.0
    assert last_row(tmp_path, parts_in(tmp_path)[1:], 2) is None


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GruardError, match=f"{name}: cannot be read"):
        parts_in(tmp_path / name)
