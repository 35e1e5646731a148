"""`fleet train`: learn every asset that is new, changed or failed, and write table and report."""

import fcntl
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime import __version__
from edge_runtime.errors import BusyError, GruardError
from edge_runtime.files import replace_file
from fleet.assets import Asset
from fleet.cluster import connected, run_tasks
from fleet.job import Job
from fleet.progress import FleetProgress, duration
from fleet.report import report_page
from fleet.results import BLAMED, REFUSED, VERDICTS, AssetResult
from fleet.table import write_table
from fleet.task import run_job

TABLE, REPORT, LOCK = "fleet.parquet", "report.html", "lock"


@dataclass(frozen=True)
class Limits:
    """Of each asset: wall-clock seconds, and megabytes of memory."""

    seconds: float
    megabytes: int


@dataclass(frozen=True)
class Trained:
    """A finished run. results: in the order of the assets. seconds: of the whole run."""

    folder: Path
    results: tuple[AssetResult, ...]
    seconds: float

    @property
    def failed(self) -> int:
        """How many assets have no bundle."""
        return sum(not result.good for result in self.results)

    def facts(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        counts = Counter(result.verdict for result in self.results)
        return {
            "fleet": str(self.folder),
            "assets": len(self.results),
            "verdicts": {name: counts[name] for name in VERDICTS if counts[name]},
            "failed": self.failed,
            "unchanged": sum(result.reused for result in self.results),
            "seconds": self.seconds,
            "cpu_seconds": sum(each.cpu_seconds for each in self.results if not each.reused),
            "table": str(self.folder / TABLE),
            "report": str(self.folder / REPORT),
        }

    def text(self) -> str:
        """Return the summary in lines."""
        facts = self.facts()
        counts = ", ".join(f"{count:,} {name}" for name, count in facts["verdicts"].items())
        return (
            f"{facts['assets']:,} assets: {counts} ({facts['unchanged']:,} unchanged)\n"
            f"{duration(self.seconds)}; report: {facts['report']}"
        )


def train_fleet(
    assets: Sequence[Asset],
    folder: Path,
    scheduler: str | None,
    workers: int | None,
    limits: Limits,
    say: Callable[[str], None],
) -> Trained:
    """Learn all `assets` into `folder`; see the module. Raises GruardError.

    What is finished stays on disk however the run ends, and table and report describe it.
    """
    started = time.monotonic()
    with _held(folder):
        jobs = _jobs(assets, folder, limits)
        found = {a.name: _refused(a) for a in assets if a.problem}
        progress = FleetProgress(len(jobs), say, time.monotonic)
        try:
            with connected(scheduler, workers) as client:
                say(progress.begins(sum(client.nthreads().values())))
                for result in run_tasks(client, run_job, jobs, _given_up):
                    found[result.asset] = result
                    progress.ended(result)
        finally:
            results = tuple(found[each.name] for each in assets if each.name in found)
            trained = Trained(folder, results, time.monotonic() - started)
            write_table(folder / TABLE, AssetResult, results)
            replace_file(folder / REPORT, report_page(results, trained.seconds).encode())
    return trained


def _jobs(assets: Sequence[Asset], folder: Path, limits: Limits) -> list[tuple[str, Job]]:
    run = secrets.token_hex(4)
    return [
        (
            f"{asset.name}-{run}",
            Job(
                asset=asset.name,
                data=str(asset.data.absolute()),
                settings=str(asset.settings.absolute()) if asset.settings else "",
                target=asset.target,
                model=asset.model,
                fleet=str(folder.absolute()),
                run=run,
                gruard=__version__,
                seconds=limits.seconds,
                megabytes=limits.megabytes,
            ),
        )
        for asset in assets
        if not asset.problem
    ]


def _refused(asset: Asset) -> AssetResult:
    return AssetResult(asset.name, REFUSED, asset.problem, target=asset.target)


def _given_up(job: Job) -> AssetResult:
    reason = "its workers died again and again before it began; see their logs"
    return AssetResult(job.asset, BLAMED, reason, target=job.target)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Make the folder of the fleet, and keep other drivers out of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise GruardError(f"--out {folder}: cannot be written ({error.strerror})") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BusyError(f"--out {folder}: another fleet command is at work there") from None
    try:
        yield
    finally:
        os.close(descriptor)
