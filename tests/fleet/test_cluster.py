"""What a run leaves in the scheduler, which is in the driver's process."""

import pytest

pytest.importorskip("distributed", reason="the fleet is not tested: pip install '.[fleet]'")

from fleet.cluster import QUIET, run_tasks


def length(text: str) -> int:
    """The task."""
    return len(text)


@pytest.mark.slow
def test_the_scheduler_keeps_nothing_of_an_asset() -> None:
    import dask
    from distributed import Client

    names = [f"asset{n}" for n in range(40)]
    one = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with dask.config.set(QUIET), Client(processes=False, **one) as client:
        tasks = ((name, name) for name in names)
        found = list(run_tasks(client, length, tasks, lambda *_: 0, lambda _: None))
        kept = client.run_on_scheduler(
            lambda dask_scheduler: (
                len(dask_scheduler.task_prefixes),
                len(dask_scheduler.task_groups),
                len(dask_scheduler.transition_log),
            )
        )
    assert sorted(found) == sorted(map(len, names))
    assert max(kept) < len(names) / 2, kept
