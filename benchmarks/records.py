"""Records of a fleet: what reading them costs, and what is found in them by chance.

    python -m benchmarks.records cost [--assets 10] [--records 100000] [--out docs/fleet-records.md]
    python -m benchmarks.records drift [--weeks 100] [--out docs/fleet-records.md]
    python -m benchmarks.records common [--out docs/fleet-records.md]

Scores and alarms are simulated, since a right answer has to be known: healthy scores that only
wander, alarms that are independent, and events that many assets share.
"""

import gzip
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from benchmarks.fleet import MEASURED, SCRIPT, fleet
from benchmarks.fleet import cost as cost_of
from benchmarks.pages import fill_page, machine, markdown, page_option
from edge_runtime.record import Flag, Record
from fleet.ingest.drift import MUCH, QUANTILES, Reference, drift_of, memory_of
from fleet.ingest.together import Watched, companies
from fleet.ingest.totals import EDGES, WeekScores

START, DAY = 1.78e9, 86400.0
WEEK_ROWS = 604_800  # at one sample a second
REFERENCES = {"18 min": 1080, "4 h": 15_000, "a day": 86_400}
MEMORIES = {"10 s": 10.0, "2 min": 100.0, "17 min": 1000.0, "83 min": 5000.0}
ONE_ASSET = """
import re, sys
from pathlib import Path
from edge_runtime import __version__
from fleet.ingest.asset import IngestJob, ingest_asset
ingest_asset(IngestJob(sys.argv[3], (sys.argv[1],), (), (), (), sys.argv[2], __version__))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FleetCase:
    """A simulated fleet. rate: own alarms a day of an asset. share: of assets in each event."""

    assets: int
    rate: float
    events: int
    share: float


CASES = (
    FleetCase(20, 1.0, 0, 0.0), FleetCase(200, 1.0, 0, 0.0), FleetCase(200, 10.0, 0, 0.0),
    FleetCase(4000, 1.0, 0, 0.0), FleetCase(20, 1.0, 20, 0.15), FleetCase(20, 1.0, 20, 0.3),
    FleetCase(200, 1.0, 20, 0.05), FleetCase(200, 1.0, 20, 0.1), FleetCase(4000, 1.0, 20, 0.005),
    FleetCase(4000, 1.0, 20, 0.01),
)  # fmt: skip


@click.group()
def main() -> None:
    """Measure fleet ingest: its cost, and what it finds by chance."""


@main.command()
@click.option("--assets", default=10, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--records", default=100_000, show_default=True, type=click.IntRange(1000, 10**8))
@page_option("cost")
def cost(assets: int, records: int, out: Path | None) -> None:
    """Read simulated records of ASSETS devices, in each form, and once more without new ones."""
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / SCRIPT).write_text(MEASURED)
        peaks = [peak(folder, records * times) for times in (1, 10)]
        for name, ending in (("JSON lines", "jsonl"), ("compressed", "jsonl.gz")):
            uploads, said = folder / f"uploads-{ending}", folder / f"said-{ending}"
            write_records(uploads, assets, records, ending)
            for what in (name, f"{name}, nothing new"):
                words = ("ingest", str(uploads), "--out", str(said), "--workers", "2")
                found = fleet(folder, *words)
                count = assets * records
                lines.append(
                    (what, f"{found.seconds:.0f}", f"{found.cpu:.0f}",
                     f"{count / found.seconds:,.0f}", f"{found.cpu / count * 1e6:.1f}",
                     f"{found.megabytes:.0f}")
                )  # fmt: skip
    header = ("input", "s", "CPU s", "records a second", "CPU s a million", "driver, MB")
    text = (
        f"{machine()}; {assets} assets of {records:,} records, two workers. A process that reads "
        f"{records:,} records of one asset takes {peaks[0]:.0f} MB of memory, one that reads "
        f"{10 * records:,} takes {peaks[1]:.0f} MB.\n\n{markdown(header, lines)}"
    )
    _told(text, out, "cost")


def peak(folder: Path, records: int) -> float:
    """Return the most megabytes of a process that reads one asset with so many records."""
    uploads = folder / f"one-{records}"
    write_records(uploads, 1, records, "jsonl")
    (folder / "peak").mkdir(exist_ok=True)
    words = [str(uploads / "pump-0000.jsonl"), str(folder / "peak"), f"pump-{records}"]
    found = cost_of([sys.executable, "-c", ONE_ASSET, *words])
    return found.megabytes


def write_records(folder: Path, assets: int, records: int, ending: str) -> None:
    """Write the same records for each asset; one record in 2,000 begins an alarm."""
    folder.mkdir()
    record = Record(
        0, START, 1, Flag(0), True, 1.0, 14.0758104, False, (), (), (), "484788c4f685",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    whole = (
        replace(record, index=index, time=START + index, score=score, alarm=index % 2000 < 3,
                imputed=("ax", "az") if index % 7 == 0 else ())
        for index, score in enumerate(rng.gamma(2.0, 0.7, records).tolist())
    )  # fmt: skip
    first = folder / f"pump-0000.{ending}"
    with gzip.open(first, "wt") if ending.endswith("gz") else first.open("w") as stream:
        stream.writelines(f"{each.to_json()}\n" for each in whole)
    for asset in range(1, assets):
        shutil.copy(first, folder / f"pump-{asset:04}.{ending}")


@main.command()
@click.option("--weeks", default=100, show_default=True, type=click.IntRange(10, 100_000))
@page_option("drift")
def drift(weeks: int, out: Path | None) -> None:
    """Compare healthy weeks with healthy calibrations: how often is drift found?"""
    rng, lines = np.random.default_rng(0), []
    for kind, make in (("wandering", wandering), ("two states", two_states)):
        for shown, memory in MEMORIES.items():
            for named, rows in REFERENCES.items():
                found = [
                    drift_of(week_of(make(rng, WEEK_ROWS, memory)),
                             reference_of_scores(make(rng, rows, memory)))
                    for _ in range(weeks)
                ]  # fmt: skip
                judged = [each for each in found if not each.problem]
                above = [each.index > MUCH for each in found]
                lines.append(
                    (f"{kind}, {shown}", named, f"{len(judged) / weeks:.0%}",
                     f"{sum(above) / weeks:.1%}", f"{sum(e.found for e in judged) / weeks:.1%}")
                )  # fmt: skip
    header = ("scores, their memory", "calibration", "judged", f"index above {MUCH}", "drift found")
    text = f"{weeks} healthy weeks a row, one sample a second.\n\n{markdown(header, lines)}"
    _told(text, out, "drift")


def wandering(rng: np.random.Generator, rows: int, memory: float) -> Float64:
    """Return positive scores [rows] of an autoregressive machine; memory: rows to 1/e."""
    from scipy.signal import lfilter

    keep = float(np.exp(-1 / memory))
    noise = rng.standard_normal(rows) * np.sqrt(1 - keep * keep)
    noise[0] = rng.standard_normal()
    return np.exp(0.5 * lfilter([1.0], [1.0, -keep], noise))


def two_states(rng: np.random.Generator, rows: int, memory: float) -> Float64:
    """Return scores [rows] of a machine that changes between two states after `memory` rows."""
    lengths = rng.exponential(memory, 10 + int(4 * rows / memory)).astype(int) + 1
    state = np.repeat(np.arange(len(lengths)) % 2, lengths)[:rows]
    return wandering(rng, rows, 5.0) * np.where(state[:rows], 2.0, 1.0)


def reference_of_scores(scores: Float64) -> Reference:
    """Return the reference of a calibration with these scores [n]."""
    steps = np.linspace(0, 1, QUANTILES + 1)
    kept = tuple(np.quantile(scores, steps).tolist())
    return Reference("", "", 1, kept, len(scores), memory_of(scores), 1.0)


def week_of(scores: Float64) -> WeekScores:
    """Return the histogram of a week with these scores [n], at a threshold of 10."""
    bins = np.searchsorted(EDGES, scores / 10.0, side="right")
    return WeekScores("", 10.0, 0, tuple(np.bincount(bins, minlength=len(EDGES) + 1).tolist()))


@main.command()
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 1000))
@page_option("common")
def common(days: int, out: Path | None) -> None:
    """Which alarms of simulated fleets, with and without shared events, are called common?"""
    rng, lines = np.random.default_rng(0), []
    for case in CASES:
        watched, shared = simulated_fleet(rng, case, days)
        found = np.array([each.common for one in companies(watched) for each in one], bool)
        lines.append(
            (f"{case.assets:,}", f"{case.rate:g}", f"{case.events}", f"{case.share:.1%}",
             f"{found[shared].mean():.0%}" if shared.any() else "",
             f"{found[~shared].mean():.2%}")
        )  # fmt: skip
    header = (
        "assets",
        "own alarms a day",
        "events",
        "assets in each",
        "found",
        "own, common",
    )
    _told(f"{days} days.\n\n{markdown(header, lines)}", out, "common")


def simulated_fleet(
    rng: np.random.Generator, case: FleetCase, days: int
) -> tuple[list[Watched], npt.NDArray[np.bool_]]:
    """Return assets with alarms, and which of all alarms an event made, in their order.

    Own alarms are Poisson, at rates that differ as a gamma variable of shape 2; an event alarms
    each of its assets within two minutes.
    """
    events, watched, shared = START + rng.uniform(0, days * DAY, case.events), [], []
    for asset in range(case.assets):
        count = rng.poisson(case.rate * rng.gamma(2, 0.5) * days)
        own = START + rng.uniform(0, days * DAY, count)
        hit = events[rng.random(case.events) < case.share]
        times = np.concatenate([own, hit + rng.uniform(0, 120, len(hit))])
        order = np.argsort(times)
        starts = tuple(times[order].tolist())
        watched.append(Watched(f"pump-{asset}", starts, START, START + days * DAY))
        shared.append(np.repeat([False, True], [len(own), len(hit)])[order])
    return watched, np.concatenate(shared)


def _told(text: str, out: Path | None, part: str) -> None:
    if out is not None:
        fill_page(out, text, part)
    click.echo(text)


if __name__ == "__main__":
    main()
