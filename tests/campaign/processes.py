"""Faults of processes and of their resources."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.campaign.fault import Fault, Happened, Json, expect
from tests.campaign.lab import LIMIT, Lab, Run

START = 200
FEW = 60


def fallback_after(records: list[Json], index: int, within: int = 4) -> int:
    """Return the samples from `index` to the first record of the fallback."""
    delays = (r["index"] - index for r in records[index:] if "FALLBACK" in r["flags"])
    delay = next(delays, None)
    expect(delay is not None and delay <= within, f"the fallback answers after {delay} samples")
    assert delay is not None
    return delay


def until_back(run: Run, limit: int = 4000) -> int:
    """Feed samples until the model answers again; return how many that took."""
    rows = run.lab.rows
    for count in range(limit):
        run.feed(rows[count % len(rows)][np.newaxis], pace=0.002)
        if "RESTARTED" in run.records[-1]["flags"]:
            return count
    expect(False, f"the model is not back after {limit} samples")
    return limit


def _signal(number: signal.Signals) -> Callable[[Lab], Happened]:
    def strike(lab: Lab) -> Happened:
        with lab.run() as run:
            run.feed(lab.rows[:START])
            run.kill_worker(number)
            run.feed(lab.rows[START : START + FEW], pace=0.002)
            delay = fallback_after(run.records, START)
            back = until_back(run)
        return f"fallback after {delay} samples, the model back after {back + FEW}"

    return strike


def _hang(lab: Lab) -> Happened:
    """An invoke that never ends, as in a library that waits for itself."""
    with lab.run("--inject", f"hang@{START}") as run:
        run.feed(lab.rows[: START + FEW])
        delay = fallback_after(run.records, START)
        back = until_back(run)
    return f"fallback after {delay} samples, the model back after {back + FEW}"


def _crash_loop(lab: Lab) -> Happened:
    """Kill the worker after every restart: each restart comes later than the one before."""
    with lab.run() as run:
        run.feed(lab.rows[:START])
        for loads in range(2, 5):
            run.kill_worker()
            while run.said("model loaded") < loads:
                run.feed(lab.rows[:1], pace=0.01)
        run.kill_worker()
        run.feed(lab.rows[:FEW], pace=0.002)
        run.await_log("the fallback answers until it restarts in 30 s")
        expect(run.worker is None, "there is a fifth process before its time")
    expect(run.records[-1]["tier"] == 3, "the last record is not the fallback's")
    return "three restarts within 6 s, the next one 30 s later"


def _supervisor_killed(lab: Lab) -> Happened:
    with lab.run() as run:
        run.feed(lab.rows[:START])
        worker = run.worker
        run.process.kill()
        run.process.wait(LIMIT)
        assert worker is not None
        _await_end(worker)
    return "the kernel ends the inference process with it"


def _await_end(pid: int) -> None:
    """Wait until a process that is not our child is gone."""
    descriptor = os.pidfd_open(pid) if Path(f"/proc/{pid}").exists() else None
    if descriptor is not None:
        import select

        ended = select.select([descriptor], [], [], LIMIT)[0]
        os.close(descriptor)
        expect(bool(ended), f"process {pid} lives on")


def _terminated(lab: Lab) -> Happened:
    with lab.run() as run:
        run.feed(lab.rows[:START])
        run.process.send_signal(signal.SIGTERM)
        code = run.process.wait(LIMIT)
        expect(code == 0, f"exit code {code}")
    expect(len(run.records) == START, f"{len(run.records)} records")
    return "exit code 0, every record written"


def _stopped_supervisor(lab: Lab) -> Happened:
    """SIGSTOP and SIGCONT of the supervisor: samples that waited in the pipe are answered."""
    with lab.run() as run:
        run.feed(lab.rows[:START])
        run.process.send_signal(signal.SIGSTOP)
        for i, row in enumerate(lab.rows[START : START + FEW]):
            run.send(",".join([repr((START + i) * lab.period), *map(str, row)]))
        run.process.send_signal(signal.SIGCONT)
        run.await_records(START + FEW)
    return "every sample that waited has its record"


def _limited(kind: int, value: int, then: str) -> Callable[[Lab], Happened]:
    """A resource limit set on the running worker."""

    def strike(lab: Lab) -> Happened:
        with lab.run() as run:
            run.feed(lab.rows[:START])
            assert run.worker is not None
            resource.prlimit(run.worker, kind, (value, value))
            run.feed(lab.rows[START : START + 2 * FEW], pace=0.002)
        tiers = sorted({record["tier"] for record in run.records[START:]})
        return f"{then}; tiers {tiers}, every sample has its record"

    return strike


def _no_descriptors(lab: Lab) -> Happened:
    with lab.run() as run:
        run.feed(lab.rows[:START])
        pid = run.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, hard))
        run.kill_worker()
        run.feed(lab.rows[START : START + FEW], pace=0.002)
        delay = fallback_after(run.records, START)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        back = until_back(run)
    return f"fallback after {delay} samples; descriptors given back, the model is back {back} later"


def _starved(lab: Lab) -> Happened:
    """As many busy processes as cores, and one more, at the highest priority allowed."""
    burn = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(burn) for _ in range(1 + (os.cpu_count() or 1))]
    try:
        with lab.run() as run:
            run.feed(lab.rows[: 2 * START], pace=lab.period / 4)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    late = sum("LATE" in record["flags"] for record in run.records)
    return f"every sample has its record, {late} flagged LATE"


def _interrupted(lab: Lab) -> Happened:
    with lab.run() as run:
        run.feed(lab.rows[:START])
        run.process.send_signal(signal.SIGINT)
        code = run.process.wait(LIMIT)
        expect(code == 130, f"exit code {code}")
    return "Ctrl-C: summary, exit code 130, every record written"


FAULTS = (
    Fault("SIGKILL", "the inference process killed", "fallback within 4 samples, back",
          _signal(signal.SIGKILL)),
    Fault("SIGSEGV", "the inference process crashes", "fallback within 4 samples, back",
          _signal(signal.SIGSEGV)),
    Fault("hang", "an invoke that never ends", "fallback within 4 samples, back", _hang),
    Fault("SIGSTOP", "the inference process is stopped", "fallback within 4 samples, back",
          _signal(signal.SIGSTOP)),
    Fault("crash loop", "killed four times", "restarts with a back-off that grows",
          _crash_loop),
    Fault("out of memory", "no more memory for the inference process", "no record is missing",
          _limited(resource.RLIMIT_AS, 1 << 20, "no allocation succeeds")),
    Fault("out of descriptors", "none left to start a process with", "fallback, then back",
          _no_descriptors),
    Fault("CPU starved", "more busy processes than cores", "no record is missing", _starved),
    Fault("supervisor killed", "SIGKILL", "no process is left", _supervisor_killed),
    Fault("supervisor stopped", "SIGSTOP, then SIGCONT", "no record is missing",
          _stopped_supervisor),
    Fault("stop asked for", "SIGTERM", "exit code 0, every record written", _terminated),
    Fault("Ctrl-C", "SIGINT", "exit code 130, every record written", _interrupted),
)  # fmt: skip
