"""The alarms of the last days outlive a run; without them it goes on all the same."""

import csv
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_model
from gruard_command import gruard
from hypothesis import given
from hypothesis import strategies as st
from test_change_over_restarts import Stream
from test_recurring_alarms import CALM, NIGHTS, history, night

from edge_runtime.plain import read_sealed, write_sealed
from edge_runtime.record import Flag
from edge_runtime.recurring_alarms import (
    CAPACITY,
    DAY,
    KEPT,
    WRITE_EVERY,
    AlarmHistory,
    AlarmStart,
    RecurringKeeper,
)

ROOT = Path(__file__).parents[3]


class Life:
    """One run after the other in one state folder, with a clock that a test moves."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.now, self.log = folder, 100.0, list[str]()
        self.start()

    def start(self) -> None:
        self.keeper = RecurringKeeper(self.folder, 1.0, None, lambda: self.now, self.log.append)

    def alarm(self, time: float) -> bool:
        """One more alarm; whether it recurs."""
        told = [self.keeper.mark(each) for each in night(time)]
        self.keeper.tend()
        return Flag.RECURRING in told[-1].flags

    @property
    def kept(self) -> AlarmHistory | None:
        assert self.folder
        return read_sealed(self.folder / KEPT, AlarmHistory)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


def test_a_run_goes_on_where_the_one_before_was_killed(life: Life) -> None:
    told = []
    for time_of_alarm in NIGHTS[:4]:
        told.append(life.alarm(time_of_alarm))
        life.now += WRITE_EVERY
        life.start()
    assert told == [False, False, True, True] and life.log == []


def test_without_a_folder_it_is_kept_in_memory_only(tmp_path: Path) -> None:
    life = Life(None)
    assert [life.alarm(each) for each in NIGHTS[:3]] == [False, False, True]
    life.keeper.close()
    assert [*tmp_path.iterdir()] == []


def test_it_is_written_once_a_minute_at_most_and_at_the_end(life: Life) -> None:
    life.alarm(NIGHTS[0])
    assert life.kept == history(NIGHTS[:1])
    life.now += WRITE_EVERY - 1
    life.alarm(NIGHTS[1])
    assert life.kept == history(NIGHTS[:1])
    life.now += 1
    life.keeper.tend()
    assert life.kept == history(NIGHTS[:2])
    life.alarm(NIGHTS[2])
    life.keeper.close()
    assert life.kept == history(NIGHTS[:3])


_starts = st.builds(
    AlarmStart,
    st.floats(-1e15, 1e15),
    st.lists(st.text("abc µ", max_size=64), min_size=1, max_size=3).map(tuple),
)


@given(starts=st.lists(_starts, max_size=CAPACITY).map(tuple))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, starts: tuple[AlarmStart, ...]
) -> None:
    file = tmp_path_factory.mktemp("kept") / KEPT
    write_sealed(file, AlarmHistory(starts))
    assert read_sealed(file, AlarmHistory) == AlarmHistory(starts)


def test_the_longest_history_of_long_names_is_read(tmp_path: Path) -> None:
    longest = AlarmHistory((AlarmStart(-1e15 + 0.1, ("µ" * 200,) * 3),) * CAPACITY)
    write_sealed(tmp_path / KEPT, longest)
    assert read_sealed(tmp_path / KEPT, AlarmHistory) == longest


@pytest.mark.parametrize("harm", [
    lambda file: file.write_text(file.read_text().replace("7200", "7300")),
    lambda file: file.write_bytes(file.read_bytes()[:40]),
    lambda file: file.write_text(""),
    lambda file: (file.unlink(), file.mkdir()),
    lambda file: (file.unlink(), os.mkfifo(file)),
])  # fmt: skip
def test_a_file_that_was_harmed_is_one_line_and_an_empty_memory(life: Life, harm) -> None:  # type: ignore[no-untyped-def]
    assert life.folder
    write_sealed(life.folder / KEPT, AlarmHistory((AlarmStart(7200.0, ("flow",)),) * 3))
    harm(life.folder / KEPT)
    life.start()
    (line,) = life.log
    assert line.endswith("; no alarm before this start is remembered") and KEPT in line
    assert [life.alarm(each) for each in NIGHTS[:3]] == [False, False, True]


def test_a_folder_that_takes_no_more_costs_one_line_and_is_tried_again(life: Life) -> None:
    assert life.folder
    moved = life.folder.with_name("away")
    life.folder.rename(moved)
    assert [life.alarm(each) for each in NIGHTS[:3]] == [False, False, True]
    assert sum("cannot be written" in line for line in life.log) == 1
    moved.rename(life.folder)
    life.now += WRITE_EVERY
    life.keeper.tend()
    assert life.kept == history(NIGHTS[:3]) and "is written again" in life.log[-1]


# Whole runs, by their command.


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder that knows of an alarm at this time of day yesterday and the day before."""
    folder = tmp_path / "state"
    folder.mkdir()
    write_sealed(folder / KEPT, history([time.time() - 2 * DAY, time.time() - DAY], "a"))
    return folder


class Alarming(Stream):
    """`gruard run` on stdin, without times."""

    def __init__(self, state: Path) -> None:
        super().__init__(state, "none@0")
        self.flags(2 * CALM)

    def alarm(self) -> list[str]:
        from gruard_command import ask

        flags: list[str] = json.loads(ask(self.process, b"500,2\n"))["flags"]
        return flags


def test_a_live_run_without_times_knows_the_alarms_of_the_run_before(state: Path) -> None:
    run = Alarming(state)
    assert run.alarm() == ["RECURRING"]
    log = run.stop()
    assert "alarms       1 (1 recurring)" in log and "Traceback" not in log
    kept = read_sealed(state / KEPT, AlarmHistory)
    assert kept and len(kept.starts) == 3 and abs(kept.starts[-1].time - time.time()) < 3600


def test_a_recording_neither_reads_nor_writes_it(state: Path, tmp_path: Path) -> None:
    rows, before = tmp_path / "rows.csv", (state / KEPT).read_bytes()
    rows.write_text("a,b\n" + "1,2\n" * 2 * CALM + "500,2\n" * 3)
    done = gruard("run", "x.gruard", "--source", str(rows), "--state", str(state))
    assert '"alarm":true' in done.stdout and "RECURRING" not in done.stdout
    assert (state / KEPT).read_bytes() == before


def test_a_disk_that_is_full_ends_no_run_and_costs_the_file_only(state: Path) -> None:
    run, before = Alarming(state), (state / KEPT).read_bytes()
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (9, resource.RLIM_INFINITY))
    assert run.alarm() == ["RECURRING"]
    assert run.flags(3) == [False] * 3
    assert (state / KEPT).read_bytes() == before and len([*state.iterdir()]) == 2
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    log = run.stop()
    assert log.count("the next start will not know which alarms recur") == 1
    assert "is written again" in log and "Traceback" not in log
    assert len((read_sealed(state / KEPT, AlarmHistory) or AlarmHistory()).starts) == 3


def test_a_damaged_file_is_one_line_and_a_run_as_ever(state: Path) -> None:
    (state / KEPT).write_text("{}")
    run = Alarming(state)
    assert run.alarm() == []
    log = run.stop()
    assert log.count("no alarm before this start is remembered") == 1 and "Traceback" not in log


@pytest.mark.long
def test_run_and_replay_of_a_recording_mark_the_same(tiny_bundle: Path, tmp_path: Path) -> None:
    recording, names = tmp_path / "nights.csv", ("time", *tiny_model.CHANNELS)
    lines = [names]
    for day in range(3):
        values = tiny_model.machine_rows(400, seed=8)
        values[300:330, 1] += 400
        lines += [(day * DAY + row, *values[row]) for row in range(len(values))]
    with recording.open("w") as file:
        csv.writer(file).writerows(lines)
    command = [sys.executable, "-m", "edge_runtime"]
    ran = subprocess.run(
        [*command, "run", tiny_bundle, "--source", recording],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    told = subprocess.run(
        [*command, "replay", tiny_bundle, recording, "--kernel", "tflite-builtin"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    rows = [*csv.DictReader(told.stdout.splitlines())]
    assert [" ".join(r["flags"]) for r in records] == [row["flags"] for row in rows]
    marked = {r["time"] // DAY for r in records if "RECURRING" in r["flags"]}
    assert marked == {2.0} and all(r["alarm"] for r in records if "RECURRING" in r["flags"])
    for text in (ran.stderr, told.stderr):
        assert " recurring)" in text
