"""Threads that fail, hang and vanish for real: each goes on, is told of, and shows."""

import _thread
import ctypes
import queue
import re
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_runtime
from edge_runtime import threads as module
from edge_runtime.errors import EVERY, LimitedLog
from edge_runtime.threads import PATIENCE, MonitoredThread, Threads, failed_words

LIMIT = 60.0  # seconds; only a failing test ever waits for them


class Body:
    """Does what the test tells it, one order after the other."""

    def __init__(self) -> None:
        self.orders: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self.done: queue.Queue[None] = queue.Queue()
        self.thread = MonitoredThread("pump", self)

    def __call__(self) -> None:
        while (order := self.orders.get(timeout=LIMIT)) is not None:
            self.thread.beat()
            order()
            self.done.put(None)

    def do(self, order: Callable[[], None]) -> None:
        self.orders.put(order)
        self.done.get(timeout=LIMIT)


def until(happened: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(int(LIMIT / 0.001)):
        if happened():
            return
        waiting.wait(0.001)
    raise AssertionError("it never happened")


class Watched:
    """One thread under watch; the clock is the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "BACK_OFF", (0.0,))
        self.now, self.log, self.body = 1000.0, list[str](), Body()
        self.threads = Threads(self.log.append, lambda: self.now)
        self.threads.watch([self.body.thread])
        self.body.thread.start()
        self.body.do(lambda: None)

    def look(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.threads.look()

    def end(self) -> None:
        self.body.orders.put(None)
        assert self.body.thread.join(LIMIT)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def fail() -> None:
    raise ValueError("poisoned")


def leave() -> None:
    raise SystemExit


@pytest.mark.parametrize(
    ("order", "error"), [(fail, "ValueError: poisoned"), (leave, "SystemExit()")]
)
def test_a_body_that_raises_runs_again_and_is_told_of(
    watched: Watched, order: Callable[[], None], error: str
) -> None:
    watched.body.orders.put(order)
    watched.body.do(lambda: None)  # by the next life
    watched.look()
    watched.look()
    (state,) = watched.threads.states()
    assert (state.alive, state.restarts, state.error) == (True, 1, error)
    assert watched.log == [f"thread pump failed ({error}); it runs again"]
    watched.end()


def test_failures_in_a_row_are_told_once_a_minute(watched: Watched) -> None:
    for _ in range(100):
        watched.body.orders.put(fail)
        watched.body.do(lambda: None)
        watched.look()
    watched.now += EVERY
    watched.body.orders.put(fail)
    watched.body.do(lambda: None)
    watched.look()
    assert len(watched.log) == 2 and "(100 times since the last line)" in watched.log[1]
    assert watched.threads.states()[0].restarts == 101
    watched.end()


def test_a_thread_that_is_killed_from_outside_runs_again(watched: Watched) -> None:
    victim = ctypes.c_ulong(watched.body.thread._ident)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(victim, ctypes.py_object(SystemExit))
    watched.body.orders.put(lambda: None)  # it is hit between two of its lines
    until(lambda: watched.body.thread.restarts == 1)
    watched.body.do(lambda: None)
    assert watched.threads.states()[0].alive
    watched.end()


def test_a_thread_that_is_gone_is_revived(watched: Watched) -> None:
    body = watched.body
    body.thread._body = lambda: None
    body.orders.put(None)
    assert body.thread._gone.wait(LIMIT)
    body.thread.ended, body.thread._body = False, body  # as if the interpreter had let it go
    watched.look()
    body.do(lambda: None)
    assert body.thread.restarts == 1 and watched.threads.states()[0].alive
    watched.end()


def test_no_thread_at_all_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(body: Callable[[], None], arguments: tuple[()]) -> int:
        raise RuntimeError("can't start new thread")

    body, log = Body(), list[str]()
    threads = Threads(log.append, lambda: 0.0)
    threads.watch([body.thread])
    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", refuse)  # as at the limit of TasksMax=
        body.thread.start()
        threads.look()
    assert not threads.states()[0].alive and "can't start new thread" in log[0]
    threads.look()
    body.do(lambda: None)
    assert threads.states()[0].alive
    body.orders.put(None)
    assert body.thread.join(LIMIT)


def test_a_thread_that_never_begins_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It found no memory for its first line; `threading.Thread.start` would wait for ever."""
    body = Body()
    threads = Threads(lambda line: None, lambda: 0.0)
    threads.watch([body.thread])
    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", lambda body, arguments: 1)
        body.thread.start()
    threads.look()
    assert failed_words(threads.states()) == "pump: does not run (it never started)"
    assert not body.thread.join(0.0)


def test_a_thread_that_hangs_is_told_of_and_so_is_its_return(watched: Watched) -> None:
    back, hanging = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        assert back.wait(LIMIT)

    watched.body.orders.put(hang)
    assert hanging.wait(LIMIT)
    watched.look()
    watched.look(PATIENCE - 1)
    assert watched.log == [] and not watched.threads.states()[0].hung
    watched.look(1.0)
    watched.look(1.0)
    state = watched.threads.states()[0]
    assert state.hung and state.alive and state.silent == PATIENCE + 1
    assert watched.log == ["thread pump has hung for 60 s; the run goes on without it"]
    back.set()
    watched.body.do(lambda: None)
    watched.body.do(lambda: None)
    watched.look(1.0)
    assert not watched.threads.states()[0].hung and watched.log[1] == "thread pump goes on"
    watched.end()


def test_a_body_that_returned_has_ended_and_is_no_news(watched: Watched) -> None:
    watched.end()
    watched.look(10 * PATIENCE)
    state = watched.threads.states()[0]
    assert state.ended and not state.alive and not state.hung and watched.log == []


def test_closing_does_not_wait_for_a_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF", (10 * LIMIT,))
    body = Body()
    body.thread.start()
    body.orders.put(fail)
    until(lambda: body.thread.error is not None)
    body.orders.put(None)  # met by the last life, which closing grants
    assert body.thread.join(LIMIT) and body.thread.ended


def test_a_body_that_fails_again_at_the_end_ends() -> None:
    runs = 0

    def fail() -> None:
        nonlocal runs
        runs += 1
        raise OSError("the disk is full")

    thread = MonitoredThread("pump", fail)
    thread.start()
    until(lambda: thread.error is not None and not thread.alive)
    assert thread.join(LIMIT)
    assert runs == 2 and not thread.ended and thread.error == "OSError: the disk is full"


def test_every_thread_of_the_device_is_a_watched_one() -> None:
    room = Path(edge_runtime.__file__).parent
    starts = re.compile(
        r"threading\.Thread\(|start_new_thread\(|loop_start\(|Executor\(|Timer\(|ThreadingMixIn"
    )
    found = [file.name for file in room.rglob("*.py") if starts.search(file.read_text())]
    assert found == ["threads.py"]


def test_nobody_waits_with_select_which_fails_beyond_1024_descriptors() -> None:
    """paho's own loop does, too."""
    room = Path(edge_runtime.__file__).parent
    waits = re.compile(r"select\.select\(|from select import|\.loop(_forever)?\(")
    assert [file.name for file in room.rglob("*.py") if waits.search(file.read_text())] == []


# The log.


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 200), st.sampled_from(["a", "b", "over a", "over b"])), max_size=200
    )
)
def test_lines_are_bounded_in_rate_and_nothing_is_lost_in_count(
    steps: list[tuple[float, str]],
) -> None:
    now, told = 0.0, list[tuple[float, str]]()
    log = LimitedLog(lambda line: told.append((now, line)), lambda: now)
    for seconds, deed in steps:
        now += seconds
        if deed.startswith("over"):
            log.over(deed, deed[-1])
        else:
            log.trouble(deed, deed)
    for topic in "ab":
        lines = [(when, line) for when, line in told if line.split(" (")[0] == topic]
        assert all(b - a >= EVERY - 1e-6 for (a, _), (b, _) in pairwise(lines))
        counts = [re.search(r"\((\d+) such", line) for _, line in lines]
        reported = sum(int(count[1]) if count else 1 for count in counts)
        occurred = [deed for _, deed in steps if deed == topic]
        assert reported <= len(occurred) and bool(lines) == bool(occurred)
        overs = sum(line == f"over {topic}" for _, line in told)
        assert overs <= len(lines)
