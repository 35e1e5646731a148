"""`--on-alarm`: real commands that work, hang, flood, fail, fork and vanish; no run waits."""

import json
import os
import shlex
import sys
from pathlib import Path
from queue import Queue

import pytest
from gruard_command import PATIENCE, gruard, indices

from edge_runtime.alarm import Alarm, AlarmEvent, AlarmMoment, BlamedReading
from edge_runtime.alarms import command as module
from edge_runtime.alarms.command import WAITING, AlarmCommand, require_program
from edge_runtime.errors import GruardError
from edge_runtime.files import readable
from edge_runtime.threads import Threads

ALARM = Alarm("pump", 7, 9, 7.0, 9.0, 1.7e9, (BlamedReading("flow", 7.5, 1.0, 3.0),), "level", 0.9)


def event(moment: AlarmMoment) -> AlarmEvent:
    return AlarmEvent(moment, ALARM, "flow unlike healthy")


class Ran:
    """A command in a shell, and what was logged."""

    def __init__(self, *words: str, timeout: float = PATIENCE) -> None:
        self.lines: Queue[str] = Queue()
        self.command = AlarmCommand(words, self.lines.put, timeout)

    def line(self) -> str:
        return self.lines.get(timeout=PATIENCE)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAREWELL", PATIENCE)


def shell(text: str, timeout: float = PATIENCE) -> Ran:
    return Ran("sh", "-c", text, timeout=timeout)


def is_gone(pid: int) -> bool:
    """Whether a process ends, also one that nobody waits for."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return readable(process, PATIENCE)
    finally:
        os.close(process)


def test_both_edges_come_on_stdin_one_after_the_other(tmp_path: Path) -> None:
    told = tmp_path / "told"
    ran = shell(f"cat >> {told}")
    for moment in ("began", "muted", "unmuted", "ended"):
        ran.command.put(event(moment))  # type: ignore[arg-type]
    ran.command.close()
    began, ended = map(json.loads, told.read_text().splitlines())
    assert (began["moment"], ended["moment"]) == ("began", "ended")
    assert began["id"] == ALARM.id and began["text"] == "flow unlike healthy"
    assert began["readings"] == [{"channel": "flow", "value": 7.5, "low": 1.0, "high": 3.0}]
    assert ran.command.counts() == {"done": 2, "failed": 0, "dropped": 0} and ran.lines.empty()


def test_a_failure_is_logged_once_with_its_last_words_and_its_end_too(tmp_path: Path) -> None:
    works = tmp_path / "works"
    ran = shell(f"test -e {works} || {{ echo first; echo told you >&2; exit 1; }}")
    for _ in range(3):
        ran.command.put(event("began"))
    assert ran.line() == "on-alarm: sh failed (exit code 1): told you; the run goes on"
    works.touch()
    ran.command.put(event("ended"))
    ran.command.close()
    assert ran.line() == "on-alarm: sh works again" and ran.lines.empty()
    counts = ran.command.counts()
    assert counts["failed"] >= 1 and counts["done"] >= 1 and sum(counts.values()) == 4


def test_one_that_hangs_is_killed_with_its_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    ran = shell(f"sleep 999 & echo $$ $! > {pids}; wait", timeout=1.0)
    ran.command.put(event("began"))
    assert "sh took too long and was killed" in ran.line()
    ran.command.close()
    assert ran.command.failed == 1
    assert all(is_gone(int(pid)) for pid in pids.read_text().split())


def test_one_that_floods_is_ended_by_its_broken_pipe() -> None:
    ran = Ran("yes")
    ran.command.put(event("began"))
    assert "yes failed (SIGPIPE): y; the run goes on" in ran.line()
    ran.command.close()


def test_what_it_leaves_behind_is_killed(tmp_path: Path) -> None:
    child = tmp_path / "child"
    ran = shell(f"sleep 999 & echo $! > {child}")
    ran.command.put(event("began"))
    ran.command.close()
    assert ran.command.done == 1 and is_gone(int(child.read_text()))


def test_one_that_reads_nothing_and_closes_everything_is_fine() -> None:
    ran = shell("exec <&- >&- 2>&-; exit 0")
    ran.command.put(event("began"))
    ran.command.close()
    assert ran.command.done == 1 and ran.lines.empty()


def test_a_program_that_is_missing_is_refused_or_logged_when_it_vanishes(tmp_path: Path) -> None:
    with pytest.raises(GruardError, match=r"'\./gone' is no program here"):
        require_program(("./gone",))
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    require_program((str(script),))
    script.unlink()
    ran = Ran(str(script))
    ran.command.put(event("began"))
    assert "cannot be started (No such file or directory)" in ran.line()
    ran.command.close()


def test_too_many_are_counted_and_the_end_of_the_run_kills_what_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FAREWELL", 0.0)
    started = tmp_path / "started"
    os.mkfifo(started)
    ran = shell(f"echo $$ > {started}; sleep 999")
    ran.command.put(event("began"))
    pid = int(started.read_text())
    for _ in range(WAITING + 4):
        ran.command.put(event("began"))
    assert ran.command.dropped == 4 and "4 alarms so far" not in ran.line()
    ran.command.close()
    assert "took until the end of the run" in ran.line() and is_gone(pid)
    assert ran.command.counts() == {"done": 0, "failed": 1, "dropped": WAITING + 4}


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def test_no_descriptor_is_left_open() -> None:
    ran = Ran("true")
    before = open_files()
    for _ in range(5):
        ran.command.put(event("began"))
    ran.command.close()
    assert ran.command.done == 5 and open_files() == before
    threads = Threads(print, lambda: 0.0)
    threads.watch([ran.command.thread])
    assert threads.states()[0].ended and threads.states()[0].restarts == 0


ROWS = "a,b\n" + "1,2\n" * 3 + "500,2\n" * 3 + "1,2\n" * 50 + "500,2\n"


@pytest.mark.parametrize(
    ("words", "log"),
    [
        (f"{sys.executable} -c 'import time; time.sleep(999)'", "took until the end of the run"),
        ("yes", "yes failed (SIGPIPE): y"),
        ("sh -c 'echo no; exit 1'", "sh failed (exit code 1): no"),
    ],
)
def test_a_run_answers_every_sample_whatever_the_command_does(
    tmp_path: Path, words: str, log: str
) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(ROWS)
    done = gruard("run", "x.gruard", "--source", str(source), "--on-alarm", words)
    assert done.returncode == 0 and indices(done.stdout) == list(range(57)), done.stderr
    assert log in done.stderr and "Traceback" not in done.stderr
    assert "ALARM fake: a unlike healthy since sample 3" in done.stderr
    assert "fake: a unlike healthy from sample 3 to sample 5; over; model trusted" in done.stderr


def test_a_run_tells_its_command_of_each_edge(tmp_path: Path) -> None:
    source, told = tmp_path / "rows.csv", tmp_path / "told"
    source.write_text(ROWS)
    words = f"sh -c {shlex.quote(f'cat >> {told}')}"
    done = gruard("run", "x.gruard", "--source", str(source), "--on-alarm", words, "--json")
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    moments = [(line["moment"], line["index"], line["over"]) for line in lines]
    assert moments == [("began", 3, False), ("ended", 3, True), ("began", 56, False)]
    assert lines[0]["readings"] == [{"channel": "a", "value": 500.0, "low": -100.0, "high": 100.0}]
    assert json.loads(done.stderr.splitlines()[-1])["on_alarm"]["done"] == 3
    records = map(json.loads, done.stdout.splitlines())
    assert [each["event"] for each in records if "event" in each] == lines


@pytest.mark.parametrize(
    ("words", "log"),
    [("", "name a program"), ("'", "No closing quotation"), ("./no", "no program")],
)
def test_a_command_that_cannot_be_is_refused(tmp_path: Path, words: str, log: str) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(ROWS)
    done = gruard("run", "x.gruard", "--source", str(source), "--on-alarm", words)
    assert done.returncode == 2 and log in done.stderr and done.stdout == ""
