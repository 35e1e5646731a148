"""`gruard replay`: a whole recording through the detector, in this process, as fast as it goes."""

from __future__ import annotations

import csv
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from edge_runtime.commands.options import kernel_option, trusted_key_option
from edge_runtime.commands.progress import with_progress

if TYPE_CHECKING:
    from edge_runtime.detector.delegate import Kernel


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
    """Give the record of every row of DATA (CSV, also .csv.gz), without a supervisor.

    The columns are index, score, threshold, flag (1 = alarm), tier, valid, flags, masked, imputed,
    blamed (names joined by spaces), kind, probability, sensor (1: a sensor's fault, 0: the
    machine's) and time. Unlike gruard run, an unreadable cell is an error. Where the C core was
    built, it runs the model, with the bits of the reference.

    Example: gruard replay pump-1.gruard yesterday.csv --out records.csv
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.files import refuse_one_file_twice
    from edge_runtime.record import Sample
    from edge_runtime.record_csv import COLUMNS, cells, output
    from edge_runtime.sources.csvfile import read_table
    from edge_runtime.sources.sample_period import check_file_period
    from edge_runtime.supervision.summary import Summary
    from edge_runtime.supervision.trial import open_fastest, open_safely

    if out != "-":
        refuse_one_file_twice([("DATA", str(data)), ("--out", out)])
    loaded = read_bundle(bundle, allow_failed, trusted_keys)
    check_file_period(data, loaded.manifest.period)
    table = read_table(data, channels=loaded.manifest.channel_names)
    detector = open_safely(loaded, kernel) if kernel else open_fastest(loaded)
    summary = Summary()
    values = table.values
    detector.self_test()
    with output(out, force) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for index in with_progress(range(len(values)), len(values)):
            arrived = perf_counter()
            time = None if table.times is None else float(table.times[index])
            record = detector.step(Sample(index, time, values[index]))
            summary.add(record, perf_counter() - arrived)
            writer.writerow(cells(record))
    click.echo(summary.to_json() if as_json else summary.to_text(), err=True)
