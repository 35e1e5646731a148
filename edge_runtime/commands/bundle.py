"""Commands on one bundle: `gruard inspect`, `gruard selftest` and `gruard calibrate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.commands import ranges
from edge_runtime.commands.options import (
    kernel_option,
    store_option,
    trusted_key_option,
    with_progress,
)

if TYPE_CHECKING:
    from edge_runtime.bundle.manifest import Channel
    from edge_runtime.bundle.reader import Bundle
    from edge_runtime.detector.kernels import Kernel


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@trusted_key_option
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object.")
def inspect(bundle: Path, trusted_keys: tuple[Path, ...], as_json: bool) -> None:
    """Print what BUNDLE watches, what it promises, and its validation. Runs no model.

    Example: gruard inspect pump-1.gruard
    """
    from edge_runtime.bundle.reader import read_bundle

    facts = _facts(read_bundle(bundle, allow_failed=True, trusted_keys=trusted_keys))
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{name:<12} {shown}")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@kernel_option
@trusted_key_option
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object.")
def selftest(
    bundle: Path, kernel: Kernel | None, trusted_keys: tuple[Path, ...], as_json: bool
) -> None:
    """Run BUNDLE's golden vectors on this machine: every bit must be as validated.

    A kernel other than the reference gives other bits; they may differ by 0.05 RMS.
    Exit code 0: it computes what was validated. 2: it does not; the error says what differs.
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.commands.first_load import open_safely

    loaded = read_bundle(bundle, allow_failed=True, trusted_keys=trusted_keys)
    detector = open_safely(loaded, kernel)
    detector.self_test()
    model, ran = loaded.model_hash, detector.kernel_id
    if as_json:
        click.echo(json.dumps({"passed": True, "kernel": ran, "model": model}))
    else:
        click.echo(f"passed: model {model} gives its golden answers on {ran}")


def _facts(bundle: Bundle) -> dict[str, Any]:
    from edge_runtime.calibration import trial_of
    from edge_runtime.detector.thresholds import local_thresholds

    manifest, local = bundle.manifest, local_thresholds(bundle)
    sizes = [tensor.shape[1] for name, tensor in manifest.inputs.items() if "state" in name]
    return {
        "name": manifest.name,
        "version": manifest.version,
        "model": bundle.model_hash,
        "bytes": len(bundle.model),
        "period": manifest.period,
        "channels": [
            f"{c.name}{f' [{c.unit}]' if c.unit else ''}{' (exogenous)' if c.exogenous else ''}"
            for c in manifest.channels
        ],
        "counters": [*manifest.columns.counters] or "none",
        "modes": _modes(manifest.channels),
        "highway": "full" if manifest.forecast.cross else "per channel",
        "gate": "yes" if "logit" in manifest.outputs else "none",
        "gru units": sizes or "none (linear)",
        "diagnosis": "none" if manifest.diagnosis is None else "yes",
        "validation": "passed" if manifest.validation.passed else "FAILED, written on demand",
        "promises": [f"{kernel}: {t.statement}" for kernel, t in manifest.thresholds.items()],
        "trial": trial_of(manifest).removeprefix("trial: ") or "no",
        "threshold": [f"{kernel}: {t.value:.3f}" for kernel, t in manifest.thresholds.items()],
        "set here": [f"{kernel}: {t.value:.3f}; {t.statement}" for kernel, t in local.items()],
        "tools": [f"{name} {version}" for name, version in manifest.provenance.tools.items()],
    }


def _modes(channels: tuple[Channel, ...]) -> str:
    count = max(len(channel.modes) for channel in channels)
    by = ", ".join(c.name for c in channels if c.exogenous and c.modes)
    return f"{count}, told apart by {by}" if count else "none"


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Healthy recording (CSV) made here.")
@click.option(
    "--false-alarms-per-day",
    "target",
    type=ranges.FALSE_ALARMS_PER_DAY,
    help="Target for false alarms.  [default: that of the bundle]",
)
@kernel_option
@store_option
@trusted_key_option
@click.option("--json", "as_json", is_flag=True, help="Print the threshold as one JSON object.")
def calibrate(
    bundle: Path,
    data: Path | None,
    target: float | None,
    kernel: Kernel | None,
    store: Path,
    trusted_keys: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Calibrate the alarm threshold of BUNDLE again, on this machine.

    BUNDLE is a folder, or NAME-VERSION or a digest of one in the store (see gruard list).

    With --data, the threshold comes from a recording of the healthy machine, the longer the better:
    hours set a threshold, days assure it. Without --data, it comes from the clean samples in the
    bundle, for a kernel that the bundle has no threshold for. The latest 30 % of the scores verify
    the threshold that the others give.

    The result is a file next to the bundle (NAME-VERSION.thresholds.json); the bundle is not
    changed. It holds from the next start of gruard run. To undo, delete that file.

    \b
    Exit code 0: written, also when nothing is assured; 2: a problem you can fix.
    Example: gruard calibrate pump-1.gruard --data last-week.csv --false-alarms-per-day 0.2
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.calibration import (
        calibration_from,
        rows_of_bundle,
        rows_of_file,
        scores,
    )
    from edge_runtime.commands.first_load import open_safely
    from edge_runtime.detector.kernels import threshold_kernel
    from edge_runtime.detector.thresholds import store_threshold
    from edge_runtime.errors import GruardError
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
            f"{bundle}: has a threshold for {kernel} already, from more clean data than is in the "
            "bundle; record the healthy machine here and give --data"
        )
    rows = rows_of_bundle(loaded) if data is None else rows_of_file(data, loaded)
    all_scores = list(with_progress(scores(detector, rows), len(rows), quiet=as_json))
    previous = own or next(iter(loaded.manifest.thresholds.values()))
    made = calibration_from(all_scores, loaded, target or previous.wished_per_day)
    if made.dirty:
        raise GruardError(
            f"{rows.source}: one score (the {made.row + 1}th settled one) is {made.standout:.0f} "
            "times as high as the usual ones; is the machine healthy there? If not, cut that out"
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
