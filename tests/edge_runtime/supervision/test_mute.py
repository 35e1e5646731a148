"""Muted alarms: by whom, for how long by which clock, and over which restarts."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gruard_command import ENVIRONMENT, PATIENCE, ask, gruard, start
from hypothesis import given
from hypothesis import strategies as st
from supervised_run import Clock, Run, WatchedProcess
from test_change_over_restarts import Stream

from edge_runtime.errors import GruardError
from edge_runtime.mute import (
    KEPT,
    LONGEST,
    WORD,
    WRITE_EVERY,
    Mute,
    MuteKeeper,
    MuteLeft,
    parse_duration,
)
from edge_runtime.plain import read_sealed, write_sealed
from edge_runtime.record import Flag
from edge_runtime.supervision.starts import MARKER

HOUR = 3600.0
EPOCH = 1.7e9


@given(number=st.integers(-10, 10**7), unit=st.sampled_from("mhd"))
def test_a_duration_is_a_number_and_a_unit_within_bounds(number: int, unit: str) -> None:
    seconds = number * {"m": 60.0, "h": HOUR, "d": 24 * HOUR}[unit]
    if 60 <= seconds <= LONGEST:
        assert parse_duration(f"{number}{unit}") == seconds
    else:
        with pytest.raises(GruardError, match="write 30m, 8h or 2d, at most 30d"):
            parse_duration(f"{number}{unit}")


@given(text=st.text(max_size=40) | st.sampled_from(["8", "h", "8 h", "1.5h", "8h\n", "٨h", "1e1h"]))
def test_any_other_text_is_refused_in_one_line(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except GruardError as error:
        assert "\n" not in str(error) and len(str(error)) < 800
    else:
        assert 60 <= seconds <= LONGEST and text[-1] in "mhd" and text[:-1].isascii()


_lengths = st.floats(60.0, LONGEST)
_turns = st.lists(
    st.tuples(st.floats(0, 1e6), st.floats(-1e10, 1e10) | st.just(EPOCH)), max_size=30
)


@given(length=_lengths, turns=_turns)
def test_no_clock_makes_a_mute_longer_or_starts_it_again(
    length: float, turns: list[tuple[float, float]]
) -> None:
    state, muted = MuteLeft(Mute(EPOCH, EPOCH + length, ""), length), 0.0
    for elapsed, wall in turns:
        before, state = state, state.after(elapsed, wall)
        assert 0 <= state.left <= before.left
        muted += elapsed if state.left else 0.0
    assert muted <= length * (1 + 1e-9)


@given(length=_lengths, share=st.floats(0, 2))
def test_with_good_clocks_it_lasts_its_length(length: float, share: float) -> None:
    mute = Mute(EPOCH, EPOCH + length, "")
    state = MuteLeft(mute, length).after(share * length, EPOCH + share * length)
    assert state.left == pytest.approx(max(0.0, 1 - share) * length, abs=1e-3)


class Life:
    """One run after the other in one state folder, with clocks that a test moves."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.now, self.wall, self.log = folder, 100.0, EPOCH, list[str]()
        self.start()

    def start(self) -> None:
        self.keeper = MuteKeeper(self.folder, lambda: self.now, lambda: self.wall, self.log.append)

    def mute(self, seconds: float, reason: str = "") -> None:
        assert self.folder
        write_sealed(self.folder / WORD, Mute(self.wall, self.wall + seconds, reason))
        self.go(1.0)

    def go(self, seconds: float, jump: float = 0.0) -> bool:
        """So many seconds pass, while the wall clock jumps; whether alarms are muted then."""
        self.now += seconds
        self.wall += seconds + jump
        self.keeper.tend()
        assert self.keeper.on == (self.keeper.mute is not None)
        return self.keeper.on


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


def test_a_mute_begins_within_a_second_and_ends_by_itself(life: Life) -> None:
    assert not life.go(5.0) and life.log == []
    life.mute(8 * HOUR, "cleaning")
    assert life.keeper.mute == Mute(EPOCH + 5, EPOCH + 5 + 8 * HOUR, "cleaning")
    assert life.go(8 * HOUR - 2)
    assert not life.go(1.0) and not life.go(9 * HOUR)
    assert life.log == [
        "alarms are muted for 8 h (cleaning)", "the mute is over; alarms are no longer muted"
    ]  # fmt: skip


def test_a_second_mute_replaces_the_first_and_a_removed_one_ends(life: Life) -> None:
    life.mute(HOUR)
    life.mute(2 * HOUR)
    assert life.go(1.5 * HOUR)
    (life.folder / WORD).unlink()  # type: ignore[operator]
    assert not life.go(1.0) and life.log[-1] == "alarms are no longer muted"


def test_a_clock_that_is_set_back_makes_it_no_longer(life: Life) -> None:
    life.mute(8 * HOUR)
    assert life.go(4 * HOUR, jump=-40 * HOUR)
    assert life.go(3.9 * HOUR) and not life.go(0.2 * HOUR)
    life.start()
    assert not life.go(1.0)  # although the wall clock is before its end


def test_a_clock_that_is_set_forward_ends_it_for_good(life: Life) -> None:
    life.mute(8 * HOUR)
    assert not life.go(1.0, jump=9 * HOUR)
    assert not life.go(1.0, jump=-9 * HOUR)
    life.start()
    assert not life.go(1.0)


@pytest.mark.parametrize("orderly", [True, False])
def test_a_restart_knows_what_is_left_whatever_its_clock_says(life: Life, orderly: bool) -> None:
    life.mute(2 * HOUR)
    life.go(HOUR)
    if orderly:
        life.keeper.close()
    life.wall = 0.0  # a board without a clock, in 1970
    life.start()
    assert life.keeper.on and life.go(0.9 * HOUR)
    assert not life.go(0.2 * HOUR + (0 if orderly else WRITE_EVERY))


def test_a_mute_that_ended_while_no_run_was_there_is_over(life: Life) -> None:
    life.mute(HOUR)
    life.now, life.wall = 3.0, life.wall + 2 * HOUR
    life.start()
    assert not life.keeper.on and not life.go(1.0)


def test_one_that_goes_on_is_written_seldom(life: Life) -> None:
    life.mute(8 * HOUR)
    file = life.folder / KEPT  # type: ignore[operator]
    written = set()
    for _ in range(1200):
        life.go(1.0)
        written.add(file.read_bytes())
    assert 2 <= len(written) <= 3


@pytest.mark.parametrize("harm", [
    lambda file: file.write_text(file.read_text().replace("17", "18", 1)),
    lambda file: file.write_bytes(file.read_bytes()[:40]),
    lambda file: file.write_text(""),
    lambda file: write_sealed(file, Mute(EPOCH, EPOCH + LONGEST + 1, "")),
    lambda file: write_sealed(file, Mute(EPOCH, EPOCH - 1, "")),
    lambda file: (file.unlink(), file.mkdir()),
    lambda file: (file.unlink(), os.mkfifo(file)),
])  # fmt: skip
def test_a_harmed_word_mutes_nothing_and_is_one_line(life: Life, harm) -> None:  # type: ignore[no-untyped-def]
    life.mute(HOUR)
    life.log.clear()
    harm(life.folder / WORD)  # type: ignore[operator]
    assert not life.go(1.0) and not life.go(1.0)
    first, *rest = life.log
    assert WORD in first and "run gruard mute again" in first
    assert rest == ["alarms are no longer muted"]


def test_a_harmed_count_is_one_line_and_the_mute_holds(life: Life) -> None:
    life.mute(HOUR)
    (life.folder / KEPT).write_text("{}")  # type: ignore[operator]
    life.start()
    assert life.keeper.on
    assert sum("a mute counts from this start" in line for line in life.log) == 1


def test_a_count_that_cannot_be_written_costs_a_line_and_is_tried_again(life: Life) -> None:
    (life.folder / KEPT).mkdir()  # type: ignore[operator]
    life.mute(2 * HOUR)
    assert life.go(WRITE_EVERY) and sum("cannot be written" in line for line in life.log) == 2
    (life.folder / KEPT).rmdir()  # type: ignore[operator]
    life.keeper.close()
    assert "is written again" in life.log[-1]


def test_a_folder_that_is_gone_mutes_nothing(life: Life) -> None:
    life.mute(HOUR)
    (life.folder / WORD).unlink()  # type: ignore[operator]
    (life.folder / KEPT).unlink()  # type: ignore[operator]
    life.folder.rmdir()  # type: ignore[union-attr]
    assert not life.go(WRITE_EVERY)
    life.keeper.close()


def test_without_a_folder_nothing_is_muted() -> None:
    assert not Life(None).go(1.0)


# Whole runs, with clocks that jump.


@pytest.mark.parametrize(("jump", "muted"), [(0.0, 5), (-99 * HOUR, 5), (9 * HOUR, 3)])
def test_a_run_mutes_so_many_hours_whatever_its_wall_clock_does(
    tmp_path: Path, jump: float, muted: int
) -> None:
    clock, wall = Clock(), {"jump": 0.0}

    def before(row: int) -> None:
        clock.now += HOUR
        wall["jump"] = jump if row >= 3 else 0.0

    def now() -> float:
        return EPOCH + clock.now + wall["jump"]

    write_sealed(tmp_path / WORD, Mute(now(), now() + 5.5 * HOUR, ""))
    keeper = MuteKeeper(tmp_path, clock, now, print)
    run = Run(
        WatchedProcess("none@0"), rows=12, values=[500.0] * 12, before=before, clock=clock,
        mutes=keeper,
    )  # fmt: skip
    flagged = [Flag.MUTED in record.flags for record in run()]
    # The run looks after each record: the one of a row is muted if it was so the row before.
    assert flagged == [True] * (muted + 1) + [False] * (11 - muted)
    assert all(record.alarm for record in run.records)
    kept = read_sealed(tmp_path / KEPT, MuteLeft)
    assert kept and kept.left == 0


def test_what_is_left_at_the_end_of_a_run_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    write_sealed(tmp_path / WORD, Mute(EPOCH, EPOCH + HOUR, ""))
    keeper = MuteKeeper(tmp_path, clock, lambda: EPOCH, print)

    def before(row: int) -> None:
        clock.now += 10.0

    Run(WatchedProcess("none@0"), rows=5, before=before, clock=clock, mutes=keeper)()
    kept = read_sealed(tmp_path / KEPT, MuteLeft)
    assert kept and kept.left == HOUR - 50


# Whole runs, by their command.


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


class Alarms(Stream):
    """`gruard run` on stdin, one row in alarm after the other."""

    def __init__(self, state: Path) -> None:
        super().__init__(state, "none@0")

    def record(self, alarm: bool = True) -> dict:  # type: ignore[type-arg]
        found = json.loads(ask(self.process, b"500,2\n" if alarm else b"1,2\n"))
        assert found["alarm"] is alarm
        return found  # type: ignore[no-any-return]

    def until_muted(self, muted: bool) -> None:
        limit = time.monotonic() + PATIENCE
        while ("MUTED" in self.record()["flags"]) is not muted:
            assert time.monotonic() < limit


def muting(state: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return gruard(words[0], "--state", str(state), *words[1:])


@pytest.mark.long
def test_the_owners_word_reaches_the_run_and_outlives_it(state: Path) -> None:
    run = Alarms(state)
    assert "MUTED" not in run.record()["flags"]
    done = muting(state, "mute", "8h", "--reason", "cleaning")
    assert done.returncode == 0 and "alarms are muted until" in done.stdout, done.stderr
    run.until_muted(True)
    assert "MUTED" not in run.record(alarm=False)["flags"]
    log = run.kill()
    assert "alarms are muted for 8 h (cleaning)" in log and "Traceback" not in log
    run = Alarms(state)
    assert "MUTED" in run.record()["flags"]
    undone = muting(state, "unmute", "--json")
    assert undone.returncode == 0 and json.loads(undone.stdout)["muted"] is False
    run.until_muted(False)
    assert "alarms are no longer muted" in run.stop()
    again = muting(state, "unmute")
    assert again.returncode == 1 and "alarms are not muted" in again.stderr


def test_a_mute_while_no_run_is_there_waits_for_the_next(state: Path) -> None:
    Alarms(state).stop()
    told = json.loads(muting(state, "mute", "30m", "--json").stdout)
    assert told["muted"] and told["ends"] - told["started"] == 1800
    run = Alarms(state)
    assert "MUTED" in run.record()["flags"]
    run.stop()


def test_a_command_on_a_full_disk_mutes_or_says_so(state: Path) -> None:
    run = Alarms(state)
    run.record()
    command = [sys.executable, "-m", "edge_runtime", "mute", "8h", "--state", str(state)]
    for size in (0, 50, 150, 1000):
        limit = f"import os, resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({size},) * 2)"
        execute = f"{limit}; os.execv({sys.executable!r}, {command!r})"
        done = subprocess.run(
            [sys.executable, "-B", "-c", execute], env=ENVIRONMENT, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        assert (done.returncode == 0) is (state / WORD).is_file() is (size == 1000), done.stderr
        assert [*state.glob(".*")] == []
    run.until_muted(True)
    assert "Traceback" not in run.stop()


@pytest.mark.parametrize("bytes_written", [0, 60])
def test_a_command_killed_while_writing_leaves_the_mute_before(
    state: Path, bytes_written: int
) -> None:
    run = Alarms(state)
    run.record()
    assert muting(state, "mute", "8h").returncode == 0
    run.until_muted(True)
    torn = (state / WORD).read_bytes()[:bytes_written]
    (state / f".{WORD}.99999").write_bytes(torn)  # what a killed writer leaves behind
    assert "MUTED" in run.record()["flags"]
    run.kill()
    run = Alarms(state)
    assert "MUTED" in run.record()["flags"]
    assert "Traceback" not in run.stop()


@pytest.mark.long
def test_a_status_file_tells_of_the_mute_and_the_exit_code_is_that_of_no_alarm(
    state: Path, tmp_path: Path
) -> None:
    file = tmp_path / "status.json"
    run = Alarms(state)
    run.stop()
    assert muting(state, "mute", "8h", "--reason", "cleaning").returncode == 0
    process = start(
        "run", "x.gruard", "--source", "-", "--state", str(state), "--status", str(file)
    )
    ask(process, b"a,b\n")
    limit, told = time.monotonic() + PATIENCE, {}
    while told.get("state") != "muted":
        assert time.monotonic() < limit, told
        ask(process, b"500,2\n")
        told = json.loads(gruard("status", str(file), "--json").stdout)
    assert told["snapshot"]["mute"]["reason"] == "cleaning"
    shown = gruard("status", str(file))
    assert shown.returncode in (0, 3) and "muted        until " in shown.stdout
    assert "(cleaning)" in shown.stdout.splitlines()[0]
    process.communicate(timeout=PATIENCE)


def test_a_recording_is_never_muted(state: Path, tmp_path: Path) -> None:
    (state / MARKER).write_text("{}")
    assert muting(state, "mute", "8h").returncode == 0
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b\n" + "500,2\n" * 9)
    done = gruard("run", "x.gruard", "--source", str(rows), "--state", str(state))
    assert done.stdout.count('"alarm":true') == 9 and "MUTED" not in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("mute", "8 hours"), "write 30m, 8h or 2d, at most 30d"),
        (("mute", "31d"), "at most 30d"),
        (("mute", "8h", "--reason", "a\nb"), "one line of at most 200 characters"),
        (("mute", "8h"), "no run keeps its state here"),
        (("unmute",), "no run keeps its state here"),
    ],
)
def test_bad_words_are_refused(state: Path, words: tuple[str, ...], told: str) -> None:
    done = muting(state, *words)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
    assert [*state.iterdir()] == []
