"""A process that begins anew is given the last samples: who answers then, and with which state.

The processes are real, and so are the faults: killed, stopped, hung, broken by one sample.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from supervised_run import (
    BACK,
    HASTY,
    PATIENT,
    Clock,
    FakeFallback,
    RememberingProcess,
    Run,
    WatchedProcess,
    fallback_indices,
)

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.fallback import Fallback
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision.policy import AGREEING, MISSES, RETURN_WINDOW, RETURNS
from edge_runtime.supervision.worker_process import BundleIdentity, worker_command

AT = BACK + 15  # when it happens: there are more samples than are remembered
ROWS = tiny_model.machine_rows(600, seed=8)


class FakeProcess(WatchedProcess):
    """A fake worker. `heard`: how long it was waited for each time while it was behind.

    patient: wait all the same, so that a live run, which does not, sees what is there for certain.
    """

    patient = False

    def __init__(self, plan: str = "none@0") -> None:
        super().__init__(plan)
        self.heard: list[float] = []

    def hear(self, timeout: float) -> list[Record]:
        self.heard.append(timeout)
        return super().hear(PATIENT if self.patient else timeout)

    def kill_now(self) -> None:
        assert self.pid
        os.kill(self.pid, signal.SIGKILL)


def killed_at(process: RememberingProcess, *rows: int) -> Callable[[int], None]:
    """What to do before a row: kill the process for real, and let the next one load."""

    def before(row: int) -> None:
        process.wait_until_loaded()
        if row in rows:
            assert process.pid
            os.kill(process.pid, signal.SIGKILL)

    return before


def back_at(records: list[Record]) -> list[int]:
    return [record.index for record in records if Flag.RESTARTED in record.flags]


def test_the_first_answer_after_a_kill_is_the_model_s_again() -> None:
    process = FakeProcess()
    run = Run(process, AT + 20, before=killed_at(process, AT))
    records = run()
    assert fallback_indices(records) == [AT] and back_at(records) == [AT + 1]
    assert f"gruard: the model has caught up with the last {BACK} samples\n" in run.log
    assert run.supervisor.summary.restarts == 1 and run.supervisor.summary.caught_up == BACK
    assert f"caught up    {BACK} samples" in run.supervisor.summary.to_text()


def test_a_young_run_catches_up_with_what_there_is_and_proves_the_rest() -> None:
    process = FakeProcess()
    run = Run(process, BACK + 20, before=killed_at(process, 30))
    records = run()
    assert back_at(records) == [BACK - 1]
    assert run.supervisor.summary.caught_up == 31


def test_samples_on_which_the_fallback_said_otherwise_count_as_such() -> None:
    """As if the process had been there: the disagreement begins the count of agreement anew."""

    class Contrary(FakeFallback):
        def step(self, sample: Sample) -> Record:
            record = super().step(sample)
            return replace(record, alarm=True) if sample.index == AT - 30 else record

    process = FakeProcess()
    run = Run(process, AT + 100, before=killed_at(process, AT), fallback=Contrary())
    assert back_at(run()) == [AT - 30 + AGREEING]


def test_a_fourth_return_within_an_hour_has_to_wait_all_the_same() -> None:
    clock, process = Clock(), FakeProcess()
    kills = [AT + 10 * i for i in range(RETURNS + 1)]
    die = killed_at(process, *kills)

    def before(row: int) -> None:
        die(row)
        if row in kills:
            clock.now += 700.0  # so that a restart is allowed
        if row == kills[-1] + 10:
            clock.now += RETURN_WINDOW

    process.patient = True
    run = Run(process, kills[-1] + 20, before=before, clock=clock, live=True)
    records = run()
    assert back_at(records) == [*(row + 1 for row in kills[:-1]), kills[-1] + 10]
    assert run.supervisor.summary.caught_up == len(kills) * BACK


def test_a_live_run_never_waits_and_is_marked_until_the_process_is_through() -> None:
    """The new process is stopped before it can answer anything, and goes on five samples later."""
    process = FakeProcess()
    die = killed_at(process, AT)

    def before(row: int) -> None:
        die(row)
        if row == AT + 1:
            os.kill(process.pids[1], signal.SIGSTOP)
        if row == AT + 6:
            os.kill(process.pids[1], signal.SIGCONT)
            process.patient = True

    run = Run(process, AT + 20, before=before, live=True)
    records = run()
    assert fallback_indices(records) == list(range(AT, AT + 6)) and back_at(records) == [AT + 6]
    assert not any(Flag.LATE in record.flags for record in records)
    assert process.heard and set(process.heard) == {0.0}
    assert f"caught up with the last {BACK + 5} samples" in run.log


def test_a_stream_that_outruns_the_process_waits_for_it_a_deadline_each_time() -> None:
    """Or a file that is piped in would never see the model again."""
    process = FakeProcess()
    die, caught = killed_at(process, AT), AT + 2 + BACK

    def before(row: int) -> None:
        die(row)
        if row == AT + 1:
            os.kill(process.pids[1], signal.SIGSTOP)
        if row == caught:
            os.kill(process.pids[1], signal.SIGCONT)

    run = Run(process, caught + 5, before=before, live=True)
    records = run()
    assert back_at(records) == [caught] and fallback_indices(records) == list(range(AT, caught))
    assert set(process.heard[: BACK + 1]) == {0.0} and set(process.heard[BACK + 1 :]) == {PATIENT}


def test_a_file_with_a_rate_is_like_a_live_run() -> None:
    process = FakeProcess()
    process.patient = True
    run = Run(process, AT + 5, before=killed_at(process, AT), interval=0.1)
    assert back_at(run()) == [AT + 1] and set(process.heard) == {0.0}


def test_a_live_run_gives_up_a_process_that_stands_still() -> None:
    """And the next one, that the samples may have stopped as well, begins with a warm-up."""
    clock, process = Clock(), FakeProcess()
    die = killed_at(process, AT)

    def before(row: int) -> None:
        die(row)
        if row == AT + 1:
            os.kill(process.pids[1], signal.SIGSTOP)
        if row == AT + 5:
            clock.now += MISSES * PATIENT  # the deadline
        if row > AT + 5:
            clock.now += 1.0
            process.patient = True

    run = Run(process, AT + 5 + BACK + 20, before=before, clock=clock, live=True)
    records = run()
    assert f"did not catch up: stands still at sample {AT - BACK + 1}" in run.log
    assert len(process.pids) == 3 and run.supervisor.summary.restarts == 2
    # Everything up to sample AT + 5 is forgotten, so that the warm-up begins with AT + 6.
    assert back_at(records) == [AT + 6 + BACK - 1]


def test_a_sample_that_breaks_every_process_breaks_two() -> None:
    clock, process = Clock(), FakeProcess(f"abort@{AT}")

    def before(row: int) -> None:
        clock.now += 1.0
        process.wait_until_loaded()

    run = Run(process, AT + BACK + 20, before=before, clock=clock)
    records = run()
    # The second one comes to it when sample AT + 1 is due, and nothing up to there is given again.
    assert back_at(records) == [AT + 2 + BACK - 1]
    assert fallback_indices(records) == list(range(AT, AT + 2 + BACK - 1))
    assert len(process.pids) == 3 and run.supervisor.summary.restarts == 2


def test_a_sample_that_hangs_every_process_hangs_two() -> None:
    class Hanging(FakeProcess):
        def answer(self, sample: Sample, timeout: float) -> Record | None:
            return super().answer(
                sample, HASTY if len(self.pids) == 1 and hung(sample) else timeout
            )

        def hear(self, timeout: float) -> list[Record]:
            return super().hear(HASTY if len(self.pids) == 2 else timeout)

    def hung(sample: Sample) -> bool:
        return sample.index >= AT

    clock, process = Clock(), Hanging(f"hang@{AT}")

    def before(row: int) -> None:
        clock.now += 1.0
        process.wait_until_loaded()

    run = Run(process, AT + BACK + 20, before=before, clock=clock)
    records = run()
    late = [record.index for record in records if Flag.LATE in record.flags]
    assert late == [AT]
    assert "did not catch up: stands still at sample" in run.log
    assert back_at(records) == [AT + 2 + BACK - 1] and len(process.pids) == 3


# With a real model: the state.


class RealRun(Run):
    """The small model over its machine's rows, killed at one of them."""

    def __init__(self, bundle: Bundle, rows: int, kill: int) -> None:
        process = RememberingProcess(
            worker_command(bundle.path), identity=BundleIdentity.of(bundle)
        )
        super().__init__(
            process,
            values=list(ROWS[:rows]),
            times=[float(row) for row in range(rows)],
            before=killed_at(process, kill),
            fallback=Fallback(bundle.manifest, bundle.model_hash),
            warmup=bundle.manifest.tiers.warmup,
        )

    def __call__(self) -> list[Record]:
        self.supervisor.run()
        assert [record.index for record in self.records] == list(range(len(self.records)))
        return self.records


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def undisturbed(bundle: Bundle) -> list[Record]:
    detector = Detector(bundle)
    return [detector.step(Sample(i, float(i), row)) for i, row in enumerate(ROWS)]


def apart(records: list[Record], others: list[Record]) -> float:
    """The largest difference of two scores."""
    pairs = zip(records, others, strict=True)
    return float(np.max([abs((a.score or 0.0) - (b.score or 0.0)) for a, b in pairs]))


def test_with_all_samples_remembered_the_state_is_the_lost_one_to_the_last_bit(
    bundle: Bundle, undisturbed: list[Record]
) -> None:
    kill = bundle.manifest.tiers.warmup + AGREEING - 1
    records = RealRun(bundle, kill + 200, kill)()
    assert records[:kill] == undisturbed[:kill]
    assert records[kill].tier == 3 and Flag.FALLBACK in records[kill].flags
    first, *others = records[kill + 1 :]
    assert first == replace(undisturbed[kill + 1], flags=undisturbed[kill + 1].flags | first.flags)
    assert first.tier == 1 and Flag.RESTARTED in first.flags
    assert others == undisturbed[kill + 2 : kill + 200]


def test_with_the_last_samples_remembered_the_state_is_soon_the_lost_one(
    bundle: Bundle, undisturbed: list[Record]
) -> None:
    kill = 300
    records = RealRun(bundle, len(ROWS), kill)()
    assert records[kill].tier == 3 and back_at(records) == [kill + 1]
    assert [r.tier for r in records[kill + 1 :]] == [r.tier for r in undisturbed[kill + 1 :]]
    assert [r.alarm for r in records[kill + 1 :]] == [r.alarm for r in undisturbed[kill + 1 :]]
    assert apart(records[kill + 1 :], undisturbed[kill + 1 :]) < 0.05
    assert apart(records[kill + 200 :], undisturbed[kill + 200 :]) < 1e-3


def test_a_state_that_begins_where_the_process_was_killed_is_another_one(
    bundle: Bundle, undisturbed: list[Record]
) -> None:
    """Or the comparison of the last bits would prove nothing."""
    kill, warmup = bundle.manifest.tiers.warmup + AGREEING - 1, bundle.manifest.tiers.warmup
    detector = Detector(bundle)
    rows = enumerate(ROWS[kill + 1 : kill + 1 + warmup])
    begun = [detector.step(Sample(kill + 1 + i, float(kill + 1 + i), row)) for i, row in rows]
    assert apart(begun, undisturbed[kill + 1 : kill + 1 + warmup]) > 0.05


def test_without_any_the_fallback_answers_for_long(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.supervision.worker_manager.CatchUp.keep", lambda *_: None)
    records = RealRun(bundle, len(ROWS), 300)()
    assert back_at(records)[0] > 300 + AGREEING
