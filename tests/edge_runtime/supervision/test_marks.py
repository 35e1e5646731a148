"""The last alarms of a run, and the owner's marks on them: kept over kills and full disks."""

import fcntl
import json
import math
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faulty_worker import model_record
from gruard_command import ENVIRONMENT, PATIENCE, gruard
from hypothesis import given
from hypothesis import strategies as st
from test_mute import Alarms, muting

from edge_runtime import owner
from edge_runtime.alarm import MOST_BLAMED, Alarm, BlamedReading
from edge_runtime.alarms.log import (
    ALARMS,
    BEGUN_EVERY,
    CAPACITY,
    WRITE_EVERY,
    AlarmLog,
    PastAlarms,
    read_alarms,
)
from edge_runtime.detector.alarm import PAUSE, alarm_stretches
from edge_runtime.errors import BusyError, GruardError
from edge_runtime.marks import (
    LARGEST_MARKS,
    MARKS,
    AlarmMark,
    append_mark,
    read_marks,
)
from edge_runtime.plain import read_sealed, write_sealed
from edge_runtime.record import Sample
from edge_runtime.supervision.starts import MARKER

EPOCH = 1.7e9
BLAMED = (BlamedReading("flow", 7.25, 1.0, 3.5), BlamedReading("heat"))
ALARM = Alarm("pump", 464, 475, 9.28, 9.5, EPOCH, BLAMED, "level", over=True)
MARK = AlarmMark(ALARM, False, "cleaning", EPOCH + 60)


class Life:
    """One run after the other in one state folder, with a clock that a test moves."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.now, self.index, self.log = folder, 100.0, 0, list[str]()
        self.start()

    def start(self) -> None:
        self.keeper = AlarmLog(
            self.folder, ("a",), lambda: self.now, lambda: EPOCH + self.now, self.log.append
        )
        self.index = 0

    def rows(self, alarm: bool, count: int = 1, **fields: object) -> None:
        for _ in range(count):
            made = model_record(Sample(self.index, None, np.zeros(1, np.float32)))
            made = replace(made, alarm=alarm, **fields)  # type: ignore[arg-type]
            self.keeper.tend(self.keeper.mark(made, np.zeros(1, np.float32)))
            self.index, self.now = self.index + 1, self.now + 1

    @property
    def kept(self) -> tuple[Alarm, ...]:
        assert self.folder
        return read_alarms(self.folder)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 2 * PAUSE)), max_size=9))
def test_what_is_remembered_are_the_alarms_that_are_counted(
    tmp_path_factory: pytest.TempPathFactory, stretches: list[tuple[bool, int]]
) -> None:
    life = Life(tmp_path_factory.mktemp("state"))
    for alarm, count in stretches:
        life.rows(alarm, count)
    life.keeper.close()
    expected = alarm_stretches([alarm for alarm, count in stretches for _ in range(count)])
    assert [(each.index, each.last + 1) for each in life.kept] == expected
    assert all(each.end - each.start == each.last - each.index for each in life.kept)


def test_channels_and_kind_are_those_of_all_its_records(life: Life) -> None:
    life.rows(True, time=50.0, blamed=("flow",))
    life.rows(True, time=51.0, blamed=("heat", "flow"), kind="level")
    life.rows(True, time=52.0, blamed=tuple("abcdefgh"))
    life.keeper.close()
    (alarm,) = life.kept
    assert alarm.channels == ("flow", "heat", *"abcdef") and len(alarm.channels) == MOST_BLAMED
    assert (alarm.kind, alarm.start, alarm.end, alarm.began) == ("level", 50, 52, EPOCH + 100)


@pytest.mark.parametrize("time", [None, math.nan, math.inf, -1e300])
def test_a_record_without_a_usable_time_has_that_of_the_host(
    life: Life, time: float | None
) -> None:
    life.rows(True, time=time)
    assert life.kept[0].start == EPOCH + 100


def test_alarms_outlive_a_killed_run_and_only_the_last_are_kept(life: Life) -> None:
    for number in range(CAPACITY + 3):
        life.rows(True)
        life.rows(False, PAUSE + 1)
        if number % 3 == 0:
            life.start()
    life.keeper.close()
    began = [each.began for each in life.kept]
    assert len(began) == CAPACITY and began == sorted(began)
    assert began[-1] == EPOCH + life.now - PAUSE - 2


def test_a_new_alarm_is_written_at_once_and_a_long_one_once_a_minute(life: Life) -> None:
    life.rows(True)
    assert life.kept[0].last == 0
    life.rows(True, int(WRITE_EVERY) - 1)
    assert life.kept[0].last == 0
    life.rows(True)
    assert life.kept[0].last == WRITE_EVERY
    for _ in range(2):
        life.now += BEGUN_EVERY
        life.rows(False, PAUSE + 1)
        life.rows(True)
        assert life.kept[-1].index == life.index - 1


@pytest.mark.parametrize("text", ["", "{}", "[" * 9999, '{"alarms":[],"schema":1,"checksum":""}'])
def test_a_harmed_list_is_one_line_and_an_empty_memory(life: Life, text: str) -> None:
    assert life.folder
    (life.folder / ALARMS).write_text(text)
    life.start()
    (line,) = life.log
    assert line.endswith("alarms before this start cannot be marked") and ALARMS in line
    life.rows(True)
    assert len(life.kept) == 1


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    life = Life(None)
    life.rows(True)
    life.keeper.close()
    assert [*tmp_path.iterdir()] == []


# Marks.

_times = st.floats(-1e15, 1e15)
_texts = st.text("abc µ", max_size=9)
_alarms = st.builds(
    Alarm,
    _texts,
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    _times,
    _times,
    _times,
    st.lists(st.builds(BlamedReading, _texts, st.none() | _times), max_size=3).map(tuple),
    st.none() | _texts,
)
_marks = st.builds(AlarmMark, _alarms, st.booleans(), _texts, _times)


@given(marks=st.lists(_marks, max_size=6))
def test_what_is_marked_is_read(
    tmp_path_factory: pytest.TempPathFactory, marks: list[AlarmMark]
) -> None:
    folder = tmp_path_factory.mktemp("marks")
    for mark in marks:
        append_mark(folder, mark)
    assert read_marks(folder) == (marks, 0)


@given(data=st.data())
def test_a_mark_torn_anywhere_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("marks")
    for note in "abc":
        append_mark(folder, replace(MARK, note=note))
    file = folder / MARKS
    whole = file.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    cut = data.draw(st.integers(last, len(whole) - 1))
    file.write_bytes(whole[:cut])
    kept = 3 if cut == len(whole) - 1 else 2
    append_mark(folder, replace(MARK, note="d"))
    marks, damaged = read_marks(folder)
    assert [each.note for each in marks] == [*"abc"[:kept], "d"]
    assert damaged == (0 if kept == 3 or cut == last else 1)


def test_a_changed_mark_is_damaged(tmp_path: Path) -> None:
    append_mark(tmp_path, MARK)
    file = tmp_path / MARKS
    file.write_text(file.read_text().replace("false", "true"))
    assert read_marks(tmp_path) == ([], 1)


def test_a_full_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / MARKS
    file.write_bytes(b"\n" * LARGEST_MARKS)
    with pytest.raises(GruardError, match="is full; move it"):
        append_mark(tmp_path, MARK)
    assert file.stat().st_size == LARGEST_MARKS


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    append_mark(tmp_path, MARK)
    with (tmp_path / MARKS).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="try again"):
            append_mark(tmp_path, MARK)
    append_mark(tmp_path, MARK)
    assert read_marks(tmp_path) == ([MARK, MARK], 0)


@pytest.mark.parametrize("kind", [Path.mkdir, os.mkfifo])
def test_another_kind_of_file_is_refused(tmp_path: Path, kind) -> None:  # type: ignore[no-untyped-def]
    kind(tmp_path / MARKS)
    for call in (lambda: append_mark(tmp_path, MARK), lambda: read_marks(tmp_path)):
        with pytest.raises(GruardError, match=MARKS):
            call()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / MARKER).write_text("{}")
    older = replace(ALARM, began=EPOCH - 9000, start=1.0, end=9.0, blamed=(BlamedReading("older"),))
    write_sealed(tmp_path / ALARMS, PastAlarms((older, replace(ALARM, index=3, last=4), ALARM)))
    return tmp_path


@pytest.mark.parametrize(
    "which",
    ["last", "464", "475", "9.28", "9.4", "2023-11-14T22:13:21", "20231114T221320-464"],
)
def test_an_alarm_is_named_as_it_is_shown(folder: Path, which: str, utc: None) -> None:
    assert owner.mark(folder, which, True, "", EPOCH).alarm == ALARM
    assert owner.mark(folder, "4", True, "", EPOCH).alarm.last == 4
    assert owner.mark(folder, "2023-11-14 19:43:20", True, "", EPOCH).alarm.channels == ("older",)


@pytest.mark.parametrize("which", ["476", "1e9", "nan", "9" * 5000, "2020-01-01", "-1"])
def test_a_name_of_no_alarm_is_nothing_to_mark(folder: Path, which: str) -> None:
    with pytest.raises(owner.NothingError, match="gruard marks lists them"):
        owner.mark(folder, which, True, "", EPOCH)
    assert not (folder / MARKS).exists()


@given(which=st.text(max_size=30) | st.text("0123456789-:T. e+Z", max_size=30))
def test_any_name_is_an_alarm_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, which: str
) -> None:
    try:
        owner.find_alarm([ALARM], which)
    except GruardError as error:
        assert "\n" not in str(error) and len(str(error)) < 800


def test_the_same_mark_twice_is_one_and_another_word_is_a_line_more(folder: Path) -> None:
    for real, note in ((False, ""), (False, ""), (True, ""), (True, "a"), (True, "a")):
        owner.mark(folder, "last", real, note, EPOCH)
    assert [(m.real, m.note) for m in read_marks(folder)[0]] == [
        (False, ""), (True, ""), (True, "a")
    ]  # fmt: skip


# Whole runs, by their command.


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def listed(state: Path) -> list[dict[str, object]]:
    done = muting(state, "marks", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.long
def test_an_alarm_of_a_run_is_marked_while_it_is_on_and_after_the_run_was_killed(
    state: Path,
) -> None:
    run = Alarms(state)
    run.record(alarm=False)
    found = run.record()
    done = muting(state, "mark", "last", "false", "--note", "cleaning")
    assert done.returncode == 0 and "; model trusted" in done.stdout, done.stderr
    run.kill()
    run = Alarms(state)
    run.record(alarm=False)
    assert muting(state, "mark", str(found["index"]), "real", "--json").returncode == 0
    assert "Traceback" not in run.stop()
    (alarm,) = listed(state)
    assert (alarm["index"], alarm["mark"], alarm["note"]) == (1, "real", "")
    assert len(read_marks(state)[0]) == 2
    shown = muting(state, "marks").stdout
    assert f"{alarm['id']} " in shown and shown.endswith("; over; model trusted  real\n")


def test_the_end_of_an_alarm_that_was_marked_while_on_is_listed(state: Path) -> None:
    run = Alarms(state)
    run.record()
    assert muting(state, "mark", "last", "false").returncode == 0
    for _ in range(5):
        run.record()
    run.stop()
    (alarm,) = listed(state)
    assert (alarm["last"], alarm["mark"]) == (5, "false")
    assert read_marks(state)[0][0].alarm.last == 0


def test_marks_outlive_the_list_of_alarms(state: Path) -> None:
    run = Alarms(state)
    run.record()
    run.stop()
    assert muting(state, "mark", "last", "real").returncode == 0
    (state / ALARMS).unlink()
    with (state / MARKS).open("a") as file:
        file.write("garbage\n")
    assert [each["mark"] for each in listed(state)] == ["real"]
    assert "1 damaged marks are skipped" in muting(state, "marks").stderr


def test_a_command_on_a_full_disk_leaves_the_marks_before(state: Path) -> None:
    run = Alarms(state)
    run.record()
    run.stop()
    assert muting(state, "mark", "last", "real").returncode == 0
    before = (state / MARKS).read_bytes()
    command = [sys.executable, "-m", "edge_runtime", "mark", "last", "false", "--state", str(state)]
    for size in (len(before), len(before) + 1, 2 * len(before) - 1, 9 * len(before)):
        limit = f"import os, resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({size},) * 2)"
        execute = f"{limit}; os.execv({sys.executable!r}, {command!r})"
        done = subprocess.run(
            [sys.executable, "-B", "-c", execute], env=ENVIRONMENT, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        if done.returncode:
            assert (state / MARKS).read_bytes() == before and MARKS in done.stderr
    assert done.returncode == 0 and [m.real for m in read_marks(state)[0]] == [True, False]


def test_a_command_killed_at_any_moment_leaves_marks_that_are_read(state: Path) -> None:
    run = Alarms(state)
    run.record()
    run.stop()
    command = [sys.executable, "-m", "edge_runtime", "mark", "last", "--state", str(state)]
    for turn in range(6):  # sooner and sooner after it has begun to write
        told = read_marks(state)[0]
        process = subprocess.Popen(
            [*command, "real" if turn % 2 else "false"],
            env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        limit = time.monotonic() + PATIENCE
        while process.poll() is None and len(read_marks(state)[0]) == len(told) and turn > 2:
            assert time.monotonic() < limit
        process.kill()
        process.wait()
        marks, damaged = read_marks(state)
        assert damaged == 0 and marks[: len(told)] == told
    assert len(marks) >= 2


def test_a_full_disk_ends_no_run(state: Path) -> None:
    run = Alarms(state)
    run.record(alarm=False)
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (9, resource.RLIM_INFINITY))
    run.record()
    run.record()  # the one before is all done
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    log = run.stop()
    assert f"{ALARMS}: cannot be written" in log and "Traceback" not in log
    assert read_sealed(state / ALARMS, PastAlarms)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("mark", "last", "real"), 1, "the run remembers no alarm"),
        (("mark", "last", "maybe"), 2, "maybe"),
        (("mark", "last", "real", "--note", "a\nb"), 2, "one line of at most 200 characters"),
        (("marks",), 0, "no alarm is remembered"),
    ],
)
def test_bad_words_are_refused(state: Path, words: tuple[str, ...], code: int, told: str) -> None:
    (state / MARKER).write_text("{}")
    done = muting(state, *words)
    assert done.returncode == code and told in done.stderr and "Traceback" not in done.stderr


def test_a_run_over_a_recording_remembers_nothing(state: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b\n" + "500,2\n" * 9)
    gruard("run", "x.gruard", "--source", str(rows), "--state", str(state))
    assert not (state / ALARMS).exists()
