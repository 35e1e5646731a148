"""Accuracy of the diagnosis (channel, kind of fault, sensor or machine) on simulated machines.

A linear model of the healthy machine is trained and calibrated as a user's would be. Then
recordings of other seeds, with faults of known kind and place, go through the device's own step.
Only alarms are diagnosed, so everything is measured twice: at the bundle's threshold, and at the
99.9 % quantile of clean scores, which finds smaller faults as well. Each diagnosis is read twice:
soon after the start of the alarm, and later, when a growing fault is fully visible.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from edge_runtime.detector.alarm import alarm_stretches

if TYPE_CHECKING:
    from edge_runtime.bundle.manifest import Manifest
    from edge_runtime.record import Record
    from train.simulate import SimulatedFault

HEALTHY_ROWS, UNSEEN_ROWS = 12000, 6000
FIRST_SEED = 201  # the healthy machine is of seed 0
EVERY = 1000  # rows per fault
QUANTILE, CLEAR_SHARE = 0.999, 0.95
AFTERWARDS = 20  # rows after a fault in which its alarm may still rise
# Rows of an alarm after which its diagnosis is read, or at its end if that comes first.
EARLY, LATE = 50, 200
WANTED = {"channel": 0.9, "kind": 0.8, "sensor": 0.9}


@dataclass(frozen=True)
class Case:
    """One fault. found: the kind that was named, None without an alarm. channel: the channel blamed
    first is one of the fault's.
    """

    truth: str
    found: str | None
    channel: bool


@dataclass(frozen=True)
class DiagnosisResult:
    """Shares of the diagnosed faults that are right; confusion: truth to kind named to count."""

    threshold: str
    rows: int  # of the alarm, at most, after which the diagnosis was read
    faults: int
    diagnosed: int
    channel: float
    kind: float
    sensor: float
    confusion: dict[str, dict[str, int]]


@click.command()
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Recordings.")
@click.option("--rows", default=48000, show_default=True, type=click.IntRange(3 * EVERY))
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(seeds: int, rows: int, as_json: bool) -> None:
    """Measure the diagnosis on SEEDS simulated recordings of faults, ROWS samples each.

    Exit code 1 when a share of the late readings is below what is wanted.
    """
    with tempfile.TemporaryDirectory() as scratch:
        manifest = made_manifest(Path(scratch))
    results = []
    for name, variant in thresholds(manifest).items():
        pairs = [pair for seed in range(seeds) for pair in watched(variant, rows, seed)]
        results.append(result(name, EARLY, [early for early, _ in pairs]))
        results.append(result(name, LATE, [late for _, late in pairs]))
        click.echo(f"{name}: {seeds} recordings done", err=True)
    if as_json:
        click.echo(json.dumps([asdict(r) for r in results]))
    else:
        click.echo("\n\n".join(text(r) for r in results))
    late = [r for r in results if r.rows == LATE]
    wrong = [r for r in late if any(getattr(r, name) < WANTED[name] for name in WANTED)]
    raise SystemExit(1 if wrong else 0)


def made_manifest(scratch: Path) -> "Manifest":
    """The healthy machine's linear model, calibrated, with its diagnosis."""
    from benchmarks.gruard_detector import silent
    from edge_runtime.learning.calibrated import calibrated
    from edge_runtime.learning.diagnosis.section import diagnosis_of_run
    from edge_runtime.learning.recording import write_recording
    from train.cell_config import CellConfig
    from train.simulate import simulate, write_settings
    from train.train_run import train_run
    from train.training_request import Budget, TrainingRequest, read_training_data

    data = scratch / "data"
    data.mkdir()
    write_recording(data / "healthy.csv", simulate(HEALTHY_ROWS, 0))
    write_settings(data / "channels.yaml")
    request = TrainingRequest(data=(data,), out=scratch / "run", name="pump", model="linear")
    run = train_run(
        request, read_training_data(request), CellConfig(channels=0), Budget(seed=0), silent, silent
    )
    diagnosis, judgement = diagnosis_of_run(run, silent)
    if judgement is not None:
        click.echo(judgement.sentence(), err=True)
    return replace(calibrated(run, b"", 1, 1.0).manifest, diagnosis=diagnosis)


def thresholds(manifest: "Manifest") -> "dict[str, Manifest]":
    """The manifest with its own threshold, and with the quantile of unseen healthy rows."""
    from edge_runtime.learning.rollout import roll
    from edge_runtime.learning.shipped import shipped_model
    from train.simulate import simulate

    calm = roll(
        shipped_model(replace(manifest, diagnosis=None), b""),
        simulate(UNSEEN_ROWS, FIRST_SEED - 1).values,
    )
    value = float(np.quantile(calm.score[calm.settled], QUANTILE))
    lower = {
        kernel: replace(threshold, value=value, clear=CLEAR_SHARE * value)
        for kernel, threshold in manifest.thresholds.items()
    }
    return {"bundle": manifest, "quantile": replace(manifest, thresholds=lower)}


def watched(manifest: "Manifest", rows: int, seed: int) -> list[tuple[Case, Case]]:
    """Every fault of one recording, and what the device says of it early and late."""
    from edge_runtime.learning.rollout import records_of
    from edge_runtime.learning.shipped import shipped_model
    from train.simulate import simulate_faults

    simulation = simulate_faults(rows, FIRST_SEED + seed, every=EVERY)
    records = records_of(shipped_model(manifest, b""), simulation.recording.values)
    return list(_cases(simulation.events, records))


def result(threshold: str, rows: int, cases: Sequence[Case]) -> DiagnosisResult:
    """The shares of `cases`."""
    from edge_runtime.diagnosis import MACHINE

    found = [(case, case.found) for case in cases if case.found is not None]

    def share(right: Iterator[bool]) -> float:
        return sum(right) / len(found) if found else float("nan")

    confusion: dict[str, Counter[str]] = {case.truth: Counter() for case in cases}
    for case, kind in found:
        confusion[case.truth][kind] += 1
    return DiagnosisResult(
        threshold=threshold,
        rows=rows,
        faults=len(cases),
        diagnosed=len(found),
        channel=share(case.channel for case, _ in found),
        kind=share(kind_of(case.truth) == kind for case, kind in found),
        sensor=share((kind_of(case.truth) == MACHINE) == (kind == MACHINE) for case, kind in found),
        confusion={truth: dict(counts) for truth, counts in confusion.items()},
    )


def kind_of(truth: str) -> str:
    """The kind of the diagnosis that a simulated fault should get."""
    from edge_runtime.diagnosis import KINDS, MACHINE

    return "dropout" if truth == "blackout" else truth if truth in KINDS else MACHINE


def text(found: DiagnosisResult) -> str:
    """The shares and the confusion matrix as a table."""
    from edge_runtime.diagnosis import KINDS

    lines = [
        f"threshold: {found.threshold}; read after {found.rows} rows at the latest; "
        f"{found.diagnosed} of {found.faults} faults diagnosed",
        *(f"  {n:<8} {getattr(found, n):6.1%}  (wanted {w:.0%})" for n, w in WANTED.items()),
        f"  {'':<16}" + "".join(f"{kind[:8]:>9}" for kind in KINDS),
    ]
    for truth, counts in found.confusion.items():
        cells = "".join(f"{counts.get(kind, 0) or '.':>9}" for kind in KINDS)
        lines.append(f"  {truth:<16}{cells}")
    return "\n".join(lines)


def _cases(
    events: "Sequence[SimulatedFault]", records: "Sequence[Record]"
) -> Iterator[tuple[Case, Case]]:
    begins = {start for start, _ in alarm_stretches([record.alarm for record in records])}
    for event in events:
        rising = range(event.start, min(event.stop + AFTERWARDS, len(records)))
        rise = next((i for i in rising if i in begins and _on(records[i])), None)
        if rise is None:
            missed = Case(event.kind, None, False)
            yield missed, missed
        else:
            yield _read(event, records, rise, EARLY), _read(event, records, rise, LATE)


def _read(event: "SimulatedFault", records: "Sequence[Record]", rise: int, rows: int) -> Case:
    last = rise
    while last + 1 < min(rise + rows, len(records)) and _on(records[last + 1]):
        last += 1
    first = set(records[last].blamed[:1])
    return Case(event.kind, records[last].kind, bool(first & set(event.channels)))


def _on(record: "Record") -> bool:
    return record.alarm and record.kind is not None


if __name__ == "__main__":
    main()
