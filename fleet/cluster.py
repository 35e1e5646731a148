"""Run a task for every asset on a Dask cluster, a bounded number at a time."""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from edge_runtime.errors import GruardError

if TYPE_CHECKING:
    from distributed import Client, Future

WAIT = 60.0  # seconds for a scheduler's first worker
AHEAD = 4  # tasks submitted for each thread of the cluster; the others wait in the driver
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
def connected(scheduler: str | None, workers: int | None) -> Iterator["Client"]:
    """Connect to the scheduler at an address, or start a cluster of processes on this machine.

    workers: processes of the cluster here; None for one for each core. Raises GruardError when the
    scheduler does not answer or has no worker.
    """
    from distributed import Client, LocalCluster

    if scheduler is None:
        count = workers or len(os.sched_getaffinity(0))
        with (
            LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=0,  # each asset has a limit of its own
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler)
    except (OSError, ValueError) as error:
        raise GruardError(
            f"--scheduler {scheduler}: does not answer ({error}); start one: dask scheduler"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT)
        except TimeoutError:
            raise GruardError(
                f"--scheduler {scheduler}: has no worker; start one: dask worker {scheduler}"
            ) from None
        yield client


def run_tasks(
    client: "Client",
    task: Callable[[Task], Found],
    tasks: Sequence[tuple[str, Task]],
    given_up: Callable[[Task], Found],
) -> Iterator[Found]:
    """Yield what `task` returns for each of the named `tasks`, in the order in which they end.

    Names are the keys of Dask and must be unique. A task whose worker died is submitted again, and
    after `RESUBMITTED` times `given_up` makes its result. Raises GruardError when a worker cannot
    run any task, and when the scheduler is lost.
    """
    from distributed import as_completed

    waiting = iter(tasks)
    given: dict[str, tuple[Task, int]] = {}

    def submitted(key: str, argument: Task, number: int) -> "Future":
        given[key] = argument, number
        return client.submit(task, argument, key=f"{key}-{number}", pure=False)

    first = [submitted(key, each, 0) for key, each in islice(waiting, _window(client))]
    ended = as_completed(first)
    for future in ended:
        key, number = future.key.rsplit("-", 1)
        argument, _ = given.pop(key)
        if not _died(future):
            yield _found(future)
        elif int(number) < RESUBMITTED:
            ended.add(submitted(key, argument, int(number) + 1))
            continue
        else:
            yield given_up(argument)
        room = _window(client) - len(given)
        for key, each in islice(waiting, max(room, 0)):
            ended.add(submitted(key, each, 0))


def _window(client: "Client") -> int:
    return AHEAD * max(sum(client.nthreads().values()), 1)


def _died(future: "Future[Any]") -> bool:
    from distributed import KilledWorker

    return future.status == "error" and isinstance(future.exception(), KilledWorker)


def _found(future: "Future[Any]") -> Any:
    try:
        return future.result()
    except ModuleNotFoundError as error:
        raise GruardError(
            f"a worker lacks {error.name}; start workers in the checkout of gruard, with the same "
            "packages: dask worker ADDRESS --preload fleet.task"
        ) from None
    except (OSError, RuntimeError) as error:
        raise GruardError(
            f"the scheduler is lost ({type(error).__name__}); what is finished is kept, the same "
            "command does the rest"
        ) from None
