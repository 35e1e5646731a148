"""What the loop's onlooker makes of records: one snapshot a second, and never a disturbance."""

from collections.abc import Callable
from dataclasses import replace

import faulty_worker
import numpy as np
import pytest
from supervised_run import Clock, Run, WatchedProcess

from edge_runtime.record import Flag, Record, Sample
from edge_runtime.status.publisher import LENGTH, LOADING_PATIENCE, ScoreHistory, StatusPublisher
from edge_runtime.status.snapshot import BoardHealth, ChannelStatus, Input, Snapshot
from edge_runtime.supervision.policy import WorkerPhase
from edge_runtime.supervision.summary import Summary
from edge_runtime.supervision.supervisor import RunState
from edge_runtime.threads import MonitoredThread, Threads


class Ear:
    """An outlet that remembers."""

    def __init__(self) -> None:
        self.heard: list[Snapshot] = []
        self.closed = False

    def publish(self, snapshot: Snapshot) -> None:
        self.heard.append(snapshot)

    def close(self) -> None:
        self.closed = True


class FakeBoard:
    def __init__(self) -> None:
        self.health: BoardHealth | None = None

    def latest(self) -> BoardHealth | None:
        return self.health

    def close(self) -> None:
        pass


class Watched:
    """A watch, its clock, what it said, and a summary that is fed as a supervisor would."""

    def __init__(self, slowest: float = 0.1, outlets: int = 1) -> None:
        self.clock, self.board, self.log = Clock(), FakeBoard(), list[str]()
        self.ears = [Ear() for _ in range(outlets)]
        self.summary = Summary()
        self.asked = 0
        self.threads = Threads(self.log.append, self.clock)
        self.state_now = RunState(self.summary, WorkerPhase.SERVING, "fake-kernel")
        self.watch = StatusPublisher(
            "pump", 3, "0123456789ab", ("a", "b"), slowest, self.ears, self.log.append,
            self.board, self.threads, self.clock, lambda: 1.7e9 + self.clock.now,
        )  # fmt: skip

    def see(self, seconds: float = 0.1, **changes: object) -> None:
        self.clock.now += seconds
        sample = Sample(self.summary.records, None, np.zeros(2, np.float32))
        record = replace(faulty_worker.model_record(sample), **changes)
        self.summary.add(record, 0.001)
        self.watch.observe(record, self.state)

    def state(self) -> RunState:
        self.asked += 1
        return self.state_now

    @property
    def last(self) -> Snapshot:
        return self.ears[0].heard[-1]


def test_a_snapshot_a_second_and_the_state_is_asked_for_no_more_often() -> None:
    watched = Watched()
    for _ in range(101):
        watched.see()
    assert watched.asked == len(watched.ears[0].heard) == 11
    assert watched.last.counts.records == 101 and watched.last.answer.index == 100
    assert watched.last.rate == pytest.approx(10)
    assert watched.last.model.kernel == "fake-kernel" and watched.last.model.phase == "serving"
    assert watched.last.process.uptime == pytest.approx(10.1)


def test_slow_samples_have_a_snapshot_each_and_more_patience() -> None:
    watched = Watched(slowest=60.0)
    for _ in range(5):
        watched.see(seconds=60.0)
    assert len(watched.ears[0].heard) == 5 and watched.last.rate == pytest.approx(1 / 60)
    assert watched.last.process.patience == 180.0


def test_the_first_and_the_last_word() -> None:
    watched = Watched()
    with watched.watch:
        assert watched.last.answer is None and watched.last.process.patience == LOADING_PATIENCE
        assert (watched.last.model.phase, watched.last.channels[0]) == (
            "loading",
            ChannelStatus("a", False, False, False, 0, 0),
        )
        for _ in range(4):
            watched.see()
        assert watched.last.counts.records == 1 and not watched.last.process.ended
    assert watched.last.counts.records == 4 and watched.last.process.ended
    assert watched.ears[0].closed


@pytest.mark.parametrize(("error", "ended"), [(KeyboardInterrupt, True), (RuntimeError, False)])
def test_a_signal_is_an_end_in_good_order_and_an_error_is_not(
    error: type[BaseException], ended: bool
) -> None:
    watched = Watched()
    with pytest.raises(error), watched.watch:
        raise error
    assert watched.last.process.ended == ended


def test_turns_without_records_tell_that_and_since_when_it_waits() -> None:
    """Before the first sample, and when the source of an unknown period falls silent."""
    watched = Watched()
    start = 1.7e9 + watched.clock.now
    away = "serial:/dev/ttyUSB0: No such file or directory"
    watched.state_now = replace(watched.state_now, phase=WorkerPhase.LOADING, away=away)
    for _ in range(100):
        watched.clock.now += 1.0
        watched.watch.turn(watched.state)
    assert watched.last.input == Input(start, away) and watched.last.answer is None
    assert watched.last.model.since == start and watched.last.process.told == watched.clock.now
    watched.state_now = replace(watched.state_now, phase=WorkerPhase.SERVING, away=None)
    watched.see(1.0)
    assert watched.last.input == Input(None, None)
    assert watched.last.model.since == 1.7e9 + watched.clock.now
    heard = 1.7e9 + watched.clock.now
    for _ in range(60):
        watched.clock.now += 1.0
        watched.watch.turn(watched.state)
    assert watched.last.input.silent_since == heard
    watched.see(1.0, flags=Flag.GAP, tier=3, valid=False)
    assert watched.last.input.silent_since == heard
    watched.see(1.0)
    assert watched.last.input.silent_since is None


def test_threads_are_looked_at_and_shown() -> None:
    watched = Watched()
    broken = MonitoredThread("broken", lambda: None)
    broken.error, broken.ended = "OSError: full", True
    watched.threads.watch([broken])
    for _ in range(30):
        watched.see()
    (state,) = watched.last.threads
    assert (state.name, state.error, state.ended) == ("broken", "OSError: full", True)
    assert watched.log == ["thread broken failed (OSError: full); it runs again"]


def test_channels() -> None:
    watched = Watched()
    watched.see(masked=("a",), imputed=("a", "b"), alarm=True, blamed=("b",))
    watched.see(1.0, imputed=("b",))
    assert watched.last.channels == (
        ChannelStatus("a", False, False, False, 1, 1),
        ChannelStatus("b", False, True, False, 0, 2),
    )
    assert watched.ears[0].heard[0].channels == (
        ChannelStatus("a", True, True, False, 1, 1),
        ChannelStatus("b", False, True, True, 0, 1),
    )


def test_the_trail_is_the_highest_share_of_each_second() -> None:
    watched = Watched()
    for score, threshold in ((1.0, 2.0), (4.0, 2.0), (0.5, 1.0), (-3.0, 2.0)):
        watched.see(0.4, score=score, threshold=threshold)
    watched.see(1.0, score=None, threshold=None)
    watched.see(1.0, score=-3.0, threshold=2.0)
    assert watched.last.trail == (0.5, 2.0, None, -1.5)


def test_the_trail_is_bounded_in_length_and_height() -> None:
    trail, infinite = ScoreHistory(), float("inf")
    for _ in range(2 * LENGTH):
        trail.add(float("nan"), 1.0)
        trail.add(1.0, float("nan"))
        trail.add(5.0, 0.0)
        trail.add(infinite, 1.0)
        assert trail.point()[-1] == 1e6
        trail.add(-infinite, 1.0)
        trail.add(float("nan"), 1.0)
        points = trail.point()
    assert points == (1e6, -1e6) * (LENGTH // 2)


def test_news_of_the_board_reach_the_log_without_any_outlet() -> None:
    watched = Watched(outlets=0)
    watched.see()
    for bits in (0x0, 0x10001, 0x10001, 0x10000):
        watched.board.health = BoardHealth(50.0, bits)
        watched.see(seconds=1.0)
    watched.board.health = None
    watched.see(seconds=1.0)
    assert watched.log == [
        "the board reports under-voltage",
        "the board reports no under-voltage any more",
    ]
    assert watched.asked == 0


def test_changes_of_tier_reach_the_log() -> None:
    watched = Watched(outlets=0)
    watched.see(tier=3, flags=Flag.FALLBACK)
    watched.see()
    assert watched.log == ["sample 1: tier 3→1, model"]


def test_a_supervisor_shows_every_record_once_it_is_out() -> None:
    seen: list[tuple[int, int, int, WorkerPhase, str]] = []

    def observe(record: Record, state: Callable[[], RunState]) -> None:
        now = state()
        assert run.records[-1] is record is now.summary.last
        seen.append(
            (record.index, now.summary.records, now.summary.restarts, now.phase, now.kernel)
        )

    run = Run(WatchedProcess("abort@3"), rows=6, observe=observe)
    run()
    assert [index for index, *_ in seen] == list(range(6))
    assert seen[0] == (0, 1, 0, WorkerPhase.SERVING, "fake-kernel")
    assert [restarts for _, _, restarts, *_ in seen] == [0, 0, 0, 0, 1, 2]
    # The second one breaks at the same sample when it catches up.
    assert run.supervisor.summary.restarts == 2
    assert seen[4][3] in (WorkerPhase.LOADING, WorkerPhase.SHADOWING)
    assert run.supervisor.summary.transitions == {"1→3": 1}
    assert "changes      1→3 1" in run.supervisor.summary.to_text()
