"""`gruard replay`: run the detector over a recording, in this process, as fast as possible."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from edge_runtime.commands.options import kernel_option, trusted_key_option, with_progress

if TYPE_CHECKING:
    from edge_runtime.detector.detector import StepDetector
    from edge_runtime.detector.kernels import Kernel
    from edge_runtime.record import Record
    from edge_runtime.sources.csvfile import Table
    from edge_runtime.sources.sample_clock import SampleClock, TimeSlot


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", default="-", metavar="FILE.csv|-", help="Records as CSV.  [default: stdout]")
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@click.option("--allow-failed", is_flag=True, help="Use a bundle whose validation failed.")
@kernel_option
@trusted_key_option
@click.option("--json", "as_json", is_flag=True, help="Summary as one JSON line on stderr.")
def replay(
    bundle: Path,
    data: Path,
    out: str,
    force: bool,
    allow_failed: bool,
    kernel: Kernel | None,
    trusted_keys: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write the records of DATA (CSV or Parquet) as gruard run does, without a supervisor.

    The columns are index, score, threshold, flag (1 = alarm), tier, valid, flags, masked, imputed,
    blamed (names joined by spaces), kind, probability, sensor (1: a sensor's fault, 0: the
    machine's) and time. Missing rows have gap records. Unlike in gruard run, an unreadable cell is
    an error.

    Example: gruard replay pump-1.gruard yesterday.csv --out records.csv
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.commands.first_load import open_safely
    from edge_runtime.files import output, refuse_one_file_twice
    from edge_runtime.record import CSV_COLUMNS, csv_cells
    from edge_runtime.recurring_alarms import RecurringAlarms
    from edge_runtime.sources.csvfile import read_table
    from edge_runtime.sources.sample_clock import SampleClock
    from edge_runtime.sources.sample_period import check_file_period
    from edge_runtime.supervision.summary import Summary

    if out != "-":
        refuse_one_file_twice([("DATA", str(data)), ("--out", out)])
    loaded = read_bundle(bundle, allow_failed, trusted_keys)
    manifest = loaded.manifest
    check_file_period(data, manifest.period, manifest.columns, manifest.channel_names)
    table = read_table(data, manifest.columns, manifest.channel_names, period=manifest.period)
    detector = open_safely(loaded, kernel)
    summary, clock = Summary(), SampleClock(loaded.manifest.period, live=False, now=0.0)
    recurring = RecurringAlarms(loaded.manifest.period)
    detector.self_test()
    with output(out, force) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for index, slot in enumerate(with_progress(_slots(clock, table), len(table.values))):
            arrived = perf_counter()
            record = _answer(detector, index, slot, len(table.channels), summary.last)
            record = recurring.mark(record)
            summary.add(record, perf_counter() - arrived)
            writer.writerow(csv_cells(record))
    summary.timing = {str(what): count for what, count in clock.events.items()}
    click.echo(summary.to_json() if as_json else summary.to_text(), err=True)


def _slots(clock: SampleClock, table: Table) -> Iterator[TimeSlot]:
    """Yield the slots of a recording, as in `gruard run`."""
    from edge_runtime.sources.sample_clock import slots_of
    from edge_runtime.sources.source import Reading

    times = repeat(None) if table.times is None else map(float, table.times)
    return slots_of(clock, map(Reading, times, table.values))


def _answer(
    detector: StepDetector, index: int, slot: TimeSlot, channels: int, last: Record | None
) -> Record:
    """Return the record of `slot`. last: the record before it."""
    import numpy as np

    from edge_runtime.record import Flag, Sample, unjudged

    gap = slot.values is None
    values = np.full(channels, np.nan, np.float32) if slot.values is None else slot.values
    record = detector.step(Sample(index, slot.time, values))
    if gap and record.tier == 3:
        record = unjudged(record, last)
    flags = record.flags | (Flag.GAP if gap else Flag(0))
    flags |= Flag.TIMING if slot.irregular else Flag(0)
    return replace(record, flags=flags, slots=slot.slots)
