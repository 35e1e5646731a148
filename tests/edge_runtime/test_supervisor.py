"""Real processes with real faults: exactly one record per index, in order, and marked."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import faulty_worker
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import wire
from edge_runtime.injection import Injections, parse_injections
from edge_runtime.notify import Notifier
from edge_runtime.policy import AGREEING, BACK_OFF
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.sinks import SinkClosedError
from edge_runtime.sources import Reading
from edge_runtime.summary import Console
from edge_runtime.supervisor import (
    LONGEST_GAP,
    Settings,
    Supervisor,
    Surroundings,
    answer_deadline,
)
from edge_runtime.worker_process import WorkerGoneError, WorkerProcess

PATIENT = 30.0  # no healthy answer takes so long, however busy the machine
HASTY = 0.3  # for faults that only a deadline can find
BACK = faulty_worker.WARMUP + AGREEING  # shadow samples until the model answers again


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class ListSink:
    dropped = 0

    def __init__(self, room: int | None = None) -> None:
        self.records: list[Record] = []
        self.room = room

    def write(self, record: Record) -> None:
        if len(self.records) == self.room:
            raise SinkClosedError
        self.records.append(record)

    def close(self) -> None:
        pass


class ListSource:
    """Readings one by one; `before(row)` runs before each, to move the clock or to wait."""

    bad_cells = bad_rows = 0

    def __init__(self, readings: list[Reading], before: Callable[[int], None]) -> None:
        self.readings, self.before = readings, before

    def __iter__(self) -> Iterator[Reading]:
        for row, reading in enumerate(self.readings):
            self.before(row)
            yield reading


class FakeFallback:
    def step(self, sample: Sample) -> Record:
        alarm = faulty_worker.alarming(sample)
        blamed = ("a",) if alarm else ()
        return Record(
            sample.index, sample.time, 3, Flag.FALLBACK, False, 0.5, 1.0, alarm, (), (), blamed, ""
        )


class WatchedProcess(WorkerProcess):
    """Remembers every process it ever started."""

    def __init__(self, plan: str) -> None:
        super().__init__((sys.executable, faulty_worker.__file__, plan))
        self.pids: list[int] = []

    def start(self) -> None:
        super().start()
        self.pids.append(self.pid)

    def wait_until_loaded(self) -> None:
        if self.pid:
            with suppress(WorkerGoneError):
                self.poll_ready(PATIENT)


class Run:
    """One supervised run over rows of one channel, with everything it left behind."""

    def __init__(
        self,
        process: WorkerProcess,
        rows: int = 12,
        deadline: float = PATIENT,
        times: list[float | None] | None = None,
        values: list[float] | None = None,
        before: Callable[[int], None] = lambda row: None,
        room: int | None = None,
        injections: Injections | None = None,
        clock: Clock | None = None,
        interval: float | None = None,
    ) -> None:
        times = [float(row) for row in range(rows)] if times is None else times
        values = [0.0] * len(times) if values is None else values
        readings = [
            Reading(t, np.array([v], np.float32)) for t, v in zip(times, values, strict=True)
        ]
        self.process, self.clock = process, clock or Clock()
        self.sink, self.stderr = ListSink(room), io.StringIO()
        self.supervisor = Supervisor(
            ListSource(readings, before),
            self.sink,
            process,
            FakeFallback(),
            injections or Injections([], []),
            Settings(1.0, deadline, interval),
            Surroundings(
                self.clock,
                self.clock.sleep,
                Console(self.stderr, self.clock),
                Notifier({}, self.clock),
            ),
        )

    def __call__(self) -> list[Record]:
        self.supervisor.run()
        check_promises(self.records)
        assert_gone(self.process)
        return self.records

    @property
    def records(self) -> list[Record]:
        return self.sink.records

    @property
    def log(self) -> str:
        return self.stderr.getvalue()


def check_promises(records: list[Record]) -> None:
    """I1 to I3: one record per index in order, and nothing that hides who answered."""
    assert [record.index for record in records] == list(range(len(records)))
    for record in records:
        if record.tier == 3:
            assert Flag.FALLBACK in record.flags and not record.valid
        else:
            assert record.model == faulty_worker.MODEL and record.score == record.index


def assert_gone(process: WorkerProcess) -> None:
    assert process.pid is None
    for pid in getattr(process, "pids", []):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def fallback_indices(records: list[Record]) -> list[int]:
    return [record.index for record in records if record.tier == 3]


def test_healthy_worker_answers_every_sample_from_the_first() -> None:
    run = Run(WatchedProcess("none@0"))
    records = run()
    assert len(records) == 12 and fallback_indices(records) == []
    assert all(record.valid for record in records)
    assert run.supervisor.summary.restarts == 0


@pytest.mark.parametrize("fault", ["abort", "raise", "garbage", "close"])
def test_broken_worker_costs_the_model_but_no_record(fault: str) -> None:
    process = WatchedProcess(f"{fault}@4")

    def wait(row: int) -> None:
        if row == 5:
            assert len(process.pids) == 2  # replaced at once: the next sample may be far off
        if row == 6:
            process.wait_until_loaded()

    rows = 6 + BACK + 10
    run = Run(process, rows, before=wait)
    records = run()
    assert len(records) == rows and len(process.pids) == 2
    # Sample 6 is the first shadow answer, the BACK-th takes over.
    assert fallback_indices(records) == list(range(4, 6 + BACK - 1))
    restarted = [record.index for record in records if Flag.RESTARTED in record.flags]
    assert restarted == [6 + BACK - 1]
    assert run.supervisor.summary.restarts == 1
    assert "inference process" in run.log and "answers again" in run.log


@pytest.mark.parametrize("fault", ["hang", "deaf"])
def test_hanging_worker_is_late_then_ended_and_replaced(fault: str) -> None:
    process = WatchedProcess(f"{fault}@4")
    records = Run(process, rows=12, deadline=HASTY)()
    assert len(records) == 12 and len(process.pids) >= 2
    assert set(range(4, 12)) <= set(fallback_indices(records))
    assert Flag.LATE in records[4].flags


def test_late_answers_are_thrown_away_by_index() -> None:
    records = Run(WatchedProcess("late@4"), deadline=HASTY)()
    assert Flag.LATE | Flag.FALLBACK in records[4].flags
    assert len(records) == 12  # check_promises: no later record carries the answer of sample 4


def test_rubbish_on_stdout_reaches_stderr_only(capfd: pytest.CaptureFixture[str]) -> None:
    records = Run(WatchedProcess("print@4"))()
    out, err = capfd.readouterr()
    assert fallback_indices(records) == []
    assert out == "" and "rubbish from a library" in err


@pytest.mark.parametrize("plan", ["load:exit", "load:fail"])
def test_worker_that_cannot_load_is_tried_four_times_at_most(plan: str) -> None:
    clock, process = Clock(), WatchedProcess(plan)

    def pass_time(row: int) -> None:
        clock.now += 10.0
        process.wait_until_loaded()

    run = Run(process, rows=20, before=pass_time, clock=clock)
    records = run()
    assert fallback_indices(records) == list(range(20))
    assert len(process.pids) == 1 + len(BACK_OFF)
    assert "the fallback stays" in run.log


def test_missing_program_leaves_the_fallback() -> None:
    run = Run(WorkerProcess(("/no/such/program",)))
    assert fallback_indices(run()) == list(range(12))
    assert "could not be started" in run.log


def test_worker_that_never_says_hello_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.worker_care.LOAD_LIMIT", 0.01)
    clock, process = Clock(), WatchedProcess("load:mute")

    def pass_time(row: int) -> None:
        clock.now += 10.0

    run = Run(process, rows=20, before=pass_time, clock=clock)
    assert fallback_indices(run()) == list(range(20))
    assert len(process.pids) == 1 + len(BACK_OFF) and "did not load" in run.log


def test_a_worker_that_breaks_at_every_sample_is_given_up() -> None:
    clock, process = Clock(), WatchedProcess("abort@*")

    def pass_time(row: int) -> None:
        clock.now += 10.0
        process.wait_until_loaded()

    run = Run(process, rows=20, before=pass_time, clock=clock)
    assert fallback_indices(run()) == list(range(20))
    assert len(process.pids) == 1 + len(BACK_OFF)


def test_restart_budget_is_spent_per_ten_minutes() -> None:
    clock, process = Clock(), WatchedProcess("abort@*")

    def pass_time(row: int) -> None:
        clock.now += 300.0  # so far apart that only two restarts fall into any ten minutes
        process.wait_until_loaded()

    run = Run(process, rows=10, before=pass_time, clock=clock)
    assert fallback_indices(run()) == list(range(10))
    assert len(process.pids) > 1 + len(BACK_OFF) and "the fallback stays" not in run.log


def test_injected_crash_hits_its_sample() -> None:
    run = Run(WatchedProcess("none@0"), injections=parse_injections("crash@7", ["a"]))
    assert fallback_indices(run())[0] == 7
    assert "sample 7: injected crash\n" in run.log


def test_injected_hang_hits_its_sample() -> None:
    injections = parse_injections("hang@7", ["a"])
    run = Run(WatchedProcess("none@0"), deadline=HASTY, injections=injections)
    assert Flag.FALLBACK in run()[7].flags


def test_injected_sensor_fault_reaches_the_model_and_the_log() -> None:
    run = Run(WatchedProcess("none@0"), injections=parse_injections("level:a@3+2*500", ["a"]))
    assert [record.index for record in run() if record.alarm] == [3, 4]
    assert "sample 3: injected level:a@3+2*500" in run.log
    assert run.supervisor.summary.alarms == 1


def test_samples_the_source_left_out_are_answered_as_gaps() -> None:
    times = [0.0, 1.0, 2.0, 5.0, None, 7.0, 8.4, 8.0, 9.0]
    records = Run(WatchedProcess("none@0"), times=times)()
    gaps = [record for record in records if Flag.GAP in record.flags]
    assert [(gap.index, gap.time) for gap in gaps] == [(3, 3.0), (4, 4.0)]
    assert all(gap.score is None and not gap.valid and gap.tier == 3 for gap in gaps)
    assert len(records) == len(times) + 2


def test_an_alarm_lasts_through_a_gap() -> None:
    run = Run(WatchedProcess("none@0"), times=[0.0, 1.0, 4.0], values=[0.0, 500.0, 500.0])
    assert [record.alarm for record in run()] == [False, True, True, True, True]
    assert run.supervisor.summary.alarms == 1


def test_an_endless_gap_is_bounded_and_told() -> None:
    run = Run(WatchedProcess("none@0"), times=[0.0, 1e9, 1e9 + 1])
    records = run()
    assert len(records) == 3 + LONGEST_GAP
    assert "999999999 samples were missing" in run.log
    assert Flag.WARMUP in records[-1].flags  # the model was told to start afresh


def test_a_reader_that_leaves_ends_the_run_quietly() -> None:
    assert len(Run(WatchedProcess("none@0"), room=5)()) == 5


def test_ctrl_c_ends_the_worker_and_keeps_the_summary() -> None:
    def interrupt(row: int) -> None:
        if row == 5:
            os.kill(os.getpid(), signal.SIGINT)

    run = Run(WatchedProcess("none@0"), before=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert_gone(run.process)
    assert run.supervisor.summary.records == len(run.records) == 5


def test_rate_paces_by_the_injected_clock() -> None:
    run = Run(WatchedProcess("none@0"), rows=4, interval=0.25)
    run()
    assert run.clock.now == 1000.75 and run.clock.slept[0] == 0


def test_default_deadline_is_a_period_within_bounds() -> None:
    assert answer_deadline(0.001) == 0.05
    assert answer_deadline(0.2) == 0.2
    assert answer_deadline(60.0) == answer_deadline(None) == 1.0


class ScriptedProcess:
    """A worker made of drawn outcomes, for properties over many runs."""

    def __init__(self, outcomes: Iterator[str]) -> None:
        self.outcomes, self.pid = outcomes, None

    def start(self) -> None:
        assert self.pid is None
        self.pid = 1
        if next(self.outcomes) == "gone":
            self.pid = None
            raise WorkerGoneError("could not be started")

    def poll_ready(self, timeout: float = 0.0) -> wire.Hello | None:
        outcome = next(self.outcomes)
        if outcome == "gone":
            raise WorkerGoneError("ended")
        return None if outcome == "late" else wire.Hello("scripted", 0.0)

    def ask(self, sample: Sample, timeout: float) -> Record | None:
        outcome = next(self.outcomes)
        if outcome == "gone":
            raise WorkerGoneError("ended")
        return None if outcome == "late" else faulty_worker.model_record(sample)

    def send(self, message: wire.Reset | wire.Inject) -> None:
        if next(self.outcomes) == "gone":
            raise WorkerGoneError("ended")

    def stop(self) -> None:
        self.pid = None

    kill = stop


@settings(max_examples=200, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(["good", "good", "good", "late", "gone"]), max_size=60),
    steps=st.lists(st.sampled_from([1.0, 1.0, 1.0, 0.0, 2.0, 3.4, -1.0, None]), max_size=40),
)
def test_one_record_per_index_whatever_happens(
    outcomes: list[str], steps: list[float | None]
) -> None:
    times: list[float | None] = []
    now = 0.0
    for step in steps:
        now += step or 0.0
        times.append(None if step is None else now)
    script = iter([*outcomes, *["good"] * 10_000])
    clock = Clock()

    def pass_time(row: int) -> None:
        clock.now += 1.0

    records = Run(ScriptedProcess(script), times=times, before=pass_time, clock=clock)()
    assert len(records) - sum(Flag.GAP in record.flags for record in records) == len(times)


def test_the_checks_of_this_file_bite() -> None:
    good = [faulty_worker.model_record(Sample(i, None, np.zeros(1, np.float32))) for i in range(3)]
    check_promises(good)
    for spoilt in ([good[0], good[2]], [good[0], good[0]], [good[1], good[0]]):
        with pytest.raises(AssertionError):
            check_promises(spoilt)
    living = WatchedProcess("none@0")
    living.start()
    with pytest.raises(AssertionError):
        assert_gone(living)
    living.stop()
    assert_gone(living)
