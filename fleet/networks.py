"""Networks for learned assets, as long as the budget lasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fleet.assets import Asset
from fleet.cluster import run_tasks
from fleet.jobs import Means, RunJobs
from fleet.network_queue import NetworkQueue, may_pay
from fleet.progress import duration
from fleet.results import AUTO, NETWORK, AssetResult, AssetRow, TypeResult
from fleet.task import given_up, run_job

if TYPE_CHECKING:
    from distributed import Client


def train_networks(
    client: Client,
    jobs: RunJobs,
    assets: Sequence[Asset],
    found: Mapping[str, AssetRow],
    types: Mapping[str, TypeResult],
    means: Means,
    say: Callable[[str], None],
) -> Iterator[AssetResult]:
    """Train networks for learned `assets` while the budget lasts; yield the rows that change.

    found: the results so far, by asset. An asset whose network is not finished keeps its result.
    """
    wanted = [found[asset.name] for asset in assets if asset.model == AUTO and asset.name in found]
    queue = NetworkQueue(
        row for row in wanted if isinstance(row, AssetResult) and row.good and may_pay(row)
    )
    end = time.monotonic() + means.network_seconds

    def names() -> Iterator[str]:
        while time.monotonic() < end and (row := queue.take()):
            yield row.asset

    say(f"networks, for {duration(means.network_seconds)}")
    tasks = jobs.of_networks(names(), types)
    kept = 0
    ended = run_tasks(client, run_job, tasks, given_up, lambda threads: None, ahead=1)
    for tried, row in enumerate(ended, 1):
        if isinstance(row, AssetResult) and row.good:
            queue.ended(row)
            kept += row.model == NETWORK
            yield row
        left = duration(max(end - time.monotonic(), 0.0))
        say(f"{row.asset}: {_sentence(row)}; {kept} of {tried} networks kept, {left} left")


def _sentence(row: AssetRow) -> str:
    if not isinstance(row, AssetResult) or not row.good:
        return f"no network ({row.verdict}: {row.reason})"
    kept = "network" if row.model == NETWORK else "linear detector"
    return f"the {kept} is kept (average precision on injected faults {row.gain:+.3f})"
