"""Run independent measurements in worker processes; each writes its own result file once.

Result files are written atomically, so an interrupted run continues where it stopped.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.judge import Contender, judge
from benchmarks.series import Load
from edge_runtime.learning.run import json_bytes
from train.run_folder import write_atomically

# One worker per core: no worker may start threads.
ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}
INTERRUPTED = 130
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """One detector on one series with one seed. load reads the series, in the worker."""

    series: str
    load: Load
    detector: Contender
    seed: int

    @property
    def title(self) -> str:
        """For progress lines."""
        seed = f", seed {self.seed}" if self.detector.seeded else ""
        return f"{self.series}, {self.detector.name}{seed}"

    def result(self, folder: Path) -> Path:
        """The file that holds this task's result once it is done."""
        return folder / self.series / f"{self.detector.name}.{self.seed}.json"


def plan(series: Mapping[str, Load], detectors: Sequence[Contender], seeds: int) -> list[Task]:
    """Every task, series by series; detectors without randomness run once."""
    return [
        Task(name, load, detector, seed)
        for name, load in series.items()
        for detector in detectors
        for seed in range(seeds if detector.seeded else 1)
    ]


def read_result(path: Path) -> dict[str, Any] | None:
    """The stored result: series, detector, seed, seconds, and rows of figures; None without one."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def run_tasks(tasks: Sequence[Task], folder: Path, jobs: int, say: Say) -> list[str]:
    """Run the unfinished tasks with `jobs` processes and return the titles of those that failed.

    Ctrl-C and a worker that dies end the run; finished results are kept.
    """
    waiting = [task for task in tasks if read_result(task.result(folder)) is None]
    say(f"{len(tasks) - len(waiting)} of {len(tasks)} measurements are already done")
    if not waiting:
        return []
    progress = _Progress(tasks, folder, jobs, say)
    with workers(jobs) as executor:
        futures = {executor.submit(measure, task, folder): task for task in waiting}
        return _collect(futures, progress)


@contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yield single-threaded worker processes; an exception terminates them at once."""
    os.environ.update(ONE_THREAD | QUIET)
    executor = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_ignore_interrupt
    )
    try:
        yield executor
    except BaseException:
        # Otherwise a worker would finish its training first, which takes minutes.
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def resumable(say: Say) -> Iterator[None]:
    """End the command on Ctrl-C with exit code 130, after a dead worker with an error message."""
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted; the same command continues from here")
        sys.exit(INTERRUPTED)
    except BrokenProcessPool:
        raise click.ClickException(
            "a worker process died, perhaps for lack of memory; the same command continues, "
            "with --jobs 1 in less memory"
        ) from None


def measure(task: Task, folder: Path) -> float:
    """Do one task and store its result; the seconds it took."""
    started = time.monotonic()
    series = task.load()
    path = task.result(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".scratch-", dir=folder) as scratch:
        outcomes = task.detector.run(series, task.seed, Path(scratch))
    seconds = time.monotonic() - started
    result = {
        "series": task.series,
        "detector": task.detector.name,
        "seed": task.seed,
        "seconds": seconds,
        "rows": {row: judge(series, outcome) for row, outcome in outcomes.items()},
    }
    write_atomically(path, json_bytes(result))
    return seconds


class _Progress:
    """Counts, and the time that is left by what the same detector took before."""

    def __init__(self, tasks: Sequence[Task], folder: Path, jobs: int, say: Say) -> None:
        self._say, self._jobs, self._total = say, jobs, len(tasks)
        self._left: list[str] = []
        self._seconds: dict[str, list[float]] = {}
        for task in tasks:
            stored = read_result(task.result(folder))
            if stored is None:
                self._left.append(task.detector.name)
            else:
                self._seconds.setdefault(task.detector.name, []).append(stored["seconds"])

    def done(self, task: Task, seconds: float) -> None:
        """One more task has ended."""
        self._left.remove(task.detector.name)
        self._seconds.setdefault(task.detector.name, []).append(seconds)
        self._line(f"{task.title}: {seconds:.1f} s")

    def failed(self, task: Task, error: BaseException) -> None:
        """One task will not be done."""
        self._left.remove(task.detector.name)
        self._line(f"FAILED {task.title}: {type(error).__name__}: {error}")

    def _line(self, what: str) -> None:
        known = [seconds for taken in self._seconds.values() for seconds in taken]
        every = mean(known) if known else 0.0
        wanted = [mean(self._seconds.get(name, [every])) for name in self._left]
        minutes = sum(wanted) / self._jobs / 60
        count = self._total - len(self._left)
        self._say(f"[{count}/{self._total}] {what}; about {minutes:.0f} min left")


def _collect(futures: Mapping[Future[float], Task], progress: _Progress) -> list[str]:
    failed = []
    for future in as_completed(futures):
        task = futures[future]
        try:
            progress.done(task, future.result())
        except BrokenProcessPool:
            raise
        except Exception as error:  # an error of one detector does not stop the others
            progress.failed(task, error)
            failed.append(task.title)
    return failed


def _ignore_interrupt() -> None:
    # Ctrl-C reaches every process of the terminal; the parent process ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
