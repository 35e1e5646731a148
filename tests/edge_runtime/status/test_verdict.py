"""Every way a run can be, and what it is called."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from made_snapshot import ALARM, CALM, FALLBACK, GOES_ON, SNAPSHOT, TOLD

from edge_runtime.detector.lasting_change import Finding
from edge_runtime.mute import Mute
from edge_runtime.status.health import Life, judge, judge_now, life, start_ticks
from edge_runtime.status.snapshot import Answer, Input, LearningStatus, Snapshot

WAITING = "worker was ended by SIGABRT; next attempt in 5 min"


def run(
    answer: Answer | None = CALM, phase: str = "serving", ended: bool = False, waiting: str = ""
) -> Snapshot:
    process = replace(SNAPSHOT.process, ended=ended)
    return replace(
        SNAPSHOT,
        answer=answer,
        alarm=GOES_ON if answer in (ALARM, MUTED) else None,
        model=replace(SNAPSHOT.model, phase=phase, waiting=waiting),
        process=process,
    )


def waiting(
    answer: Answer | None, away: str | None = None, silent: bool = False, worker: str = ""
) -> Snapshot:
    phase = "waiting to restart" if worker else "serving"
    made = run(answer, phase)
    since = SNAPSHOT.process.started + SNAPSHOT.process.uptime - 60 if silent else None
    return replace(made, input=Input(since, away), model=replace(made.model, waiting=worker))


pytestmark = pytest.mark.usefixtures("utc")
OPEN = Finding(1.7e9, ("flow",), 1, None, "")
MUTE = Mute(1.7e9, 1.7e9 + 8 * 3600, "cleaning")
MUTED = replace(ALARM, flags=("MUTED",))
STARTED = LOADED = "2023-11-14 22:13"
SILENT = "01:24"
LEARNS = LearningStatus(True, 3412, 8640, 52280.0, False, "", None, None)
LEARNT = replace(LEARNS, active=False)


@pytest.mark.parametrize(
    ("snapshot", "state", "code", "words"),
    [
        (run(), "healthy", 0, "healthy, no alarm"),
        (run(replace(CALM, tier=2)), "healthy", 0, "healthy"),
        (
            replace(run(), change=OPEN),
            "changed",
            0,
            f"changed since {LOADED} on flow",
        ),
        (replace(run(), change=replace(OPEN, accepted=1.7e9)), "healthy", 0, "healthy, no alarm"),
        (replace(run(ALARM), change=OPEN), "alarm", 1, "ALARM pump: flow and heat"),
        (replace(run(FALLBACK), change=OPEN), "fallback", 3, "the model is not trusted"),
        (run(ALARM), "alarm", 1, "22:13:20 (sensor offset, 0.87); model"),
        (replace(run(MUTED), mute=MUTE), "muted", 0, "trusted; muted until 06:13 (cleaning)"),
        (replace(run(replace(MUTED, valid=False)), mute=MUTE), "muted", 3, "is not trusted"),
        (replace(run(ALARM), mute=MUTE), "alarm", 1, "; muted until 06:13"),
        (replace(run(), mute=MUTE), "healthy", 0, "no alarm; muted until 06:13 (cleaning)"),
        (replace(run(FALLBACK), mute=MUTE), "fallback", 3, "; muted until 06:13 (cleaning)"),
        (replace(run(FALLBACK), learning=LEARNS), "learning", 3, "learning 3,412 of 8,640 rows"),
        (replace(run(FALLBACK), learning=LEARNS), "learning", 3, "rows, 14 h 31 min left"),
        (replace(run(ALARM), learning=LEARNS), "alarm", 1, "ALARM pump: flow and heat"),
        (replace(run(FALLBACK), learning=LEARNT), "fallback", 3, "the model is not trusted"),
        (replace(run(), learning=LEARNT), "healthy", 0, "healthy, no alarm"),
        (replace(run(ALARM), alarm=None), "alarm", 1, "ALARM"),
        (run(replace(FALLBACK, alarm=True), waiting=WAITING), "alarm", 1, f"ALARM; the {WAITING}"),
        (run(FALLBACK, "waiting to restart", waiting=WAITING), "fallback", 3, f"the {WAITING}"),
        (run(FALLBACK, "loading"), "fallback", 3, f"the worker is loading since {LOADED}"),
        (run(FALLBACK), "fallback", 3, "the model is not trusted"),
        (run(replace(FALLBACK, flags=("FALLBACK", "LATE"))), "fallback", 3, "was late"),
        (run(replace(FALLBACK, flags=("WARMUP",))), "fallback", 3, "is settling"),
        (run(replace(FALLBACK, flags=("GAP",)), "loading"), "fallback", 3, "source is silent"),
        (run(None, "loading"), "waiting", 3, f"the model is loading since {LOADED}"),
        (run(None), "waiting", 3, f"waiting for the first sample since {STARTED}"),
        (
            waiting(None, away="serial:/dev/ttyUSB0: no such device"),
            "waiting",
            3,
            f"waiting for the first sample since {STARTED}; serial:/dev/ttyUSB0: no such device",
        ),
        (
            waiting(None, worker="worker did not load; next attempt in 30 s"),
            "waiting",
            3,
            f"first sample since {STARTED}; the worker did not load; next attempt in 30 s",
        ),
        (
            waiting(FALLBACK, worker="worker did not load; next attempt in 30 s"),
            "fallback",
            3,
            "no healthy model: the worker did not load; next attempt in 30 s",
        ),
        (
            waiting(CALM, silent=True, away="serial:/dev/ttyUSB0: is away"),
            "fallback",
            3,
            f"the source is silent since {SILENT}: serial:/dev/ttyUSB0: is away",
        ),
        (run(ended=True), "ended", 3, "ended in good order"),
        (None, "missing", 3, "there is no status file"),
    ],
)
def test_a_living_run(snapshot: Snapshot | None, state: str, code: int, words: str) -> None:
    verdict = judge(snapshot, TOLD + 1, "running")
    assert (verdict.state, verdict.code) == (state, code)
    assert words in verdict.text
    assert verdict.age == (1.0 if snapshot else None)


@pytest.mark.parametrize(
    ("alive", "age", "state", "words"),
    [
        ("gone", 1.0, "gone", "process 812 is gone"),
        ("stopped", 1.0, "stopped", "process 812 is stopped"),
        ("running", 10.1, "hung", "answered nothing for 10 s"),
        ("running", -5.0, "hung", "answered nothing"),  # of before the last start of the machine
    ],
)
def test_a_lifeless_run_comes_before_its_alarm(
    alive: Life, age: float, state: str, words: str
) -> None:
    verdict = judge(run(ALARM), TOLD + age, alive)
    assert (verdict.state, verdict.code) == (state, 3) and words in verdict.text
    assert judge(run(ALARM), TOLD + 10.0, "running").state == "alarm"


def test_this_process_is_alive_and_itself_alone() -> None:
    me = replace(SNAPSHOT.process, pid=os.getpid(), ticks=start_ticks(os.getpid()))
    assert life(me) == "running" and life(replace(me, ticks=None)) == "running"
    assert life(replace(me, ticks=1)) == "gone"  # a later process got its pid
    assert judge_now(replace(SNAPSHOT, process=me), TOLD).state == "healthy"


def test_a_process_that_has_ended() -> None:
    with subprocess.Popen(["true"]) as child:
        process = replace(SNAPSHOT.process, pid=child.pid, ticks=start_ticks(child.pid))
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert life(process) == "gone"  # a zombie
    assert life(process) == "gone"


@pytest.mark.parametrize("letter", ["R", "S", "D", "T", "t", "Z", "X"])
def test_the_state_of_a_process_whose_name_is_odd(tmp_path: Path, letter: str) -> None:
    (tmp_path / "812").mkdir()
    (tmp_path / "812" / "stat").write_text(f"812 (a) Z (b) {letter} {' 0' * 18} 99 0 0\n")
    expected = {"T": "stopped", "t": "stopped", "Z": "gone", "X": "gone"}.get(letter, "running")
    assert start_ticks(812, tmp_path) == 99
    assert life(SNAPSHOT.process, tmp_path) == expected


def test_where_proc_hides_others_a_signal_tells(tmp_path: Path) -> None:
    assert start_ticks(1, tmp_path) is None
    assert life(replace(SNAPSHOT.process, pid=os.getpid()), tmp_path) == "running"
    assert life(replace(SNAPSHOT.process, pid=1), tmp_path) == "running"
