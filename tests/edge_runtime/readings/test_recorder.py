"""The recorder: what it is given is what is read back, and a disk that fails costs nothing else."""

import fcntl
import math
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import GruardError
from edge_runtime.readings import recorder as module
from edge_runtime.readings.meter import Meter
from edge_runtime.readings.parts import Row, parts_in, read_rows
from edge_runtime.readings.recorder import Recorder, check_names, open_recorder, utc_day
from edge_runtime.record import Float32
from edge_runtime.sources.source import Reading
from tests.apparatus.lock_holder import LockHolder

CAPACITY = 100_000_000
PATIENCE = 60.0  # seconds; only a failing test ever waits for them


def rows_of(folder: Path, width: int) -> list[Row]:
    report: list[str] = []
    found = [*read_rows(folder, parts_in(folder), width, report.append)]
    assert report == []
    return found


def values(*numbers: float) -> Float32:
    return np.array(numbers, np.float32)


def ignore(line: str) -> None:
    pass


float32 = st.floats(width=32)
times = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(times, float32, float32), min_size=1, max_size=30))
def test_readings_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, given_: list[tuple[float, float, float]]
) -> None:
    folder = tmp_path_factory.mktemp("bits")
    recorder = open_recorder(folder, ("a", "b"), CAPACITY, ignore)
    for now, (time, a, b) in enumerate(given_):
        recorder.add(Reading(time, values(a, b)), float(now))
    recorder.close()
    assert (recorder.written, recorder.lost) == (len(given_), 0)
    found = rows_of(folder, 2)
    assert [row.time for row in found] == [time for time, _, _ in given_]
    read = np.array([[float(c or "nan") for c in row.cells[1:]] for row in found], np.float32)
    assert np.array_equal(read, np.array([row[1:] for row in given_], np.float32), equal_nan=True)


def test_a_counter_keeps_all_its_digits(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path, ("wh", "narrow", "wide"), CAPACITY, ignore)
    recorder.add(Reading(0.0, np.array([4_294_967_295.0, np.float32(0.1), 1e300])), 0.0)
    recorder.close()
    assert [row.cells[1:] for row in rows_of(tmp_path, 3)] == [["4294967295.0", "0.1", "1e+300"]]


class Disk:
    """The part writer's side of a disk that hangs in the middle of a write, or fails."""

    size = 0

    def __init__(self) -> None:
        self.rows = 0
        self.fails: OSError | None = None
        self.may_go_on, self.reached = threading.Event(), threading.Event()
        self.may_go_on.set()

    def append(self, text: str, day: str, alarm: bool) -> None:
        self.reached.set()
        assert self.may_go_on.wait(PATIENCE)
        if self.fails:
            raise self.fails
        self.rows += text.count("\n")

    def close(self) -> None:
        pass


def recording(disk: Disk, log: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.setattr(module, "FLUSH_EVERY", 0.01)
    return Recorder(disk, [0], log)  # type: ignore[arg-type]


def test_a_disk_that_hangs_holds_up_nobody_and_its_losses_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, log = Disk(), []
    disk.may_go_on.clear()
    recorder = recording(disk, log.append, monkeypatch)
    for number in range(module.LENGTH + 7):
        recorder.add(Reading(float(number), values(1)), float(number))
    assert recorder.full and recorder.lost == 7
    disk.may_go_on.set()
    recorder.close()
    assert (disk.rows, recorder.written, recorder.lost) == (module.LENGTH, module.LENGTH, 7)
    assert any("too slow; 7 are lost" in line for line in log)


def test_a_full_disk_is_told_waited_for_and_over(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, log, told = Disk(), [], threading.Event()
    disk.fails = OSError(28, "No space left on device")

    def note(line: str) -> None:
        log.append(line)
        told.set()

    recorder = recording(disk, note, monkeypatch)
    recorder.add(Reading(1.0, values(1)), 1.0)
    assert told.wait(PATIENCE)
    assert log == [
        "readings: cannot be written (No space left on device); 1 wait in memory, 0 are lost"
    ]
    told.clear()
    disk.fails = None
    assert told.wait(PATIENCE)
    recorder.add(Reading(2.0, values(1)), 2.0)
    recorder.close()
    assert log[1:] == ["readings: are written again; 0 are lost"]
    assert (disk.rows, recorder.written, recorder.lost) == (2, 2, 0)


def test_what_a_full_disk_never_took_is_lost_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    disk.fails = OSError(28, "No space left on device")
    recorder = recording(disk, ignore, monkeypatch)
    for number in range(5):
        recorder.add(Reading(float(number), values(1)), 0.0)
    recorder.close()
    assert (recorder.written, recorder.lost) == (0, 5)


def test_a_reading_without_a_time_gets_one(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path, ("a",), CAPACITY, ignore)
    recorder._wall = lambda: 1.8e9
    for time, now in ((None, 10.0), (100.0, 11.0), (None, 13.5), (100.0, 14.0), (50.0, 15.0)):
        recorder.add(Reading(time, values(1)), now)
    recorder.close()
    found = rows_of(tmp_path, 1)
    assert [row.time for row in found] == [1.8e9, 100.0, 102.5, 100.0, 50.0]


def test_the_wall_clock_jumps_back_over_midnight(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path, ("a",), CAPACITY, ignore)
    walls = iter([1764633599.0, 1764633601.0, 1764633590.0])
    recorder._wall = lambda: next(walls)
    for now in range(3):
        recorder.add(Reading(None, values(now)), float(now))
    recorder.close()
    assert [row.time for row in rows_of(tmp_path, 1)] == [1764633599.0, 1764633601.0, 1764633590.0]
    assert [utc_day(wall) for wall in (1764633599.0, 1764633601.0, -5.0, 1e300)] == [
        "2025-12-01", "2025-12-02", "1970-01-01", "9999-12-31",
    ]  # fmt: skip


def test_two_recorders_in_one_folder_are_refused(tmp_path: Path) -> None:
    first = open_recorder(tmp_path, ("a",), CAPACITY, ignore)
    with pytest.raises(GruardError, match="another process records here"):
        open_recorder(tmp_path, ("a",), CAPACITY, ignore)
    first.close()
    open_recorder(tmp_path, ("a",), CAPACITY, ignore).close()
    with (
        LockHolder(tmp_path / "readings.lock"),
        pytest.raises(GruardError, match="another process records here"),
    ):
        open_recorder(tmp_path, ("a",), CAPACITY, ignore)


def test_a_refused_folder_is_not_locked(tmp_path: Path) -> None:
    open_recorder(tmp_path, ("a",), CAPACITY, ignore).close()
    with pytest.raises(GruardError):
        open_recorder(tmp_path, ("b",), CAPACITY, ignore)
    with (tmp_path / "readings.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_same_channels_in_another_order_go_on_and_others_are_refused(tmp_path: Path) -> None:
    first = open_recorder(tmp_path, ("a", "b"), CAPACITY, ignore)
    first.add(Reading(1.0, values(1, 2)), 1.0)
    first.close()
    second = open_recorder(tmp_path, ("b", "a"), CAPACITY, ignore)
    second.add(Reading(2.0, values(2, 1)), 2.0)
    second.close()
    assert [row.cells[1:] for row in rows_of(tmp_path, 2)] == [["1.0", "2.0"]] * 2
    with pytest.raises(GruardError, match=r"holds readings of a, b; .* lacks b and has c besides"):
        open_recorder(tmp_path, ("a", "c"), CAPACITY, ignore)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ((), "--channels"), (("a", "a"), "twice"), (("a", "Time"), "something else"),
        (("label",), "something else"), (("a\nb",), "rename"), ((" a",), "rename"),
        (("",), "rename"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_columns(names: tuple[str, ...], why: str) -> None:
    with pytest.raises(GruardError, match=why):
        check_names(names)


def test_a_channel_with_a_comma_and_quotes_comes_back(tmp_path: Path) -> None:
    from edge_runtime.readings.parts import CHANNELS_FILE, read_channels

    names = ('p, "in"', "ü")
    recorder = open_recorder(tmp_path, names, CAPACITY, ignore)
    recorder.add(Reading(1.0, values(1, 2)), 1.0)
    recorder.close()
    assert read_channels(tmp_path) == names
    (tmp_path / CHANNELS_FILE).unlink()
    assert read_channels(tmp_path) == names


def test_channels_that_cannot_be_written_again_are_those_of_the_parts(tmp_path: Path) -> None:
    for number in (1.0, 2.0):
        recorder = open_recorder(tmp_path, ("a",), CAPACITY, ignore)
        recorder.add(Reading(number, values(1)), number)
        recorder.close()
        if number == 1.0:
            (tmp_path / "channels.json").unlink()
            (tmp_path / "channels.json").mkdir()
    assert [row.time for row in rows_of(tmp_path, 1)] == [1.0, 2.0]


@pytest.mark.parametrize("parent", ["missing/pump", "file/pump"])
def test_a_folder_that_cannot_be(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GruardError, match=r"create it first|name another"):
        open_recorder(tmp_path / parent, ("a",), CAPACITY, ignore)


def test_the_meter_counts_missing_samples_and_the_rate() -> None:
    meter = Meter(None, live=False, now=0.0)
    for number in [*range(50), *range(60, 100)]:
        meter.see(Reading(1e9 + 0.5 * number, values(1)), 0.5 * number)
    meter.finish(50.0)
    assert (meter.readings, meter.missing) == (90, 10)
    assert (meter.first, meter.last) == (1e9, 1e9 + 49.5)
    assert math.isclose(meter.rate, 90 / 49.5, rel_tol=0.1)


def test_the_meter_counts_what_stays_away_from_a_live_source() -> None:
    meter = Meter(1.0, live=True, now=0.0)
    for number in range(10):
        meter.see(Reading(None, values(1)), float(number))
    meter.see(None, 20.0)
    assert meter.missing >= 8


def test_the_meter_without_times_in_a_file_says_nothing() -> None:
    meter = Meter(None, live=False, now=0.0)
    for _ in range(100):
        meter.see(Reading(None, values(1)), 0.0)
    assert (meter.readings, meter.missing, meter.rate) == (100, 0, 0.0)


def test_the_meter_counts_nothing_where_the_times_are_no_period() -> None:
    meter = Meter(None, live=False, now=0.0)
    for number in range(100):
        meter.see(Reading(1e9, values(1)), float(number))
    assert (meter.readings, meter.missing) == (100, 0)


def test_channels_that_cannot_be_written_at_all_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "channels.json").mkdir()
    for _ in range(2):  # and the folder is not locked
        with pytest.raises(GruardError, match=r"cannot be read or written \(is a directory"):
            open_recorder(tmp_path, ("a",), CAPACITY, ignore)


def test_what_a_full_folder_drops_is_told(tmp_path: Path) -> None:
    log: list[str] = []
    day = 86_400.0
    for number in range(3):
        recorder = open_recorder(tmp_path, ("a",), 1, log.append)
        recorder.add(Reading(number * day, values(1)), 0.0)
        recorder.close()
    (dropped, *_) = log
    assert dropped.startswith(f"{tmp_path}: 0 MB are full; dropped the oldest, ")


def test_a_disk_that_hangs_at_the_end_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAREWELL", 0.0)
    disk = Disk()
    disk.may_go_on.clear()
    recorder = recording(disk, ignore, monkeypatch)
    recorder.add(Reading(1.0, values(1)), 1.0)
    assert disk.reached.wait(PATIENCE)
    for number in range(5):
        recorder.add(Reading(float(number), values(1)), 1.0)
    recorder.close()
    assert recorder.lost == 6  # with the one that is being written
    disk.may_go_on.set()


def test_an_alarm_that_the_disk_did_not_take_is_marked_when_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marked: list[bool] = []

    class Marks(Disk):
        def append(self, text: str, day: str, alarm: bool) -> None:
            marked.append(alarm)
            super().append(text, day, alarm)
            self.reached.set()

    disk, told = Marks(), threading.Event()
    disk.fails = OSError(28, "No space left on device")
    recorder = recording(disk, lambda line: told.set(), monkeypatch)
    recorder.alarm()
    recorder.add(Reading(1.0, values(1)), 1.0)
    assert told.wait(PATIENCE)
    disk.fails = None
    recorder.close()
    assert marked[0] and marked[-1] and disk.rows == 1
