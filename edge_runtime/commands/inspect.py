"""`gruard inspect` and `gruard selftest`: what a bundle is, and does it compute rightly here?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.commands.options import kernel_option, trusted_key_option

if TYPE_CHECKING:
    from edge_runtime.bundle.manifest import Channel
    from edge_runtime.bundle.reader import Bundle
    from edge_runtime.detector.delegate import Kernel

BUNDLE = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=BUNDLE)
@trusted_key_option
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object.")
def inspect(bundle: Path, trusted_keys: tuple[Path, ...], as_json: bool) -> None:
    """Say what BUNDLE watches, what it promises, and how it was judged. Runs no model.

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
@click.argument("bundle", type=BUNDLE)
@kernel_option
@trusted_key_option
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object.")
def selftest(
    bundle: Path, kernel: Kernel | None, trusted_keys: tuple[Path, ...], as_json: bool
) -> None:
    """Run BUNDLE's golden vectors on this machine: every bit must be as validated.

    Another kernel than the reference gives other bits, and may be apart by 0.05 RMS.
    Exit code 0: it computes what was validated. 2: it does not, and the error says what differs.
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.supervision.trial import open_safely

    loaded = read_bundle(bundle, allow_failed=True, trusted_keys=trusted_keys)
    detector = open_safely(loaded, kernel)
    detector.self_test()
    ran = detector.kernel_id
    outcome = {"passed": True, "kernel": ran, "model": loaded.model_hash}
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        click.echo(f"passed: model {loaded.model_hash} gives its golden answers on {ran}")


def _facts(bundle: Bundle) -> dict[str, Any]:
    from edge_runtime.calibration.calibration import trial_of
    from edge_runtime.detector.thresholds import local_thresholds

    manifest, local = bundle.manifest, local_thresholds(bundle)
    verdict = "passed" if manifest.validation.passed else "FAILED, written on demand"
    sizes = [tensor.shape[1] for name, tensor in manifest.inputs.items() if "state" in name]
    return {
        "name": manifest.name,
        "version": manifest.version,
        "model": bundle.model_hash,
        "bytes": len(bundle.model),
        "period": manifest.period,
        "channels": [_channel(c.name, c.unit, c.exogenous) for c in manifest.channels],
        "modes": _modes(manifest.channels),
        "highway": "full" if manifest.forecast.cross else "per channel",
        "gate": "yes" if "logit" in manifest.outputs else "none",
        "gru units": sizes or "none (linear)",
        "diagnosis": "none" if manifest.diagnosis is None else "yes",
        "validation": verdict,
        "promises": [f"{kernel}: {t.statement}" for kernel, t in manifest.thresholds.items()],
        "trial": trial_of(manifest).removeprefix("trial: ") or "no",
        "threshold": [f"{kernel}: {t.value:.3f}" for kernel, t in manifest.thresholds.items()],
        "set here": [f"{kernel}: {t.value:.3f}; {t.statement}" for kernel, t in local.items()],
        "tools": [f"{name} {version}" for name, version in manifest.provenance.tools.items()],
    }


def _modes(channels: tuple[Channel, ...]) -> str:
    count = max(len(channel.modes) for channel in channels)
    telling = ", ".join(c.name for c in channels if c.exogenous and c.modes)
    return f"{count}, told apart by {telling}" if count else "none"


def _channel(name: str, unit: str, exogenous: bool) -> str:
    shown = f"{name} [{unit}]" if unit else name
    return f"{shown} (exogenous)" if exogenous else shown
