"""Run a task for every asset on a Dask cluster, a bounded number at a time."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from edge_runtime.errors import GruardError, described

if TYPE_CHECKING:
    from distributed import Client, Future

WAIT = 60.0  # seconds for a scheduler's first worker
AHEAD = 4  # tasks submitted for each thread of the cluster; the others wait in the driver
# The driver reports errors of the cluster in a sentence, so the loggers need not print tracebacks.
# Profiler and tickers took a fortieth of a core each in driver and worker; the work is in other
# processes. Logs of the last thousand messages and transitions took megabytes.
QUIET = {
    "logging": {"distributed": "critical", "distributed.client": "critical"},
    "distributed.worker.profile.enabled": False,
    "distributed.admin.low-level-log-length": 10,
    "distributed.diagnostics.computations.max-history": 1,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}
# Runs in each worker here. The driver gets the same Ctrl-C, and ends them.
IGNORE_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
SILENCE = 10.0  # seconds
RESUBMITTED = 3  # times that a task is submitted again because its worker died

Task = TypeVar("Task")
Found = TypeVar("Found")


def require_dask() -> None:
    """Raise GruardError when the packages of the fleet are not installed."""
    absent = [name for name in ("distributed", "pyarrow") if not importlib.util.find_spec(name)]
    if absent:
        raise GruardError(
            f"{' and '.join(absent)}: not installed; run: pip install -c constraints.txt '.[fleet]'"
        )


@contextmanager
def connected(scheduler: str | None, workers: int | None) -> Iterator[Client]:
    """Connect to the scheduler at an address, or start a cluster of processes on this machine.

    workers: processes of the cluster here; None for one for each core. Raises GruardError when the
    scheduler does not answer or has no worker.
    """
    import dask

    dask.config.set(QUIET)
    from distributed import Client, LocalCluster

    if scheduler is None:
        count = workers or len(os.sched_getaffinity(0))
        with (
            LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=0,  # each asset has a limit of its own
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                preload=[IGNORE_CTRL_C],
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler)
    except (OSError, ValueError) as error:
        raise GruardError(
            f"--scheduler {scheduler}: does not answer ({error}); start one: python -m dask "
            "scheduler"
        ) from None
    start = f"in the checkout of gruard: python -m dask worker {scheduler} --nthreads 1"
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT)
        except TimeoutError:
            raise GruardError(
                f"--scheduler {scheduler}: has no worker; start one, {start}"
            ) from None
        # A worker that cannot unpickle a job ends without a word, so it is asked beforehand.
        for worker, answer in client.run(import_task, on_error="return").items():
            if isinstance(answer, Exception):
                raise GruardError(
                    f"the worker {worker} cannot work for the fleet ({answer}); start it {start}"
                )
        yield client


def import_task() -> None:
    """Import what a worker needs; runs on a worker."""
    importlib.import_module("fleet.task")


def run_tasks(
    client: Client,
    task: Callable[[Task], Found],
    tasks: Iterable[tuple[str, Task]],
    given_up: Callable[[Task, str], Found],
    silent: Callable[[int], None],
    ahead: int = AHEAD,
) -> Iterator[Found]:
    """Yield what `task` returns for each of the named `tasks`, in the order in which they end.

    Names are the keys of Dask and must be unique. A task whose worker died is submitted again, and
    after `RESUBMITTED` times `given_up` makes its result from the reason. silent: called with the
    threads of the cluster when no task ended for `SILENCE` seconds. ahead: tasks that are taken
    from `tasks` for each thread. Raises GruardError when a
    worker cannot run any task, and when the scheduler is lost.
    """
    try:
        yield from _run_tasks(client, task, iter(tasks), given_up, silent, ahead)
    except (OSError, CancelledError) as error:
        raise GruardError(
            f"the scheduler is lost ({type(error).__name__}); what is finished is kept, the same "
            "command does the rest"
        ) from None


def _run_tasks(
    client: Client,
    task: Callable[[Task], Found],
    waiting: Iterator[tuple[str, Task]],
    given_up: Callable[[Task, str], Found],
    silent: Callable[[int], None],
    ahead: int,
) -> Iterator[Found]:
    from distributed import KilledWorker, wait

    given: dict[Future, tuple[str, Task, int]] = {}

    def submit(name: str, argument: Task, number: int) -> None:
        # The scheduler keeps statistics of each first part of a key, for ever.
        future = client.submit(task, argument, key=("asset", name, number), pure=False)
        given[future] = name, argument, number

    while True:
        threads = sum(client.nthreads().values())
        for name, argument in islice(waiting, max(ahead * max(threads, 1) - len(given), 0)):
            submit(name, argument, 0)
        if not given:
            return
        try:
            ended = wait(list(given), timeout=SILENCE, return_when="FIRST_COMPLETED").done
        except (TimeoutError, asyncio.TimeoutError):
            silent(threads)
            continue
        for future in ended:
            name, argument, number = given.pop(future)
            error = future.exception()
            if error is None:
                yield future.result()
            elif isinstance(error, GruardError):
                raise error
            elif isinstance(error, KilledWorker) and number < RESUBMITTED:
                submit(name, argument, number + 1)
            else:
                yield given_up(argument, described(error))
