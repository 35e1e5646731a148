"""The same recording gives the same records, byte for byte, however busy the machine is."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer

import native_core  # noqa: F401
import pytest
import tiny_model
from supervised_run import RememberingProcess, Run, WatchedProcess, fallback_indices

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.kernels import CORE_KERNEL_ID
from edge_runtime.record import Flag
from edge_runtime.supervision import policy
from edge_runtime.supervision.injection import parse_injections
from edge_runtime.supervision.policy import HangDetector, Work, cpu_seconds
from edge_runtime.supervision.worker_process import BundleIdentity, worker_command

ROOT = Path(__file__).parents[3]
ROWS = tiny_model.machine_rows(240, seed=8)
STOPPED = 0.4  # seconds; eight deadlines
FAULTS = "crash@150,hang@170,crash@176"  # restarts after 0, 1 and 5 seconds


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


def gruard(*words: str) -> str:
    command = [sys.executable, "-m", "edge_runtime", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def busy() -> Iterator[None]:
    """More processes that compute without end than there are cores."""
    with ExitStack() as ended:
        for _ in range((os.cpu_count() or 1) + 1):
            process = subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"])
            ended.callback(process.wait)
            ended.callback(process.kill)
        yield


def replayed(bundle: Bundle, stops: frozenset[int] = frozenset()) -> list[str]:
    """The records of ROWS with FAULTS. stops: before these rows the worker is stopped a while."""
    command = worker_command(bundle.path, kernel=CORE_KERNEL_ID)
    process = RememberingProcess(command, identity=BundleIdentity.of(bundle))

    def before(row: int) -> None:
        if row in stops and process.pid:
            os.kill(process.pid, signal.SIGSTOP)
            Timer(STOPPED, os.kill, (process.pid, signal.SIGCONT)).start()

    run = Run(
        process,
        deadline=0.05,
        values=list(ROWS),
        times=[float(row) for row in range(len(ROWS))],
        before=before,
        fallback=Fallback(bundle.manifest, bundle.model_hash),
        injections=parse_injections(FAULTS, bundle.manifest.channel_names),
        warmup=bundle.manifest.tiers.warmup,
    )
    run.supervisor.run()
    return [record.to_json() for record in run.records]


@pytest.mark.long
def test_a_busy_machine_gives_the_records_of_an_idle_one(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines by the clock on the wall gave 1,422 of 1,868 records to the fallback once."""
    monkeypatch.setattr(policy, "HANG_CPU", 0.5)
    idle = replayed(bundle)
    with busy():
        loaded = replayed(bundle, stops=frozenset((5, 90, 171)))
    assert loaded == idle and len(idle) == len(ROWS)
    late = [record["index"] for record in map(json.loads, idle) if "LATE" in record["flags"]]
    assert late == [170]  # the real hang, and nothing else
    assert [json.loads(idle[i])["tier"] for i in (150, 151, 170, 176)] == [3, 1, 3, 3]


@pytest.mark.long
def test_run_and_replay_give_the_same_records(tiny_bundle: Path, tmp_path: Path) -> None:
    recording = tmp_path / "day.csv"
    names = read_bundle(tiny_bundle).manifest.channel_names
    with recording.open("w") as file:
        csv.writer(file).writerows([("time", *names), *((i, *row) for i, row in enumerate(ROWS))])
    ran = gruard("run", str(tiny_bundle), "--source", str(recording), "--deadline", "0.001")
    told = gruard("replay", str(tiny_bundle), str(recording), "--kernel", "tflite-builtin")
    records = [json.loads(line) for line in ran.splitlines()]
    rows = list(csv.DictReader(io.StringIO(told)))
    assert len(records) == len(rows) == len(ROWS)
    for record, row in zip(records, rows, strict=True):
        assert (record["score"], record["tier"]) == (float(row["score"]), int(row["tier"]))
        assert (record["alarm"], " ".join(record["flags"])) == (row["flag"] == "1", row["flags"])
        assert " ".join(record["blamed"]) == row["blamed"]


def test_a_worker_that_is_stopped_for_good_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "HANG_IDLE", 0.5)
    process = WatchedProcess("none@0")

    def before(row: int) -> None:
        if row == 6:
            assert process.pid
            os.kill(process.pid, signal.SIGSTOP)

    run = Run(process, rows=9, before=before)
    records = run()
    assert fallback_indices(records)[0] == 6 and Flag.LATE in records[6].flags
    assert len(process.pids) == 2
    assert "worker stuck before stage 'read' for " in run.log


def test_a_worker_that_computes_without_end_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "HANG_CPU", 0.2)
    process = WatchedProcess("first-hang@4")
    run = Run(process, rows=9, deadline=0.01)
    records = run()
    assert [r.index for r in records if Flag.LATE in r.flags] == [4] and len(process.pids) == 2
    assert (
        "gruard: worker stuck before stage 'invoke' for 0.2 s of CPU time, or 30 s without any; "
        "the fallback answers until it restarts\n" in run.log
    )


class Machine:
    """A clock and the CPU time of a process, both numbers."""

    def __init__(self) -> None:
        self.now, self.computed = 0.0, 0.0

    def watch(self, work: Work) -> HangDetector:
        return HangDetector(1, work, lambda: self.now, lambda pid: self.computed)


def test_a_process_that_gets_little_time_does_not_hang() -> None:
    machine = Machine()
    watch = machine.watch(Work(cpu=5.0, idle=30.0))
    for _ in range(400):
        machine.now += 20.0
        machine.computed += 0.01
        assert watch.left() > 0
    machine.computed += 1.1
    assert watch.left() == 0


def test_time_in_which_nobody_looked_does_not_count() -> None:
    """As when the supervisor was stopped together with its worker."""
    machine = Machine()
    watch = machine.watch(Work(cpu=5.0, idle=30.0))
    machine.now += 3600.0
    assert watch.left() > 0
    for _ in range(200):
        machine.now += 0.25
        if watch.left() == 0:
            break
    assert 29.0 < machine.now - 3600.0 < 31.0


def test_the_cpu_time_of_a_process_is_read_from_the_kernel() -> None:
    before = cpu_seconds(os.getpid())
    assert before is not None
    while cpu_seconds(os.getpid()) == before:
        pass
    assert cpu_seconds(2**30) is None
