"""When a run starts to learn, and what it makes of the end of the child."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.autolearn import keeper as room
from edge_runtime.autolearn.child import (
    FAILED,
    KEPT_OUT,
    LEAST_MEMORY,
    MOST_MEMORY,
    PROMOTED,
    BackgroundChild,
    ChildResult,
    memory_limit,
)
from edge_runtime.autolearn.keeper import LearningHistory, LearningKeeper, LearningPlan
from edge_runtime.plain import read_sealed
from edge_runtime.sources.source import Reading

MEMORY = 300_000_000
PATIENCE = 60  # seconds; only a failing test ever waits for them
ROWS = 200
STAND_IN = """
import json, sys
with open({seen!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + chr(10))
code, words = {plan!r}
print(words, file=sys.stdout if code in (0, 3) else sys.stderr)
sys.exit(code)
"""


class Times:
    """A monotonic and a wall clock that a test moves."""

    def __init__(self) -> None:
        self.now, self.wall = 50.0, 1.7e9

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


class Readings:
    """What the keeper asks of a recorder."""

    def __init__(self) -> None:
        self.written, self.size = 0, 0
        self.drained = 0

    def drain(self, most: int) -> None:
        self.drained += 1


class Case:
    """A keeper on a folder, whose child is a program that notes what it was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.times, self.recorder = folder, Times(), Readings()
        self.log: list[str] = []
        self.plan = LearningPlan(folder, folder / "readings", None, ROWS, None, 1.0, 1_000_000)
        self.installed = 0
        for name in ("LEARNER", "RELEARNER"):
            monkeypatch.setattr(room, name, (sys.executable, str(folder / f"{name}.py")))
        self.answers(PROMOTED, json.dumps({"promoted": True, "bundle": "pump-1"}))

    def answers(self, code: int, words: str) -> None:
        """From now on the child ends like this."""
        for name in ("LEARNER", "RELEARNER"):
            seen = str(self.folder / f"{name}.asked")
            text = STAND_IN.format(seen=seen, plan=(code, words))
            (self.folder / f"{name}.py").write_text(text)

    def asked(self, name: str = "LEARNER") -> list[list[str]]:
        file = self.folder / f"{name}.asked"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def keeper(self, rows: int = 0, has_model: bool = False, live: bool = True) -> LearningKeeper:
        times = self.times
        made = LearningKeeper(
            self.plan, self.recorder, rows, has_model, live,
            lambda: times.now, lambda: times.wall, self.log.append,
        )  # type: ignore[arg-type]  # fmt: skip

        def count() -> None:
            self.installed += 1

        made.on_install = count
        return made

    def learn(self, keeper: LearningKeeper) -> None:
        """Let the keeper start a child, and see it end."""
        keeper.tend()
        assert keeper.status().learning, self.log
        end = time.monotonic() + PATIENCE
        while keeper.status().learning and time.monotonic() < end:
            keeper.tend()
            time.sleep(0.01)
        assert not keeper.status().learning


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(tmp_path, monkeypatch)


def test_it_learns_once_there_are_enough_rows(case: Case) -> None:
    keeper = case.keeper(rows=150)
    case.recorder.written = 49
    keeper.tend()
    status = keeper.status()
    assert (status.rows, status.target, status.left, status.learning) == (199, ROWS, 1.0, False)
    assert "learning 199 of 200 rows, 1 s left" in case.log
    case.recorder.written = 50
    case.learn(keeper)
    (words,) = case.asked()
    assert words[words.index("--rows") + 1] == "200" and words[words.index("--period") + 1] == "1.0"
    assert "--last-try" not in words
    assert case.installed == 1 and "pump-1 was learned and installed" in case.log
    keeper.tend()
    assert len(case.asked()) == 1  # it waits for the switch
    keeper.answered()
    assert not keeper.status().active


def test_a_short_time_still_waits_for_the_rows_that_any_detector_needs(case: Case) -> None:
    case.plan = replace(case.plan, first=60.0)
    assert case.keeper().target == room.FEWEST_ROWS


def test_the_period_is_measured_where_nobody_tells_it(case: Case) -> None:
    case.plan = replace(case.plan, period=None)
    keeper = case.keeper(rows=500)
    keeper.tend()
    assert keeper.target is None and "period is not known yet" in case.log[0]
    for row in range(40):
        keeper.see(Reading(row * 0.5, np.zeros(1, np.float32)), 0.0)
    assert keeper.target == 400
    case.learn(keeper)
    assert "0.5" in case.asked()[0]


def test_an_unfit_recording_is_prolonged_and_a_restart_knows_of_it(case: Case) -> None:
    case.answers(KEPT_OUT, json.dumps({"promoted": False, "reason": "a pump stood still"}))
    keeper = case.keeper(rows=ROWS)
    case.learn(keeper)
    assert keeper.target == ROWS + ROWS // room.PROLONGED
    assert "a pump stood still" in keeper.status().result and "stood still" in case.log[-1]
    again = case.keeper(rows=ROWS)
    again.tend()
    assert again.target == 250 and not again.status().learning
    assert "a pump stood still" in again.words()


def test_with_twice_the_rows_something_is_learned_all_the_same(case: Case) -> None:
    case.learn(case.keeper(rows=room.LAST_TRY * ROWS))
    assert "--last-try" in case.asked()[0]


def test_a_full_folder_is_learned_from_before_it_drops_anything(case: Case) -> None:
    case.recorder.size = int(room.FULL * case.plan.capacity)
    case.answers(KEPT_OUT, json.dumps({"promoted": False, "reason": "no channel"}))
    keeper = case.keeper(rows=160)
    case.learn(keeper)
    assert "--last-try" in case.asked()[0]
    keeper.tend()
    assert not keeper.status().learning  # not again with each further row
    case.recorder.written = 50
    case.learn(keeper)


def test_a_failure_is_told_and_tried_again_after_longer_and_longer_pauses(case: Case) -> None:
    case.answers(FAILED, "gruard: no space left on the disk")
    keeper = case.keeper(rows=ROWS)
    for pause in (*room.PAUSES, room.PAUSES[-1]):
        case.learn(keeper)
        assert "learning failed: no space left on the disk" in case.log[-1]
        assert "no space left" in keeper.status().result
        case.times.pass_by(pause - 1)
        keeper.tend()
        assert not keeper.status().learning
        case.times.pass_by(1.5)
    assert len(case.asked()) == len(room.PAUSES) + 1


def test_after_a_lack_of_memory_half_of_the_rows_are_used(case: Case) -> None:
    case.answers(FAILED, "out of memory")
    keeper = case.keeper(rows=800)
    for pause in room.PAUSES[:3]:
        case.learn(keeper)
        case.times.pass_by(pause)
    assert [words[words.index("--rows") + 1] for words in case.asked()] == ["800", "400", "200"]


def test_a_file_waits_for_the_child(case: Case) -> None:
    keeper = case.keeper(rows=ROWS, live=False)
    keeper.tend()
    assert case.installed == 1 and case.recorder.drained


def test_it_learns_again_at_its_time_whatever_was_restarted(case: Case) -> None:
    case.plan = replace(case.plan, again=86400.0)
    case.keeper(has_model=True).tend()
    assert case.asked("RELEARNER") == []
    case.times.pass_by(80000.0)
    keeper = case.keeper(has_model=True)
    assert keeper.status().next == case.times.wall + 6400.0
    case.times.pass_by(6399.0)
    keeper.tend()
    assert not keeper.status().learning
    case.times.pass_by(1.0)
    case.learn(keeper)
    (words,) = case.asked("RELEARNER")
    assert words == ["--store", str(case.folder), "--readings", str(case.folder / "readings")]
    assert case.log[-1] == "pump-1 was learned and installed" and case.installed == 1
    assert keeper.status().last == case.times.wall
    assert case.keeper(has_model=True).status().next == case.times.wall + 86400.0


def test_a_model_that_is_kept_out_is_told_and_the_present_one_stays(case: Case) -> None:
    case.plan = replace(case.plan, again=60.0, state=case.folder / "state")
    keeper = case.keeper(has_model=True)
    case.answers(KEPT_OUT, json.dumps({"promoted": False, "reason": "finds fewer faults"}))
    case.times.pass_by(60.0)
    case.learn(keeper)
    assert keeper.status().result == "the present bundle stays: finds fewer faults"
    assert "--state" in case.asked("RELEARNER")[0] and case.installed == 0


def test_a_wall_clock_that_was_set_back_moves_the_next_time_by_one_period_at_most(
    case: Case,
) -> None:
    case.plan = replace(case.plan, again=3600.0)
    case.keeper(has_model=True)
    case.times.wall -= 1e9
    assert case.keeper(has_model=True).status().next == case.times.wall + 3600.0


def test_a_damaged_file_costs_only_what_it_says(case: Case) -> None:
    (case.folder / room.HISTORY).write_text("{")
    keeper = case.keeper(rows=ROWS)
    assert "learning.json: damaged" in case.log[0]
    case.learn(keeper)
    history = read_sealed(case.folder / room.HISTORY, LearningHistory)
    assert history and history.last == case.times.wall


@pytest.fixture
def child() -> Iterator[BackgroundChild]:
    made = BackgroundChild(MEMORY)
    yield made
    made.stop()


def end_of(child: BackgroundChild, program: str) -> ChildResult:
    child.start([sys.executable, "-c", program])
    result = child.result(waits=True)
    assert result and not child.running
    return result


LIMITS = """
import json, os, resource
print("first line")
print(json.dumps({"reason": [
    os.nice(0), os.sched_getscheduler(0) == os.SCHED_IDLE,
    resource.getrlimit(resource.RLIMIT_AS)[0],
    os.environ["OPENBLAS_NUM_THREADS"], int(open("/proc/self/oom_score_adj").read()),
]}))
"""


def test_the_child_has_the_lowest_priority_and_limits(child: BackgroundChild) -> None:
    assert end_of(child, LIMITS) == ChildResult(PROMOTED, f"[19, True, {MEMORY}, '1', 1000]")


def test_the_child_cannot_take_more_memory(child: BackgroundChild) -> None:
    result = end_of(child, f"bytearray({MEMORY})")
    assert result == ChildResult(FAILED, "MemoryError")


@pytest.mark.parametrize(
    ("program", "result"),
    [
        ('print(\'{"reason": "too\\\\nfew"}\'); raise SystemExit(3)', ChildResult(3, "too few")),
        ("print('garbage'); raise SystemExit(3)", ChildResult(3, "")),
        ("print('[1]')", ChildResult(0, "")),
        ("raise SystemExit(2)", ChildResult(2, "ended with exit code 2")),
        ("raise SystemExit('gruard: no disk')", ChildResult(1, "no disk")),
        ("import os; os.kill(os.getpid(), 9)", ChildResult(1, "was ended by SIGKILL")),
        ("print('x' * 10**6)\nraise SystemExit(7)", ChildResult(7, "ended with exit code 7")),
    ],
)
def test_every_end_of_the_child_has_a_reason(
    child: BackgroundChild, program: str, result: ChildResult
) -> None:
    assert end_of(child, program) == result


PARENT = """
import sys, time
from edge_runtime.autolearn.child import BackgroundChild
child = BackgroundChild({memory})
child.start([sys.executable, "-c", "import os, time; os.write(1, b'x'); time.sleep({patience})"])
while not __import__("os").fstat(child._output).st_size:
    time.sleep(0.01)
print(child._process.pid, flush=True)
time.sleep({patience})
"""


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    program = PARENT.format(memory=MEMORY, patience=PATIENCE)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        assert select.select([child], [], [], PATIENCE)[0]
        os.close(child)


def test_the_memory_of_the_child_is_within_its_bounds() -> None:
    assert LEAST_MEMORY <= memory_limit() <= MOST_MEMORY
