"""Real processes with real faults: exactly one record per index, in order, and marked."""

import os
import signal
from collections.abc import Callable

import faulty_worker
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from supervised_run import (
    BACK,
    HASTY,
    Clock,
    RememberingProcess,
    Run,
    ScriptedProcess,
    WatchedProcess,
    assert_gone,
    check_promises,
    fallback_indices,
)

from edge_runtime.record import Flag, Record, Sample
from edge_runtime.sources.sample_clock import GAPS_A_READING, MOST_GAPS
from edge_runtime.supervision import policy
from edge_runtime.supervision.injection import parse_injections
from edge_runtime.supervision.policy import BACK_OFF
from edge_runtime.supervision.supervisor import RunState, answer_deadline
from edge_runtime.supervision.worker_process import WorkerProcess


def test_healthy_worker_answers_every_sample_from_the_first() -> None:
    run = Run(WatchedProcess("none@0"))
    records = run()
    assert len(records) == 12 and fallback_indices(records) == []
    assert all(record.valid for record in records)
    assert run.supervisor.summary.restarts == 0


@pytest.mark.parametrize("fault", ["abort", "raise", "garbage", "close"])
def test_broken_worker_costs_the_model_but_no_record(fault: str) -> None:
    process = WatchedProcess(f"first-{fault}@4")

    def wait(row: int) -> None:
        if row == 5:
            assert len(process.pids) == 2  # replaced at once: the next sample may be far off
            process.wait_until_loaded()

    rows = BACK + 10
    run = Run(process, rows, before=wait)
    records = run()
    assert len(records) == rows and len(process.pids) == 2
    # The first samples are its warm-up once more; from sample 5 on its alarms count.
    assert faulty_worker.WARMUP == 5
    assert fallback_indices(records) == list(range(4, BACK - 1))
    restarted = [record.index for record in records if Flag.RESTARTED in record.flags]
    assert restarted == [BACK - 1]
    assert run.supervisor.summary.restarts == 1
    assert "gruard: worker " in run.log and "answers again" in run.log


@pytest.mark.parametrize("fault", ["hang", "deaf"])
def test_hanging_worker_is_late_then_ended_and_replaced(fault: str) -> None:
    process = WatchedProcess(f"{fault}@4")
    records = Run(process, rows=12, deadline=HASTY, live=True)()
    assert len(records) == 12 and len(process.pids) >= 2
    assert set(range(4, 12)) <= set(fallback_indices(records))
    assert Flag.LATE in records[4].flags


def test_where_a_worker_hangs_is_told() -> None:
    run = Run(WatchedProcess("hang@4"), rows=12, deadline=HASTY, live=True)
    run()
    told = "gruard: worker stuck before stage 'invoke' for 300 ms; the fallback answers until"
    assert f"{told} it restarts\n" in run.log


@pytest.mark.parametrize(
    ("fault", "told"),
    [("skip", "came to check, but invoke was due"), ("twice", "sent an unexpected answer")],
)
def test_an_answer_that_skips_a_stage_or_comes_twice_ends_the_worker(fault: str, told: str) -> None:
    """Such a worker is alive and in time, and must not be believed all the same."""
    run = Run(WatchedProcess(f"{fault}@4"), rows=8)
    records = run()
    assert told in run.log
    assert records[4].tier == (3 if fault == "skip" else 1)
    assert records[5].tier == 3


def test_late_answers_are_thrown_away_by_index() -> None:
    records = Run(WatchedProcess("late@4"), deadline=HASTY, live=True)()
    assert Flag.LATE | Flag.FALLBACK in records[4].flags
    assert len(records) == 12  # check_promises: no later record carries the answer of sample 4


def test_rubbish_on_stdout_reaches_stderr_only(capfd: pytest.CaptureFixture[str]) -> None:
    records = Run(WatchedProcess("print@4"))()
    out, err = capfd.readouterr()
    assert fallback_indices(records) == []
    assert out == "" and "rubbish from a library" in err


def test_a_worker_that_always_breaks_is_restarted_for_ever_but_less_and_less_often() -> None:
    clock, waiting = Clock(), list[str]()
    process = RememberingProcess(("/bin/false",), identity=faulty_worker.identity_of(""))

    def pass_time(row: int) -> None:
        clock.now += 100.0
        process.wait_for_a_word()

    def watch(record: Record, state: Callable[[], RunState]) -> None:
        waiting.append(state().waiting)

    run = Run(process, rows=150, before=pass_time, clock=clock, observe=watch, live=True)
    records = run()
    assert fallback_indices(records) == list(range(150))
    # 15,000 s: at once, 1, 5, 30, 300 s, and then every hour.
    assert 1 + len(BACK_OFF) < len(process.pids) <= 1 + len(BACK_OFF) + 4
    assert "the fallback answers until it restarts in 60 min\n" in run.log
    assert waiting[-1].startswith("worker ended with exit code 1; next attempt in ")


def test_missing_program_leaves_the_fallback() -> None:
    run = Run(WorkerProcess(("/no/such/program",), identity=faulty_worker.identity_of("")))
    assert fallback_indices(run()) == list(range(12))
    assert "could not be started" in run.log


def test_worker_that_never_says_hello_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "LOAD_LIMIT", 0.01)
    monkeypatch.setattr("edge_runtime.supervision.worker_manager.LOAD_LIMIT", 0.01)
    clock, process = Clock(), WatchedProcess("load:mute")

    def pass_time(row: int) -> None:
        clock.now += 10.0

    run = Run(process, rows=20, before=pass_time, clock=clock, live=True)
    assert fallback_indices(run()) == list(range(20))
    assert len(process.pids) == 5 and "worker did not load within 10 ms; the" in run.log


def test_injected_crash_hits_its_sample() -> None:
    run = Run(WatchedProcess("none@0"), injections=parse_injections("crash@7", ["a"]))
    assert fallback_indices(run())[0] == 7
    assert "sample 7: injected crash\n" in run.log


def test_injected_hang_hits_its_sample() -> None:
    injections = parse_injections("hang@7", ["a"])
    run = Run(WatchedProcess("none@0"), deadline=HASTY, injections=injections, live=True)
    assert Flag.FALLBACK in run()[7].flags


def test_injected_sensor_fault_reaches_the_model_and_the_log() -> None:
    run = Run(WatchedProcess("none@0"), injections=parse_injections("level:a@3+2*500", ["a"]))
    assert [record.index for record in run() if record.alarm] == [3, 4]
    assert "sample 3: injected level:a@3+2*500" in run.log
    assert run.supervisor.summary.alarms == 1


def test_missing_samples_are_rows_of_missing_readings() -> None:
    times = [0.0, 1.0, 2.0, 5.0, None, 7.4, 8.0, 9.3, 9.8, 11.0]
    records = Run(WatchedProcess("none@0"), times=times)()
    gaps = [record for record in records if Flag.GAP in record.flags]
    assert [(gap.index, gap.time) for gap in gaps] == [(3, 3.0), (4, 4.0)]
    # The model bridges them: nothing falls back.
    assert all(gap.tier == 1 and gap.valid for gap in gaps)
    assert [record.time for record in records if Flag.GAP not in record.flags] == times
    assert not any(Flag.TIMING in record.flags for record in records)


def test_a_gap_that_no_model_bridges_is_not_judged() -> None:
    process = WatchedProcess("abort@1")
    run = Run(process, times=[0.0, 3.0, 4.0, 5.0, 6.0], values=[500.0] * 5)
    gaps = [record for record in run() if Flag.GAP in record.flags]
    assert len(gaps) == 2
    assert all(gap.tier == 3 and gap.score is None and not gap.valid for gap in gaps)
    assert all(gap.alarm and gap.blamed for gap in gaps)  # as before it


def test_an_alarm_lasts_through_a_gap() -> None:
    run = Run(WatchedProcess("none@0"), times=[0.0, 1.0, 4.0], values=[0.0, 500.0, 500.0])
    records = run()
    assert [r.alarm for r in records if Flag.GAP not in r.flags] == [False, True, True]


def test_a_long_outage_is_one_record_with_a_count() -> None:
    run = Run(WatchedProcess("none@0"), times=[0.0, *(1e6 + i for i in range(4))])
    records = run()
    assert len(records) == 5 + MOST_GAPS + 1
    assert [r.slots for r in records if r.slots > 1] == [999_999 - MOST_GAPS]
    assert sum(record.slots for record in records) == 1_000_004
    assert run.supervisor.summary.timing == {"missing": 999_999}


def test_jumping_times_cannot_flood_the_sink() -> None:
    rows = 200
    run = Run(WatchedProcess("none@0"), times=[1000.0 * i for i in range(rows)])
    assert len(run()) <= rows * (1 + GAPS_A_READING + 1) + MOST_GAPS


def test_a_clock_that_jumps_all_the_time_is_told_once_a_minute() -> None:
    times = [1e6 * (-1) ** (i // 10) + i for i in range(100)]
    run = Run(WatchedProcess("none@0"), times=times)
    run()
    assert run.supervisor.summary.timing["clock stepped"] > 3
    assert run.log.count("the source's clock was set") == 1


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


@settings(max_examples=200, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(["good", "good", "good", "late", "gone"]), max_size=60),
    steps=st.lists(st.sampled_from([1.0, 1.0, 1.0, 0.0, 2.0, 3.4, -1.0, None]), max_size=40),
    accelerated=st.booleans(),
)
def test_one_record_per_index_whatever_happens(
    outcomes: list[str], steps: list[float | None], accelerated: bool
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

    process = ScriptedProcess(script, accelerated)
    run = Run(process, times=times, before=pass_time, clock=clock)
    records, timing = run(), run.supervisor.summary.timing
    on_cpu = [Flag.CPU in record.flags for record in records if record.tier != 3]
    assert on_cpu == sorted(on_cpu) and not (on_cpu and on_cpu[0] and not accelerated)
    left_out = len(times) - sum(Flag.GAP not in record.flags for record in records)
    named = ("early", "late", "duplicate", "out of order")
    assert 0 <= left_out <= sum(timing.get(name, 0) for name in named)


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
