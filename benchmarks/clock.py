"""The cost of a bad clock and lost samples: one healthy day and one with faults, disturbed.

    python -m benchmarks.clock --healthy DAY.csv --faulty LABELLED.csv BUNDLE... [--out PAGE]
    make benchmark-clock                          on the simulated machine, linear and gated

Each disturbance is applied to both recordings, and `gruard run` answers them as files. *Tier 1* is
the share of records of tier 1. A *new alarm* begins where the undisturbed run has no alarm.
*Average precision* is of the scores on the labelled rows, compared with the undisturbed run.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.detection_metrics import auc_pr
from benchmarks.pages import fill_page, markdown, page_option
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.errors import GruardError
from edge_runtime.sources.csvfile import Table, read_table

Times = npt.NDArray[np.float64]
Rng = np.random.Generator
KERNEL = "core-c"
"""The fastest; other kernels give the same bits or, like tflite-xnnpack, have their own verdict."""
NEAR = 10
"""An alarm within this many records of one in the undisturbed run counts as the same."""


@dataclass(frozen=True)
class Disturbed:
    """A recording with disturbed times and lost rows. rows: those kept; times: of each, s."""

    rows: npt.NDArray[np.intp]
    times: Times


Disturb = Callable[[Times, float, Rng], Disturbed]


def _late(times: Times, period: float, rng: Rng) -> Disturbed:
    rows = np.arange(len(times))
    return Disturbed(rows, times + 0.6 * period * (rows % 50 == 40))


def _jittered(times: Times, period: float, rng: Rng) -> Disturbed:
    return Disturbed(
        np.arange(len(times)), np.sort(times + rng.normal(0, 0.2 * period, len(times)))
    )


def _bursts(times: Times, period: float, rng: Rng) -> Disturbed:
    jittered = _jittered(times, period, rng)
    for start in range(100, len(times) - 3, 700):
        jittered.times[start : start + 3] = jittered.times[start + 2] + 1e-3 * np.arange(3)
    return jittered


def _frozen(times: Times, period: float, rng: Rng) -> Disturbed:
    odd, third = times.copy(), len(times) // 4
    odd[third : third + 300] = odd[third]
    odd[2 * third :] -= 3600.0
    odd[3 * third] += 365 * 86400.0
    return Disturbed(np.arange(len(times)), odd)


def _coarse(times: Times, period: float, rng: Rng) -> Disturbed:
    return Disturbed(np.arange(len(times)), np.floor(times / (10 * period)) * 10 * period)


def _lossy(share: float) -> Disturb:
    def lose(times: Times, period: float, rng: Rng) -> Disturbed:
        kept = rng.random(len(times)) >= share
        kept[[0, -1]] = True
        return Disturbed(np.flatnonzero(kept), times[kept])

    return lose


DISTURBANCES: dict[str, Disturb] = {
    "none": lambda times, period, rng: Disturbed(np.arange(len(times)), times),
    "1 time in 50 late by 0.6": _late,
    "jitter, deviation 0.2": _jittered,
    "jitter, now and then 3 at once": _bursts,
    "clock stands still, set back, a wrong year": _frozen,
    "times in steps of 10": _coarse,
    "2 % lost": _lossy(0.02),
    "10 % lost": _lossy(0.1),
    "30 % lost": _lossy(0.3),
}


@dataclass(frozen=True)
class Answers:
    """The compared fields of one run's records; all [n]."""

    slot: npt.NDArray[np.intp]  # row of the undisturbed recording
    tier: npt.NDArray[np.int64]
    alarm: npt.NDArray[np.bool_]
    score: Times  # over its threshold; NaN where there is none
    gaps: int
    resets: int


def answers_of(lines: Sequence[str]) -> Answers:
    """What a run wrote, one slot after the other."""
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    slots = np.array([record.get("slots", 1) for record in records])
    return Answers(
        slot=np.cumsum(slots) - 1,
        tier=np.array([record["tier"] for record in records]),
        alarm=np.array([record["alarm"] for record in records]),
        score=np.array([_ratio(record) for record in records]),
        gaps=sum("GAP" in record["flags"] for record in records),
        resets=sum("RESET" in record["flags"] for record in records),
    )


def _ratio(record: dict[str, Any]) -> float:
    return record["score"] / record["threshold"] if record["threshold"] else np.nan


def new_alarms(undisturbed: Answers, disturbed: Answers) -> int:
    """Alarms that begin where the undisturbed run has none within `NEAR` records."""
    on = undisturbed.slot[undisturbed.alarm]
    begins = disturbed.slot[[start for start, _ in alarm_stretches(disturbed.alarm)]]
    return sum(not (np.abs(on - begin) <= NEAR).any() for begin in begins)


def precision(labels: npt.NDArray[np.int8], answers: Answers) -> float:
    """Average precision of the scores, without slots that have no label or no score."""
    usable = (answers.slot < len(labels)) & np.isfinite(answers.score)
    return auc_pr(labels[answers.slot[usable]], answers.score[usable])


def write(path: Path, table: Table, disturbed: Disturbed) -> None:
    """The disturbed recording as CSV."""
    rows = table.values[disturbed.rows].tolist()
    with path.open("w") as file:
        file.write(",".join(("time", *table.channels)) + "\n")
        for time, row in zip(disturbed.times, rows, strict=True):
            file.write(",".join((f"{time:.6f}", *map(repr, row))) + "\n")


def answer(bundle: Path, source: Path) -> Answers:
    """The records of `source`; GruardError when the run failed."""
    sink = source.with_suffix(".jsonl")
    words = ["run", str(bundle), "--source", str(source), "--sink", str(sink), "--force"]
    done = subprocess.run(
        [sys.executable, "-m", "edge_runtime", *words, "--kernel", KERNEL, "--allow-failed"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise GruardError(f"{source}: {done.stderr.strip().splitlines()[-1]}")
    return answers_of(sink.read_text().splitlines())


def lines_of(bundle: Path, healthy: Table, faulty: Table, folder: Path) -> Iterator[list[str]]:
    """A line of the table for each disturbance."""
    period = read_bundle(bundle, allow_failed=True).manifest.period
    assert period and healthy.times is not None and faulty.times is not None
    before: tuple[Answers, float] | None = None
    for name, disturb in DISTURBANCES.items():
        found = []
        for number, table in enumerate((healthy, faulty)):
            assert table.times is not None
            file = folder / f"{number}.csv"
            write(file, table, disturb(table.times, period, np.random.default_rng(number)))
            found.append(answer(bundle, file))
        day, faults = found
        assert faulty.labels is not None
        quality = precision(faulty.labels, faults)
        before = before or (day, quality)
        yield [
            bundle.stem, name, f"{len(day.slot):,}", str(day.gaps),
            f"{100 * np.mean(day.tier == 1):.2f} %", str(day.resets + faults.resets),
            str(new_alarms(before[0], day)), f"{quality:.3f}", f"{quality - before[1]:+.3f}",
        ]  # fmt: skip


HEADER = (
    "bundle", "disturbance", "records", "gaps", "tier 1", "resets", "new alarms",
    "average precision", "change",
)  # fmt: skip


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--healthy", required=True, type=click.Path(path_type=Path), help="A healthy day.")
@click.option("--faulty", required=True, type=click.Path(path_type=Path), help="A labelled one.")
@page_option()
def main(bundles: tuple[Path, ...], healthy: Path, faulty: Path, out: Path | None) -> None:
    """Answer disturbed recordings with each of BUNDLES."""
    day, faults = read_table(healthy), read_table(faulty)
    if faults.labels is None or day.times is None or faults.times is None:
        raise GruardError("both recordings need times, and the faulty one labels")
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        for bundle in bundles:
            for line in lines_of(bundle, day, faults, Path(scratch)):
                click.echo("  ".join(line), err=True)
                lines.append(line)
    text = markdown(HEADER, lines)
    click.echo(text)
    if out is not None:
        fill_page(out, text)


if __name__ == "__main__":
    main()
