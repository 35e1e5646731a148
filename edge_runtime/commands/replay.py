"""`gruard replay`: a whole recording through the detector, in this process, as fast as it goes.

Records as the rows of a CSV file, which appears whole or not at all.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

import click

from edge_runtime.commands.options import kernel_option, trusted_key_option, with_progress
from edge_runtime.errors import GruardError
from edge_runtime.files import kind_at, open_new
from edge_runtime.record import Record, finite, flag_names

if TYPE_CHECKING:
    from edge_runtime.detector.detector import StepDetector
    from edge_runtime.detector.kernels import Kernel
    from edge_runtime.sources.csvfile import Table
    from edge_runtime.sources.sample_clock import SampleClock, TimeSlot


COLUMNS = (
    "index", "score", "threshold", "flag", "tier", "valid", "flags", "masked", "imputed",
    "blamed", "kind", "probability", "sensor", "time",
)  # fmt: skip


def cells(record: Record) -> list[object]:
    """One row, in the order of `COLUMNS`; names are joined by spaces, what is unknown is empty.

    Numbers that are not finite are unknown, as in `Record.to_json`.
    """
    time = finite(record.time)
    return [
        record.index,
        _number(record.score),
        _number(record.threshold),
        int(record.alarm),
        record.tier,
        int(record.valid and finite(record.score) is not None),
        " ".join(flag_names(record.flags)),
        " ".join(record.masked),
        " ".join(record.imputed),
        " ".join(record.blamed),
        record.kind or "",
        _number(record.probability),
        "" if record.sensor is None else int(record.sensor),
        "" if time is None else repr(time),
    ]


def _number(value: float | None) -> str:
    # Nine significant digits identify every float32.
    known = finite(value)
    return "" if known is None else f"{known:.9g}"


def refuse_to_overwrite(target: str, force: bool) -> None:
    """GruardError where the file `target` is already there, unless `force` is given."""
    if target != "-" and Path(target).exists() and not force:
        raise GruardError(f"{target}: is already there; choose another --out or add --force")


@contextmanager
def output(target: str, force: bool) -> Iterator[TextIO]:
    """Stdout for `-`, or a file that appears whole or not at all.

    Raises GruardError when it is already there and `force` is not given, or cannot be written.
    """
    if target == "-":
        yield sys.stdout
        return
    path = Path(target)
    refuse_to_overwrite(target, force)
    if path.exists() and not path.is_file():  # it would be replaced by a file
        raise GruardError(f"{target}: is {kind_at(path)}, not a file; name another --out")
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(open_new(scratch), "w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    except OSError as error:
        raise GruardError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


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
    """Give the records of DATA (CSV, also .csv.gz) as gruard run does, without a supervisor.

    The columns are index, score, threshold, flag (1 = alarm), tier, valid, flags, masked, imputed,
    blamed (names joined by spaces), kind, probability, sensor (1: a sensor's fault, 0: the
    machine's) and time. Missing rows have gap records. Unlike gruard run, an unreadable cell is an
    error. Where the C core was built, it runs the model, with the bits of the reference.

    Example: gruard replay pump-1.gruard yesterday.csv --out records.csv
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.commands.first_load import open_fastest, open_safely
    from edge_runtime.files import refuse_one_file_twice
    from edge_runtime.recurring_alarms import RecurringAlarms
    from edge_runtime.sources.csvfile import read_table
    from edge_runtime.sources.sample_clock import SampleClock
    from edge_runtime.sources.sample_period import check_file_period
    from edge_runtime.supervision.summary import Summary

    if out != "-":
        refuse_one_file_twice([("DATA", str(data)), ("--out", out)])
    loaded = read_bundle(bundle, allow_failed, trusted_keys)
    check_file_period(data, loaded.manifest.period)
    table = read_table(data, channels=loaded.manifest.channel_names)
    detector = open_safely(loaded, kernel) if kernel else open_fastest(loaded)
    summary, clock = Summary(), SampleClock(loaded.manifest.period, live=False, now=0.0)
    recurring = RecurringAlarms(loaded.manifest.period)
    detector.self_test()
    with output(out, force) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for index, slot in enumerate(with_progress(_slots(clock, table), len(table.values))):
            arrived = perf_counter()
            record = _answer(detector, index, slot, len(table.channels), summary.last)
            record = recurring.mark(record)
            summary.add(record, perf_counter() - arrived)
            writer.writerow(cells(record))
    summary.timing = {str(what): count for what, count in clock.events.items()}
    click.echo(summary.to_json() if as_json else summary.to_text(), err=True)


def _slots(clock: SampleClock, table: Table) -> Iterator[TimeSlot]:
    """The slots of a recording, as `gruard run` answers them."""
    from edge_runtime.sources.source import Reading

    for row, values in enumerate(table.values):
        time = None if table.times is None else float(table.times[row])
        yield from clock.place(Reading(time, values), 0.0)  # a recording has no arrivals
    yield from clock.finish(0.0)


def _answer(
    detector: StepDetector, index: int, slot: TimeSlot, channels: int, last: Record | None
) -> Record:
    """The record of `slot`; last: the one before it."""
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
