"""`gruard calibrate`: the threshold for what this machine computes, or for what it sees."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.commands import ranges
from edge_runtime.commands.options import kernel_option, store_option, trusted_key_option
from edge_runtime.commands.progress import with_progress

if TYPE_CHECKING:
    from edge_runtime.detector.delegate import Kernel


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Clean recording (CSV) made here.")
@click.option(
    "--false-alarms-per-day",
    "wish",
    type=ranges.FALSE_ALARMS_PER_DAY,
    help="Wished number of false alarms.  [default: as the bundle was converted for]",
)
@kernel_option
@store_option
@trusted_key_option
@click.option("--json", "as_json", is_flag=True, help="Print the threshold as one JSON object.")
def calibrate(
    bundle: Path,
    data: Path | None,
    wish: float | None,
    kernel: Kernel | None,
    store: Path,
    trusted_keys: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Set the alarm threshold of BUNDLE anew, on this machine.

    BUNDLE is a folder, or NAME-VERSION or a digest of one in the store (see gruard list).

    With --data from a recording of the healthy machine, the longer the better: hours set a
    threshold, days assure it. Without, from the clean samples in the bundle, for a kernel that the
    bundle has no threshold for. The latest 30 % of the scores check what the others promise.

    The result lies beside the bundle (NAME-VERSION.thresholds.json), which stays untouched, and
    holds from the next start of gruard run. To go back, delete that file.

    \b
    Exit code 0: written, also when nothing is assured; 2: a problem you can mend.
    Example: gruard calibrate pump-1.gruard --data last-week.csv --false-alarms-per-day 0.2
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.calibration.recalibrate import (
        calibration_from,
        rows_of_bundle,
        rows_of_file,
        scores,
    )
    from edge_runtime.detector.kernels import threshold_kernel
    from edge_runtime.detector.thresholds import store_threshold
    from edge_runtime.errors import GruardError
    from edge_runtime.supervision.trial import open_safely
    from edge_runtime.updates.store import Store

    if not bundle.exists() and Store(store).slots.has_any():
        bundle = Store(store).slots.find(str(bundle)).path
    loaded = read_bundle(bundle, True, trusted_keys, whole=False)
    detector = open_safely(loaded, kernel, calibrated=False)
    detector.self_test()
    kernel = threshold_kernel(detector.kernel_id, loaded.manifest.linear)
    own = loaded.manifest.thresholds.get(kernel)
    if data is None and own is not None:
        raise GruardError(
            f"{bundle}: carries a threshold for {kernel} already, from more clean data than is in "
            "the bundle; record the healthy machine here and give --data"
        )
    rows = rows_of_bundle(loaded) if data is None else rows_of_file(data, loaded)
    found = list(with_progress(scores(detector, rows), len(rows), quiet=as_json))
    known = own or next(iter(loaded.manifest.thresholds.values()))
    made = calibration_from(found, loaded, wish or known.wished_per_day)
    if made.dirty:
        raise GruardError(
            f"{rows.source}: one score (the {made.row + 1}th settled one) is {made.standout:.0f} "
            "times as high as the usual ones; is the machine healthy there? Cut that out"
        )
    threshold = made.threshold
    file = store_threshold(loaded, kernel, threshold)
    if as_json:
        click.echo(json.dumps({"kernel": kernel, "file": str(file), **asdict(threshold)}))
        return
    before = f" (was {own.value:.2f})" if own else ""
    click.echo(f"threshold {threshold.value:.2f}{before} on {kernel}")
    click.echo(f"from {rows.source}: {threshold.method}")
    click.echo(threshold.statement)
    click.echo(f"written: {file}; it holds from the next start")
