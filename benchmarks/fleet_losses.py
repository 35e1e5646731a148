"""A cluster that loses workers: does it finish, and how much work is done twice?

A scheduler and its workers run as processes of their own, as on several machines. Every so many
seconds the worker that has lived the longest is killed, and another one starts in its place.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import markdown

WORKERS = 2
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
DASK = [sys.executable, "-m", "dask"]


@dataclass(frozen=True)
class LossRun:
    """One run. lost: workers that were killed. learned: assets with a bundle."""

    seconds: float
    cpu: float
    lost: int
    learned: int


def losses_table(
    data: Path, folder: Path, every: float, root: Path, cpu: Callable[[], float]
) -> str:
    """Learn the assets of `data` on a whole cluster and on one that loses a worker all `every` s.

    folder: for the results. cpu: seconds of all children that have ended.
    """
    # The processes of a killed worker count, too: they become children of this one.
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    names = {0.0: "no worker is lost", every: f"a worker is lost every {every:g} s"}
    runs = {
        name: _run(data, folder / f"losses-{seconds:g}", seconds, root, cpu)
        for seconds, name in names.items()
    }
    whole = next(iter(runs.values()))
    lines = [
        (name, f"{run.learned}", f"{run.lost}", f"{run.seconds:.0f}", f"{run.cpu:.0f}",
         f"{run.cpu / whole.cpu - 1:+.0%}")
        for name, run in runs.items()
    ]  # fmt: skip
    return markdown(
        ("cluster of two workers", "assets learned", "workers lost", "s", "CPU s", "more work"),
        lines,
    )


def _run(data: Path, folder: Path, every: float, root: Path, cpu: Callable[[], float]) -> LossRun:
    folder.mkdir()
    before, started = cpu(), time.monotonic()
    with _cluster(folder, every, root) as (address, lost):
        command = [sys.executable, "-m", "fleet", "train", str(data), "--scheduler", address]
        done = subprocess.run(
            [*command, "--out", str(folder / "fleet"), "--json"],
            cwd=root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - started
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    facts = json.loads(done.stdout)
    return LossRun(seconds, cpu() - before, len(lost), facts["assets"] - facts["failed"])


@contextmanager
def _cluster(folder: Path, every: float, root: Path) -> Iterator[tuple[str, list[int]]]:
    """Start a scheduler and workers; yield its address, and the pids of the killed so far."""
    file, quiet = folder / "scheduler.json", subprocess.DEVNULL

    def start(*words: str) -> "subprocess.Popen[bytes]":
        words = (*words, "--scheduler-file", str(file), "--no-dashboard")
        return subprocess.Popen(
            [*DASK, *words], cwd=root, stdout=quiet, stderr=quiet, start_new_session=True
        )

    def worker() -> "subprocess.Popen[bytes]":
        return start("worker", "--nthreads", "1", "--no-nanny", "--memory-limit", "0")

    def lose() -> None:
        while not over.wait(every):
            oldest = workers.pop(0)
            oldest.kill()
            oldest.wait()
            lost.append(oldest.pid)
            workers.append(worker())

    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
    while not file.is_file():
        scheduler.poll()
        os.sched_yield()
    workers = [worker() for _ in range(WORKERS)]
    over, lost = threading.Event(), list[int]()
    loser = threading.Thread(target=lose)
    try:
        if every:
            loser.start()
        yield json.loads(file.read_text())["address"], lost
    finally:
        over.set()
        if every:
            loser.join()
        for process in (*workers, scheduler):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        with suppress(ChildProcessError):
            while os.wait():
                pass
