"""The driver: one job for each asset goes to the cluster, rows come back, a table and a page stay.

A command is finished for what it finished: a killed driver loses the jobs in flight, and the same
command again does the rest.
"""

import fcntl
import importlib.util
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import BusyError, GruardError
from edge_runtime.files import replace_file
from fleet.assets import Asset
from fleet.cluster import connected, run_tasks
from fleet.jobs import Means, RunJobs
from fleet.networks import train_networks
from fleet.progress import FleetProgress, duration
from fleet.report import report_page
from fleet.results import REFUSED, VERDICTS, AssetProof, AssetResult, AssetRow, TypeResult
from fleet.table import write_table
from fleet.task import given_up, run_job

TABLE, REPORT, LOCK = "fleet.parquet", "report.html", "lock"
HOLDS = {
    "AssetResult": "bundles", "AssetScore": "scores", "AssetProof": "proofs",
    "AssetRecords": "records",
}  # fmt: skip
"""What a folder holds whose lock file names these rows."""


@dataclass(frozen=True)
class FleetRun:
    """A finished run. rows: in the order of the assets. seconds: of the whole run.

    types: the models that assets share, by the name of the type.
    """

    folder: Path
    rows: tuple[AssetRow, ...]
    types: Mapping[str, TypeResult]
    seconds: float

    @property
    def failed(self) -> int:
        """How many assets were not learned, scored or proven."""
        return sum(not row.good for row in self.rows)

    def facts(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        counts = Counter(row.verdict for row in self.rows)
        return {
            "fleet": str(self.folder),
            "assets": len(self.rows),
            "verdicts": {name: counts[name] for name in VERDICTS if counts[name]},
            "failed": self.failed,
            "unchanged": sum(row.reused for row in self.rows),
            "types": len(self.types),
            "shared": sum(isinstance(row, AssetResult) and row.shared for row in self.rows),
            "seconds": self.seconds,
            "cpu_seconds": sum(row.cpu_seconds for row in self.rows if not row.reused),
            "table": str(self.folder / TABLE),
            "report": str(self.folder / REPORT),
        }

    def text(self) -> str:
        """Return the summary in lines."""
        facts = self.facts()
        counts = ", ".join(f"{count:,} {name}" for name, count in facts["verdicts"].items())
        shared = f"{facts['shared']:,} have the model of their type\n" if self.types else ""
        return (
            f"{facts['assets']:,} assets: {counts} ({facts['unchanged']:,} unchanged)\n{shared}"
            f"{duration(self.seconds)}; report: {facts['report']}"
        )


def run_fleet(
    assets: Sequence[Asset],
    kind: type[AssetRow],
    folder: Path,
    means: Means,
    say: Callable[[str], None],
) -> FleetRun:
    """Learn, score or prove all `assets` into `folder`, as far as that was not done before.

    kind: of the rows, AssetResult to learn, AssetScore to score, AssetProof to prove, which is done
    each time. Table and report describe what is finished, however the run ends. Raises GruardError.
    """
    started = time.monotonic()
    with held(folder, kind):
        count = sum(not asset.problem for asset in assets)
        found: dict[str, AssetRow] = {}
        types: dict[str, TypeResult] = {}
        progress = FleetProgress(count, say, time.monotonic)
        try:
            if count:
                with connected(means.scheduler, means.workers) as client:
                    say(progress.begins(sum(client.nthreads().values())))
                    if importlib.util.find_spec("bokeh"):
                        say(f"dashboard: {client.dashboard_link}")
                    jobs = RunJobs(assets, folder, means, kind is AssetProof)
                    if kind is AssetResult:
                        learned = run_tasks(
                            client, run_job, jobs.of_types(), given_up, progress.silent
                        )
                        for model in learned:
                            say(f"type {model.asset}: {model.verdict}, {model.reason}")
                            assert isinstance(model, TypeResult)
                            types[model.asset] = model
                    scored = jobs.of_assets(types)
                    for row in run_tasks(client, run_job, scored, given_up, progress.silent):
                        found[row.asset] = row
                        progress.ended(row)
                    if means.network_seconds:
                        networks = train_networks(client, jobs, assets, found, types, means, say)
                        found |= {row.asset: row for row in networks}
        finally:
            rows = tuple(_rows(assets, found, kind))
            run = FleetRun(folder, rows, types, time.monotonic() - started)
            write_table(folder / TABLE, kind, rows)
            replace_file(
                folder / REPORT, report_page(rows, run.seconds, tuple(types.values())).encode()
            )
    return run


def _rows(
    assets: Sequence[Asset], found: dict[str, AssetRow], kind: type[AssetRow]
) -> Iterator[AssetRow]:
    for asset in assets:
        if asset.problem:
            yield kind(asset.name, REFUSED, asset.problem)
        elif asset.name in found:
            yield found[asset.name]


@contextmanager
def held(folder: Path, kind: type[Any]) -> Iterator[None]:
    """Make the folder, keep other drivers out of it, and keep bundles, scores and records apart.

    The lock file names the kind of rows that the folder holds.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise GruardError(f"--out {folder}: cannot be written ({error.strerror})") from None
    with os.fdopen(descriptor, "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"--out {folder}: another fleet command is at work there") from None
        if (found := lock.read() or kind.__name__) != kind.__name__:
            what = HOLDS.get(found, "other rows")
            raise GruardError(f"--out {folder}: holds {what} already; choose another folder")
        lock.seek(0)
        lock.write(kind.__name__)
        lock.flush()
        yield
