"""Runs with an accelerator that fails: no record is lost, and the CPU takes over, marked, for good.

The bundle, the worker, the interpreter and the delegate library are real; so are the faults.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_model
from supervised_run import (
    BACK,
    HASTY,
    PATIENT,
    RememberingProcess,
    Run,
    WatchedProcess,
    fallback_indices,
)

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.kernels import CORE_KERNEL_ID, KERNEL_ID, Delegate
from edge_runtime.detector.thresholds import store_threshold
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision import wire
from edge_runtime.supervision.worker_process import BundleIdentity, worker_command

ROWS = tiny_model.machine_rows(600, seed=8)
UNPLUGGED_AT = 150
HIGHER = 5.0  # the accelerator's threshold is the CPU's and so much


class RealProcess(RememberingProcess):
    """The real worker with an accelerator and, after that, without.

    unplugged: the file that breaks the accelerator. An answer that it cannot give is waited for a
    little, all others for as long as they take.
    """

    def __init__(self, bundle: Path, delegate: Delegate, unplugged: Path) -> None:
        super().__init__(
            worker_command(bundle, kernel=delegate), worker_command(bundle),
            identity=BundleIdentity.of(read_bundle(bundle)),
        )  # fmt: skip
        self.unplugged = unplugged

    @property
    def accelerated(self) -> bool:
        return bool(self._fallbacks)

    def answer(self, sample: Sample, timeout: float) -> Record | None:
        hopeless = self.accelerated and self.unplugged.exists()
        return super().answer(sample, HASTY if hopeless else timeout)


class HangingProcess(RealProcess):
    """The same, with an accelerator that hangs while it loads: waits for just that."""

    hangs: int  # the end of a pipe that closes when the library hangs

    def poll_ready(self, timeout: float = 0.0) -> wire.Hello | None:
        if self.accelerated and timeout:
            assert select.select([self.hangs], [], [], PATIENT)[0]
        return super().poll_ready(0.0 if self.accelerated else timeout and PATIENT)


class RealRun(Run):
    """A run over the machine's rows, with the promises that hold for a real model."""

    def __init__(self, bundle: Bundle, process: RealProcess, rows: int = 120) -> None:
        fallback = Fallback(bundle.manifest, bundle.model_hash)
        values = list(ROWS[:rows])
        super().__init__(
            process, values=values, times=[float(i) for i in range(rows)], before=self.prepare,
            fallback=fallback, warmup=bundle.manifest.tiers.warmup,
        )  # fmt: skip
        self.bundle, self.rows, self.unplugged = bundle, rows, process.unplugged

    def prepare(self, row: int) -> None:
        if row == UNPLUGGED_AT:
            self.unplugged.touch()
        if row > UNPLUGGED_AT:
            self.process.wait_until_loaded()

    def __call__(self) -> list[Record]:
        self.supervisor.run()
        records, own = self.records, self.bundle.manifest.thresholds[KERNEL_ID].value
        assert [record.index for record in records] == list(range(self.rows))
        for record in records:
            if record.tier == 3:
                assert Flag.FALLBACK in record.flags and not record.valid
            else:
                higher = 0.0 if Flag.CPU in record.flags else HIGHER
                assert record.threshold == pytest.approx(own + higher)
                assert record.model == self.bundle.model_hash
        return records


@pytest.fixture
def bundle(bundle_copy: Path) -> Bundle:
    """With a threshold for the made accelerator that cannot be taken for the CPU's."""
    bundle = read_bundle(bundle_copy)
    own = bundle.manifest.thresholds[KERNEL_ID]
    store_threshold(bundle, "made", replace(own, value=own.value + HIGHER))
    return bundle


@pytest.fixture
def process(bundle: Bundle, delegate_library: Path, unplugged: Path) -> RealProcess:
    return RealProcess(bundle.path, Delegate(str(delegate_library)), unplugged)


@pytest.fixture
def unplugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "unplugged"
    monkeypatch.setenv("DELEGATE_UNPLUGGED", str(file))
    return file


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda what: monkeypatch.setenv("DELEGATE_PLAN", what)


def on_the_cpu(bundle: Bundle, rows: int = 120) -> list[Record]:
    detector = Detector(bundle)
    return [detector.step(Sample(i, float(i), row)) for i, row in enumerate(ROWS[:rows])]


def marked(records: list[Record]) -> list[Record]:
    return [replace(record, flags=record.flags | Flag.CPU) for record in records]


def test_a_healthy_accelerator_answers_like_the_cpu_with_its_own_threshold(
    bundle: Bundle, process: RealProcess
) -> None:
    run = RealRun(bundle, process)
    records = run()
    expected = on_the_cpu(bundle)
    assert [r.score for r in records] == [r.score for r in expected]
    assert [r.flags for r in records] == [r.flags for r in expected]
    assert len(process.pids) == 1 and " on made\n" in run.log


def test_an_accelerator_that_takes_nothing_is_told_to_be_the_cpu(
    bundle: Bundle, process: RealProcess, plan: Callable[[str], None]
) -> None:
    plan("idle")
    run = Run(process, 30, values=list(ROWS[:30]))
    run.supervisor.run()
    assert run.records == on_the_cpu(bundle, 30)
    assert len(process.pids) == 1 and f" on {KERNEL_ID}\n" in run.log


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("abort", "ended by SIGABRT; libedgetpu aborts when"),
        ("crash", "ended by SIGSEGV; a libedgetpu that was built for another TFLite"),
        ("no-device", "Failed to load delegate"),
        ("refuse", "the delegate refuses this model"),
        ("wrong", "self-test failed"),
    ],
)
def test_an_accelerator_that_does_not_load_leaves_sample_0_to_the_cpu(
    bundle: Bundle, process: RealProcess, plan: Callable[[str], None], fault: str, told: str
) -> None:
    plan(fault)
    run = RealRun(bundle, process)
    assert run() == marked(on_the_cpu(bundle))
    assert len(process.pids) == 2 and run.supervisor.summary.restarts == 1
    assert told in run.log and f" on {CORE_KERNEL_ID}\n" in run.log
    assert "from here on the CPU runs the model, without the accelerator" in run.log


def test_a_missing_library_is_explained_and_the_cpu_answers(
    bundle: Bundle, unplugged: Path
) -> None:
    run = RealRun(bundle, RealProcess(bundle.path, Delegate("libnot-there.so.1"), unplugged))
    assert run() == marked(on_the_cpu(bundle))
    assert "libnot-there.so.1: cannot open shared object file" in run.log
    assert "install that library" in run.log


def test_an_accelerator_without_a_threshold_is_not_used(
    tiny_bundle: Path, delegate_library: Path, unplugged: Path
) -> None:
    bundle = read_bundle(tiny_bundle)
    run = RealRun(bundle, RealProcess(tiny_bundle, Delegate(str(delegate_library)), unplugged))
    assert run() == marked(on_the_cpu(bundle))
    assert "no threshold for kernel made; calibrate it" in run.log


def test_an_accelerator_that_hangs_while_it_loads_is_ended(
    bundle: Bundle,
    delegate_library: Path,
    unplugged: Path,
    plan: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan("hang")
    process = HangingProcess(bundle.path, Delegate(str(delegate_library)), unplugged)
    fifo = tmp_path / "hangs"
    os.mkfifo(fifo)
    monkeypatch.setenv("DELEGATE_HANGS", str(fifo))
    process.hangs = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    run = RealRun(bundle, process)
    assert run() == marked(on_the_cpu(bundle))
    os.close(process.hangs)
    assert "did not load within" in run.log and len(process.pids) == 2


@pytest.mark.long
@pytest.mark.parametrize("fault", ["late-abort", "late-error", "late-hang"])
def test_an_accelerator_that_breaks_in_the_run_is_replaced_by_the_cpu_for_good(
    bundle: Bundle, process: RealProcess, plan: Callable[[str], None], fault: str
) -> None:
    plan(fault)
    run = RealRun(bundle, process, rows=len(ROWS))
    records = run()
    before, after = records[:UNPLUGGED_AT], records[UNPLUGGED_AT:]
    assert [r.score for r in before] == [r.score for r in on_the_cpu(bundle, UNPLUGGED_AT)]
    assert not any(Flag.CPU in record.flags for record in before)
    back = next(i for i, record in enumerate(after) if record.tier != 3)
    # By the time it is there it has computed the last samples, the CPU's first.
    assert back == 1
    assert "the model has caught up with the last " in run.log
    assert Flag.RESTARTED in after[back].flags
    assert all(Flag.CPU in record.flags for record in after[back:])
    assert not any(Flag.CPU in record.flags for record in after[:back])
    assert (Flag.LATE in after[0].flags) == (fault == "late-hang")
    assert len(process.pids) == 2 and run.supervisor.summary.restarts == 1
    assert "tier 1 on the CPU, not the accelerator" in run.supervisor.summary.status()


def chain(*plans: str, rows: int) -> tuple[Run, list[Record]]:
    """A fake worker's run over a recording, which waits for loading."""
    process = WatchedProcess(*plans)

    def wait(row: int) -> None:
        process.wait_until_loaded()

    run = Run(process, rows, before=wait)
    return run, run()


def test_the_cpu_s_own_failure_does_not_bring_the_accelerator_back() -> None:
    run, records = chain("abort@4", "abort@250", rows=260 + BACK)
    pids = run.process.pids
    # Sample 250 breaks the CPU's process, and the next one, which catches up with it.
    assert len(pids) == 4 and run.log.count("without the accelerator") == 1
    served = [record for record in records if record.tier == 1]
    assert [r.index for r in served if Flag.CPU not in r.flags] == list(range(4))
    assert served[-1].index > 250


@pytest.mark.long
@pytest.mark.parametrize("accelerator", ["load:exit", "abort@0"])
def test_the_chain_ends_at_the_fallback_and_goes_on_trying_at_a_bounded_rate(
    accelerator: str,
) -> None:
    run, records = chain(accelerator, "load:exit", rows=20)
    assert fallback_indices(records) == list(range(20))
    # One second from row to row: at the start, and at once, 1 and 5 seconds after a failure.
    assert len(run.process.pids) == 4 and "the fallback answers until it restarts in" in run.log


def test_the_command_line_does_the_same(bundle: Bundle, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    lines = (",".join(map(str, row)) for row in ROWS[:120])
    rows.write_text("\n".join([",".join(tiny_model.CHANNELS), *lines]) + "\n")
    command = [sys.executable, "-m", "edge_runtime", "run", str(bundle.path), "--source", str(rows)]
    command += ["--delegate", "libnot-there.so.1", "--deadline", "30", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == 120 and all("CPU" in record["flags"] for record in records)
    assert records[-1]["tier"] == 1 and records[-1]["valid"]
    *log, summary = done.stderr.splitlines()
    (told,) = (line for line in log if "without the accelerator" in line)
    (loaded,) = (line for line in log if "model loaded" in line)
    assert "install that library" in told and log.index(told) < log.index(loaded)
    assert loaded.endswith(f" on {CORE_KERNEL_ID}") and json.loads(summary)["flags"]["CPU"] == 120
