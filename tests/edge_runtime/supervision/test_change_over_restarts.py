"""Workers and whole runs that are killed, for real: the next one knows where the machine stands."""

import json
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gruard_command import PATIENCE, ask, gruard, start
from supervised_run import BACK, Run, WatchedProcess

from edge_runtime.detector.lasting_change import KEPT, KeptChange
from edge_runtime.plain import read_sealed
from edge_runtime.record import Flag

ROWS = 3 * BACK


def flagged(run: Run) -> list[int]:
    return [r.index for r in run.records if Flag.CHANGED in r.flags and r.tier < 3]


@pytest.mark.parametrize("fault", ["abort", "raise", "close", "garbage"])
def test_a_worker_that_breaks_hands_on_where_the_machine_stands(fault: str) -> None:
    run = Run(WatchedProcess(f"change@5,first-{fault}@9"), ROWS)
    records = run()
    (back,) = (r.index for r in records if Flag.RESTARTED in r.flags)
    assert back > 9 and run.supervisor.summary.restarts == 1
    assert set(flagged(run)) == {*range(5, 9), *range(back, ROWS)}
    assert run.process.change and run.process.change.centre == (2.0,)
    assert "has lasted and is reported" in run.log and "back where" not in run.log


def test_a_worker_killed_from_outside_does_too() -> None:
    process = WatchedProcess("change@5")

    def kill(row: int) -> None:
        if row == 20:
            process._process.send_signal(signal.SIGKILL)  # type: ignore[union-attr]

    run = Run(process, ROWS, before=kill)
    run()
    assert run.supervisor.summary.restarts == 1 and flagged(run)[-1] == ROWS - 1
    assert "was ended by SIGKILL" in run.log


def test_an_impossible_change_ends_the_worker_and_is_not_handed_on() -> None:
    run = Run(WatchedProcess("first-far@5"), ROWS)
    run()
    assert "reported a lasting change that stands beyond all readings" in run.log
    assert flagged(run) == [] and run.process.change and run.process.change.centre == (0.0,)


def test_a_recording_gives_the_same_records_each_time() -> None:
    found = []
    for _ in range(2):
        run = Run(WatchedProcess("change@5,first-abort@9"), ROWS)
        found.append([record.to_json() for record in run()])
    assert found[0] == found[1]


# Whole runs, by their command.


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


class Stream:
    """`gruard run` on stdin, one row at a time."""

    def __init__(self, state: Path, plan: str) -> None:
        self.process = start("run", "x.gruard", "--source", "-", "--state", str(state), plan=plan)
        ask(self.process, b"a,b\n")

    def records(self, count: int) -> Iterator[dict]:  # type: ignore[type-arg]
        for _ in range(count):
            yield json.loads(ask(self.process, b"1,2\n"))

    def flags(self, count: int) -> list[bool]:
        return ["CHANGED" in record["flags"] for record in self.records(count)]

    def until(self, flagged: bool) -> None:
        """Rows until a record is `flagged`, or is not."""
        for record in self.records(10**9):
            if ("CHANGED" in record["flags"]) is flagged:
                return

    def kill(self) -> str:
        self.process.kill()
        return self.process.communicate(timeout=PATIENCE)[1].decode()

    def stop(self) -> str:
        return self.process.communicate(timeout=PATIENCE)[1].decode()


def test_a_run_that_is_killed_leaves_it_to_the_next(state: Path) -> None:
    run = Stream(state, "change@3")
    assert run.flags(6) == [False] * 3 + [True] * 3
    run.kill()
    kept = read_sealed(state / KEPT, KeptChange)
    assert kept and kept.finding and kept.change.centre == (2.0, 2.0)
    run = Stream(state, "none@0")
    assert run.flags(4) == [True] * 4
    log = run.stop()
    assert "Traceback" not in log and "has lasted" not in log


def test_a_recording_neither_reads_nor_writes_it(state: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b\n" + "1,2\n" * 9)
    run = Stream(state, "change@3")
    run.flags(6)
    run.kill()
    before = (state / KEPT).read_bytes()
    for plan in ("none@0", "change@2"):
        done = gruard("run", "x.gruard", "--source", str(rows), "--state", str(state), plan=plan)
        flags = ["CHANGED" in json.loads(line)["flags"] for line in done.stdout.splitlines()]
        assert flags == [plan == "change@2" and row >= 2 for row in range(9)]
    assert (state / KEPT).read_bytes() == before


def test_a_file_that_was_harmed_is_one_line_and_a_run_as_ever(state: Path) -> None:
    run = Stream(state, "change@3")
    run.flags(6)
    run.kill()
    text = (state / KEPT).read_text().replace("2.0", "3.0", 1)
    (state / KEPT).write_text(text)
    run = Stream(state, "none@0")
    assert run.flags(4) == [False] * 4
    log = run.stop()
    assert log.count("the machine is judged as it was recorded") == 1 and "Traceback" not in log


def test_a_disk_that_is_full_ends_no_run_and_costs_the_file_only(state: Path) -> None:
    run = Stream(state, "change@3,back@10,change@12")
    assert run.flags(8) == [False] * 3 + [True] * 5
    before = (state / KEPT).read_bytes()
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (9, resource.RLIM_INFINITY))
    assert run.flags(4) == [True] * 2 + [False] * 2
    assert (state / KEPT).read_bytes() == before and len([*state.iterdir()]) == 2
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert run.flags(2) == [True] * 2
    log = run.stop()
    assert log.count("the next start will not know where the machine stands") == 1
    assert "is written again" in log and "Traceback" not in log
    kept = read_sealed(state / KEPT, KeptChange)
    assert kept and kept.finding and kept.change.count == 2


# The owner's word on a run that lives.


def accept(state: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return gruard("accept", "--state", str(state), *words)


@pytest.mark.long
def test_the_owners_word_reaches_the_run_and_outlives_it(state: Path) -> None:
    run = Stream(state, "change@3")
    run.flags(6)
    assert accept(state, "--undo").returncode == 1
    done = accept(state, "--reason", "new bearing")
    assert done.returncode == 0 and done.stdout.startswith("the change since ")
    run.until(flagged=False)
    again = accept(state)
    assert again.returncode == 1 and "is accepted already; --undo reverts that" in again.stderr
    log = run.kill()
    assert "the reported change is accepted (new bearing)" in log
    run = Stream(state, "none@0")
    assert run.flags(3) == [False] * 3
    undone = accept(state, "--undo", "--json")
    assert undone.returncode == 0 and json.loads(undone.stdout)["accepted"] is False
    run.until(flagged=True)
    assert "the reported change is open again" in run.stop()


def test_a_word_while_no_run_is_there_waits_for_the_next(state: Path) -> None:
    run = Stream(state, "change@3")
    run.flags(6)
    run.kill()
    told = json.loads(accept(state, "--json").stdout)
    assert told["accepted"] and told["channels"] == [] and told["file"].startswith(str(state))
    run = Stream(state, "none@0")
    run.until(flagged=False)
    run.stop()


def test_nothing_to_accept_is_an_error_that_says_so(state: Path) -> None:
    for words in ((), ("--undo",), ("--json",)):
        done = accept(state, *words)
        assert done.returncode == 1 and done.stdout == ""
        assert "no change is reported" in done.stderr and len(done.stderr.splitlines()) == 1
    assert [*state.iterdir()] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--reason", "a\nb"), "one line of at most 200 characters"),
        (("--reason", "x" * 201), "one line of at most 200 characters"),
        (("--state", "/dev/null"), "/dev/null"),
    ],
)
def test_bad_words_are_refused(state: Path, words: tuple[str, ...], told: str) -> None:
    done = gruard("accept", "--state", str(state), *words)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
