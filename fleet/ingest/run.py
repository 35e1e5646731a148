"""`fleet ingest`: one task for each asset, then what only all assets together say.

Totals of an asset are on disk when its task ends. A command that is killed keeps them; the same
command reads the rest, and then writes tables, page and metrics.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_runtime import __version__
from edge_runtime.files import replace_file
from fleet.cluster import connected, run_tasks
from fleet.driver import held
from fleet.ingest.asset import AssetFindings, IngestJob, ingest_asset, unread
from fleet.ingest.inputs import AssetInputs
from fleet.ingest.metrics import metrics_text
from fleet.ingest.page import records_page
from fleet.ingest.rows import (
    LEARN,
    STATES,
    AlarmRow,
    AssetRecords,
    CountRow,
    ScoreRow,
    advice,
)
from fleet.ingest.together import EPOCH, Watched, companies
from fleet.progress import FleetProgress, duration
from fleet.table import write_table

ASSETS, ALARMS, HISTOGRAMS, COUNTS = (
    "assets.parquet", "alarms.parquet", "histograms.parquet", "counts.parquet",
)  # fmt: skip
REPORT, METRICS = "report.html", "metrics.prom"
TOLD = 5
"""Problems that the summary quotes."""


@dataclass(frozen=True)
class IngestRun:
    """A finished command. findings: of all assets, by name. seconds: of the whole command."""

    folder: Path
    findings: tuple[AssetFindings, ...]
    seconds: float

    @property
    def rows(self) -> tuple[AssetRecords, ...]:
        """The row of each asset."""
        return tuple(each.records for each in self.findings)

    @property
    def failed(self) -> int:
        """How many assets have an input that could not be read."""
        return sum(row.failed for row in self.rows)

    def facts(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        states = Counter(row.state for row in self.rows)
        return {
            "fleet": str(self.folder),
            "assets": len(self.rows),
            "states": {name: states[name] for name in STATES if states[name]},
            "failed": self.failed,
            "records": sum(row.records for row in self.rows),
            "new": sum(row.new for row in self.rows),
            "repeated": sum(row.repeated for row in self.rows),
            "bad_lines": sum(row.bad for row in self.rows),
            "problems": [f"{row.asset}: {row.problem}" for row in self.rows if row.problem],
            "learn_again": {row.asset: row.reason for row in self.rows if row.state == LEARN},
            "alarms": sum(row.alarms for row in self.rows),
            "common_alarms": sum(row.common for row in self.rows),
            "seconds": self.seconds,
            "report": str(self.folder / REPORT),
        }

    def text(self) -> str:
        """Return the summary in lines."""
        facts = self.facts()
        states = ", ".join(f"{count:,} {name}" for name, count in facts["states"].items())
        lines = [
            f"{facts['assets']:,} assets: {states}",
            f"{facts['new']:,} new records, {facts['records']:,} in all; {facts['alarms']:,} "
            f"alarms, {facts['common_alarms']:,} of them common; {facts['bad_lines']:,} bad lines",
        ]
        lines += facts["problems"][:TOLD]
        if (more := len(facts["problems"]) - TOLD) > 0:
            lines.append(f"… and {more:,} more problems; all with --json")
        lines.append(f"{duration(self.seconds)}; report: {facts['report']}")
        return "\n".join(lines)


def ingest(
    inputs: Sequence[AssetInputs],
    folder: Path,
    scheduler: str | None,
    workers: int | None,
    say: Callable[[str], None],
    clock: Callable[[], float],
) -> IngestRun:
    """Read what is new in `inputs` into `folder`, and describe all assets that it knows.

    scheduler, workers: as for `connected`. clock: monotonic seconds. Raises GruardError.
    """
    started = clock()
    with held(folder, AssetRecords):
        found = {each.asset: unread(each.asset, each.groups, each.problem)
                 for each in inputs if each.problem}  # fmt: skip
        jobs = _jobs(inputs, folder)
        progress = FleetProgress(len(jobs), say, clock)
        if jobs:
            with connected(scheduler, workers) as client:
                say(progress.begins(sum(client.nthreads().values())))
                named = ((f"{job.asset}-{started}", job) for job in jobs)
                for each in run_tasks(client, ingest_asset, named, _given_up, progress.silent):
                    found[each.records.asset] = each
                    progress.ended(each)
        run = IngestRun(folder, _judged([found[name] for name in sorted(found)]), clock() - started)
        _write(run)
    return run


def _jobs(inputs: Sequence[AssetInputs], folder: Path) -> list[IngestJob]:
    """Return a job for each asset with inputs, and for each that an earlier command read."""
    named = {each.asset: each for each in inputs}
    known = folder / "assets"
    for name in sorted(entry.name for entry in known.iterdir()) if known.is_dir() else []:
        named.setdefault(name, AssetInputs(name))
    return [
        IngestJob(
            asset=each.asset,
            paths=tuple(str(path.absolute()) for path in each.paths),
            marks=tuple(str(path.absolute()) for path in each.marks),
            groups=each.groups,
            bundles=tuple(str(path.absolute()) for path in each.bundles),
            fleet=str(folder.absolute()),
            gruard=__version__,
        )
        for each in named.values()
        if not each.problem
    ]


def _given_up(job: IngestJob, reason: str) -> AssetFindings:
    return unread(job.asset, job.groups, f"no worker finished it: {reason}")


def _judged(findings: Sequence[AssetFindings]) -> tuple[AssetFindings, ...]:
    """Add to each asset and alarm what the other assets say about it."""
    dated = [[alarm for alarm in each.alarms if alarm.start > EPOCH] for each in findings]
    watched = [
        Watched(each.records.asset, tuple(alarm.start for alarm in alarms),
                each.records.first, each.records.last, each.records.groups)
        for each, alarms in zip(findings, dated, strict=True)
    ]  # fmt: skip
    newest = max((each.records.last for each in findings), default=0.0)
    judged = []
    for each, alarms, company in zip(findings, dated, companies(watched), strict=True):
        told = dict(zip(map(id, alarms), company, strict=True))
        rows = tuple(
            replace(alarm, common=c.common, group=c.group, others=c.assets, expected=c.expected)
            if (c := told.get(id(alarm)))
            else alarm
            for alarm in each.alarms
        )
        judged.append(replace(each, alarms=rows, records=_judged_row(each.records, rows, newest)))
    return tuple(judged)


def _judged_row(row: AssetRecords, alarms: Sequence[AlarmRow], newest: float) -> AssetRecords:
    """Add the alarms that are its own, and the state of the asset."""
    common = sum(alarm.common for alarm in alarms)
    settled = sum(alarm.common or alarm.mark == "real" for alarm in alarms)
    rate = (row.alarms - settled) / row.days if row.days else 0.0
    row = replace(row, common=common, rate=rate)
    state, reason = advice(row, newest)
    return replace(row, state=state, reason=reason)


def _write(run: IngestRun) -> None:
    """Write the tables, then the page and the metrics, which refer to them."""
    alarms = [row for each in run.findings for row in each.alarms]
    for name, kind, rows in (
        (ASSETS, AssetRecords, run.rows),
        (ALARMS, AlarmRow, alarms),
        (HISTOGRAMS, ScoreRow, [row for each in run.findings for row in each.scores]),
        (COUNTS, CountRow, [row for each in run.findings for row in each.counts]),
    ):
        write_table(run.folder / name, kind, rows)
    page = records_page(run.rows, alarms, run.seconds)
    replace_file(run.folder / REPORT, page.encode())
    replace_file(run.folder / METRICS, metrics_text(run.rows).encode())
