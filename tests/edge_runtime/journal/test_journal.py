"""The journal on a real disk: damage, size, a full and a failing disk, and who reads it."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from made_journal import PATIENCE, ROOMY, Log, frozen, journal_in

from edge_runtime.errors import GruardError
from edge_runtime.journal.frames import LARGEST, OVERHEAD, Entry, decode, encode
from edge_runtime.journal.journal import Backlog, Cursor, Journal, Reader
from edge_runtime.journal.segments import SEGMENTS, JournalDisk, Segments, entries_after
from tests.apparatus.file_limit import files_below


def entry(sequence: int) -> Entry:
    return Entry(sequence, b"message %06d" % sequence)


def numbers(disk: JournalDisk, after: int = 0) -> list[int]:
    return [found.sequence for found in entries_after(disk, after)]


# Frames.


def test_every_flipped_bit_costs_the_entry_it_hits_and_no_other() -> None:
    data = b"".join(encode(entry(sequence)) for sequence in (1, 2, 3))
    length = len(data) // 3
    for bit in range(8 * len(data)):
        spoiled = bytearray(data)
        spoiled[bit // 8] ^= 1 << bit % 8
        hit = bit // 8 // length + 1
        found = [found for found, _ in decode(bytes(spoiled))]
        assert found == [entry(sequence) for sequence in (1, 2, 3) if sequence != hit]


def test_every_cut_leaves_the_whole_entries_before_it() -> None:
    data = b"".join(encode(entry(sequence)) for sequence in (1, 2, 3))
    length = len(data) // 3
    for size in range(len(data) + 1):
        assert [found.sequence for found, _ in decode(data[:size])] == [1, 2, 3][: size // length]


def test_rubbish_full_of_beginnings_comes_to_an_end() -> None:
    assert list(decode(encode(entry(1))[:12] * 1000)) == []


# Segments.


def test_the_oldest_segments_give_way_and_the_size_is_kept(tmp_path: Path) -> None:
    capacity = SEGMENTS * 10 * (OVERHEAD + len(entry(1).message))
    disk = JournalDisk(tmp_path)
    segments = Segments(disk, capacity)
    for sequence in range(1, 1001):
        segments.append(entry(sequence))
        assert sum(disk.sizes().values()) <= capacity
    segments.close()
    assert numbers(disk) == list(range(segments.oldest, 1001))
    assert len(numbers(disk)) > 0.9 * SEGMENTS * 10


def test_a_damaged_segment_in_the_middle_costs_what_it_hit(tmp_path: Path) -> None:
    disk = JournalDisk(tmp_path)
    segments = Segments(disk, SEGMENTS * 100)
    for sequence in range(1, 31):
        segments.append(entry(sequence))
    segments.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 5
    spoiled = bytearray(files[2].read_bytes())
    spoiled[30] ^= 1
    files[2].write_bytes(bytes(spoiled))
    files[4].unlink()
    found = numbers(disk)
    missing = sorted(set(range(1, 31)) - set(found))
    gone = range(int(files[4].stem), int(files[5].stem))
    assert found == sorted(found)
    assert set(gone) < set(missing) and len(missing) == len(gone) + 1


def test_a_torn_tail_is_cut_before_the_next_entry(tmp_path: Path) -> None:
    disk = JournalDisk(tmp_path)
    segments = Segments(disk, ROOMY)
    segments.append(entry(1))
    segments.append(entry(2))
    segments.close()
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for torn in range(1, len(encode(entry(2)))):
        file.write_bytes(whole + encode(entry(3))[:torn])
        segments = Segments(disk, ROOMY)
        assert segments.newest == 2
        segments.append(entry(3))
        segments.close()
        assert file.read_bytes() == whole + encode(entry(3))


def test_strange_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.journal", "7.journal", "x.cursor.new", "README"):
        (tmp_path / name).write_text("precious")
    segments = Segments(JournalDisk(tmp_path), ROOMY)
    segments.append(entry(1))
    segments.close()
    assert numbers(JournalDisk(tmp_path)) == [1]
    assert (tmp_path / "7.journal").read_text() == "precious"


@pytest.mark.parametrize("sequence", [LARGEST + 1, 2**64 - 1])
def test_a_number_that_leaves_no_room_for_the_next_is_foreign(
    tmp_path: Path, sequence: int
) -> None:
    """An intact entry of somebody else's: today's run and later ones go on behind ours."""
    (tmp_path / f"{1:020}.journal").write_bytes(encode(entry(1)) + encode(Entry(sequence, b"x")))
    (tmp_path / f"{10**20 - 1}.journal").write_bytes(encode(Entry(sequence, b"y")))
    (tmp_path / f"{'a' * 16}.cursor").write_bytes(encode(Entry(sequence, b"z")))
    for number in (2, 3):
        journal = journal_in(tmp_path)
        journal.append(entry(number).message)
        journal.close()
        assert journal.dropped == 0
    assert numbers(JournalDisk(tmp_path)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("make", "kind"), [(os.mkfifo, "a named pipe"), (Path.mkdir, "a directory")]
)
def test_something_else_where_a_segment_belongs_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None], kind: str
) -> None:
    make(tmp_path / f"{1:020}.journal")
    log = Log()
    journal = journal_in(tmp_path, log)
    journal.append(b"alarm")
    log.wait_for(f"cannot write to {tmp_path} (is {kind}, not a file)")
    journal.close()
    assert journal.dropped == 1


# Cursors.


def test_a_cursor_is_found_again_and_a_damaged_one_says_nothing_was_taken(tmp_path: Path) -> None:
    disk = JournalDisk(tmp_path)
    assert Cursor(disk, "a").found is None
    Cursor(disk, "a").keep(7)
    Cursor(disk, "b").keep(9)
    assert (Cursor(disk, "a").found, Cursor(disk, "b").found) == (7, 9)
    for file in tmp_path.iterdir():
        spoiled = bytearray(file.read_bytes())
        spoiled[8] ^= 16
        file.write_bytes(bytes(spoiled))
    assert (Cursor(disk, "a").found, Cursor(disk, "b").found) == (0, 0)


# Memory and readers.


def test_memory_keeps_the_newest_and_a_reader_counts_what_gave_way() -> None:
    backlog = Backlog(length=5)
    reader = Reader(backlog, 0)
    backlog.append(b"1")
    assert reader.read(10) == [Entry(1, b"1")]
    for number in range(2, 10):
        backlog.append(b"%d" % number)
    assert [found.sequence for found in reader.read(3)] == [5, 6, 7]
    assert (reader.lost, reader.waiting) == (3, 2)
    assert [found.sequence for found in reader.read(3)] == [8, 9]
    assert reader.read(3) == [] and reader.lost == 3


def test_a_patient_backlog_waits_for_its_reader() -> None:
    backlog = Backlog(length=5, patience=PATIENCE)
    reader = Reader(backlog, 0)
    found: list[Entry] = []
    appended = threading.Event()
    backlog.wake_on_append(appended.set)

    def read_all() -> None:
        while len(found) < 1000:
            appended.wait()
            found.extend(reader.read(3))

    thread = threading.Thread(target=read_all)
    thread.start()
    for number in range(1000):
        backlog.append(b"%d" % number)
    thread.join(PATIENCE)
    assert [int(item.message) for item in found] == list(range(1000)) and reader.lost == 0


def test_a_patient_backlog_whose_reader_is_dead_waits_once() -> None:
    backlog = Backlog(length=2, patience=0.01)
    for number in range(1000):
        backlog.append(b"%d" % number)
    assert backlog.oldest == 999


# The journal.


def test_what_was_appended_is_there_in_the_next_run(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    for run in range(3):
        journal = journal_in(folder)
        for number in range(500):
            journal.append(b"%d %d" % (run, number))
        journal.close()
        assert journal.dropped == 0
    messages = [found.message for found in entries_after(JournalDisk(folder), 0)]
    assert messages == [b"%d %d" % (run, n) for run in range(3) for n in range(500)]
    assert numbers(JournalDisk(folder)) == list(range(1, 1501))


def test_a_reader_goes_on_where_it_was_from_disk_to_memory(tmp_path: Path) -> None:
    first = journal_in(tmp_path)
    reader, cursor = first.reader("a")
    for number in range(1, 1001):
        first.append(b"%d" % number)
    assert len(reader.read(100)) == 100
    cursor.keep(40)
    first.close()

    second = Journal(JournalDisk(tmp_path), ROOMY, print, frozen, length=10, patience=PATIENCE)
    reader, _ = second.reader("a")
    for number in range(1001, 1101):
        second.append(b"%d" % number)
    second.close()
    found: list[Entry] = []
    while entries := reader.read(7):
        found += entries
    assert [int(item.message) for item in found] == list(range(41, 1101))
    assert reader.lost == 0


def test_a_new_reader_gets_what_comes_from_now_on_also_after_a_crash(tmp_path: Path) -> None:
    first = journal_in(tmp_path)
    first.append(b"before")
    first.close()
    second = journal_in(tmp_path)
    second.reader("a")  # and it never says how far it is
    second.append(b"after")
    second.close()
    third = journal_in(tmp_path)
    reader, _ = third.reader("a")
    assert [item.message for item in reader.read(10)] == [b"after"]
    third.close()


def test_numbers_go_on_behind_a_cursor_when_the_journal_forgot(tmp_path: Path) -> None:
    Cursor(JournalDisk(tmp_path), "a").keep(
        70
    )  # sent, but the power went before they were on the disk
    journal = journal_in(tmp_path)
    reader, _ = journal.reader("a")
    journal.append(b"new")
    assert reader.read(10) == [Entry(71, b"new")] and reader.lost == 0
    journal.close()
    assert journal.dropped == 0


def test_a_reader_that_is_too_late_is_told_of(tmp_path: Path) -> None:
    log = Log()
    journal = Journal(
        JournalDisk(tmp_path), SEGMENTS * 100, log, frozen, length=10, patience=PATIENCE
    )
    reader, _ = journal.reader("the broker")
    for number in range(2000):
        journal.append(b"%d" % number)
    journal.close()
    assert "records that the broker did not take are dropped" in log.lines[0]
    read = 0
    while entries := reader.read(100):
        read += len(entries)
    assert reader.lost > 1000 and read + reader.lost == 2000


def test_two_runs_cannot_share_a_journal(tmp_path: Path) -> None:
    first = journal_in(tmp_path)
    with pytest.raises(GruardError, match="another run"):
        journal_in(tmp_path)
    first.close()
    journal_in(tmp_path).close()


@pytest.mark.parametrize(
    ("place", "text"), [("no/journal", "create it first"), ("file", "name another --journal")]
)
def test_a_place_that_cannot_be_a_journal(tmp_path: Path, place: str, text: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GruardError, match=text):
        journal_in(tmp_path / place)


def test_a_full_disk_drops_and_counts_and_no_entry_is_torn(tmp_path: Path) -> None:
    log = Log()
    with files_below(5000):
        journal = journal_in(tmp_path, log)
        for number in range(500):
            journal.append(b"message %06d" % number)
        journal.close()
    found = numbers(JournalDisk(tmp_path))
    assert found == list(range(1, len(found) + 1))
    assert journal.dropped == 500 - len(found) > 0
    assert "cannot write" in log.lines[0] and len(log.lines) == 1


class FailingDisk(JournalDisk):
    """A disk that fails at some kind of operation for as long as `broken`."""

    def __init__(self, folder: Path, operation: str) -> None:
        super().__init__(folder)
        self.operation, self.broken = operation, False

    def fail(self, operation: str) -> None:
        if self.broken and operation == self.operation:
            raise OSError(30, "Read-only file system")

    def open(self, name: str) -> int:
        self.fail("open")
        return super().open(name)

    def replace(self, name: str, data: bytes) -> None:
        self.fail("open")
        super().replace(name, data)

    def write(self, file: int, data: bytes) -> None:
        if self.broken and self.operation == "write":
            super().write(file, data[: len(data) // 2])
        self.fail("write")
        super().write(file, data)

    def sync(self, file: int) -> None:
        self.fail("sync")
        super().sync(file)


@pytest.mark.parametrize("operation", ["open", "write", "sync"])
def test_a_disk_that_fails_for_a_while_costs_nothing_that_memory_can_hold(
    tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.journal.journal._RETRY", 0.01)
    monkeypatch.setattr("edge_runtime.journal.journal.SYNC_EVERY", 0.0)
    log, disk = Log(), FailingDisk(tmp_path, operation)
    disk.broken = operation == "open"
    journal = Journal(disk, ROOMY, log, frozen)
    reader, _ = journal.reader("a")
    for number in range(1, 11):
        journal.append(b"%d" % number)
    disk.broken = True
    for number in range(11, 21):
        journal.append(b"%d" % number)
    log.wait_for("cannot write")
    sent = reader.read(100)  # the broken disk keeps nothing from who sends
    assert [int(item.message) for item in sent] == list(range(1, 21))
    disk.broken = False
    log.wait_for("writes again; 0 records are missing in it")
    journal.append(b"21")
    journal.close()
    assert journal.dropped == 0
    found = [int(item.message) for item in entries_after(disk, 0)]
    assert found == list(range(1, 22))


def test_a_folder_that_cannot_be_written_at_the_start_does_not_stop_a_run(tmp_path: Path) -> None:
    log, disk = Log(), FailingDisk(tmp_path, "open")
    disk.broken = True
    journal = Journal(disk, ROOMY, log, frozen)
    reader, _ = journal.reader("a")
    journal.append(b"alarm")
    assert [item.message for item in reader.read(10)] == [b"alarm"]
    journal.close()
    assert journal.dropped == 1
    assert "cannot keep what a has taken" in log.lines[0]


def test_it_syncs_at_most_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    class CountingDisk(JournalDisk):
        syncs = 0

        def sync(self, file: int) -> None:
            self.syncs += 1
            super().sync(file)

    disk = CountingDisk(tmp_path)
    journal = Journal(disk, ROOMY, print, frozen)
    for number in range(5000):
        journal.append(b"%d" % number)
    journal.close()
    assert disk.syncs <= 2


def test_the_last_entry_before_a_silence_is_synced_too(tmp_path: Path) -> None:
    synced = threading.Event()
    now = 1000.0

    class WatchedDisk(JournalDisk):
        def sync(self, file: int) -> None:
            super().sync(file)
            if numbers(self)[-1:] == [2]:
                synced.set()

    def clock() -> float:
        return now

    journal = Journal(WatchedDisk(tmp_path), ROOMY, print, clock)
    journal.append(b"1")
    journal.append(b"2")
    now += 2
    assert synced.wait(PATIENCE)
    journal.close()


class BadSectorDisk(JournalDisk):
    """Cannot read the files in `bad`."""

    def __init__(self, folder: Path, bad: set[str]) -> None:
        super().__init__(folder)
        self.bad = bad

    def read(self, name: str) -> bytes:
        if name in self.bad:
            raise OSError(5, "Input/output error")
        return super().read(name)


def test_a_bad_sector_costs_its_segment_and_no_number_comes_twice(tmp_path: Path) -> None:
    first = journal_in(tmp_path)
    for number in range(1, 11):
        first.append(b"%d" % number)
    first.close()
    (bad,) = [name for name in JournalDisk(tmp_path).sizes() if name.endswith(".journal")]
    disk = BadSectorDisk(tmp_path, {bad})
    second = Journal(disk, ROOMY, print, frozen)
    second.append(b"new")
    second.close()
    (found,) = entries_after(disk, 0)
    assert found.message == b"new" and found.sequence > 10 and second.dropped == 0
    assert [entry.message for entry in entries_after(JournalDisk(tmp_path), 9)] == [b"10", b"new"]


def test_a_cursor_in_a_bad_sector_says_nothing_was_taken(tmp_path: Path) -> None:
    first = journal_in(tmp_path)
    _, cursor = first.reader("a")
    first.append(b"old")
    cursor.keep(1)
    first.close()
    names = {name for name in JournalDisk(tmp_path).sizes() if not name.endswith(".journal")}
    assert names
    second = Journal(BadSectorDisk(tmp_path, names), ROOMY, print, frozen)
    reader, _ = second.reader("a")
    second.append(b"new")
    second.close()
    assert [*reader.read(10), *reader.read(10)] == [Entry(1, b"old"), Entry(2, b"new")]


def test_a_reader_of_a_folder_that_is_gone_gets_what_memory_has(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    journal = Journal(JournalDisk(folder), ROOMY, print, frozen, length=10)
    reader, _ = journal.reader("a")
    for number in range(1, 101):
        journal.append(b"%d" % number)
    journal.close()
    shutil.rmtree(folder)
    assert [int(item.message) for item in reader.read(100)] == [*range(91, 101)]
    assert reader.lost == 90
