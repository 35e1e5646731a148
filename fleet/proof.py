"""Prove a bundle again: files, schema, self-test, formula, and alarms on a clean recording."""

from dataclasses import replace
from pathlib import Path

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.calibration import CONFIDENCE, chance_of_at_most, rows_of_bundle
from edge_runtime.commands.first_load import load_safely
from edge_runtime.detector.golden import ROWS
from edge_runtime.errors import GruardError
from edge_runtime.learning.formula import formula_checks
from edge_runtime.learning.rollout import roll_all
from edge_runtime.learning.shipped import shipped_model, unchanging
from edge_runtime.plain import read_sealed
from fleet.results import (
    DAMAGED,
    OVER_TARGET,
    PROVEN,
    RESULT,
    UNFIT,
    AssetProof,
    AssetResult,
    AssetScore,
)


def prove_bundle(asset: str, path: Path) -> AssetProof:
    """Read the newest bundle of `asset` as a device does, and replay its self-test on this machine.

    The steps of a linear detector are compared with its formula, too, over the rows of the
    self-test and the clean rows in the bundle. path: FLEET/assets/NAME/VERSION/NAME-VERSION.gruard.
    """
    try:
        bundle = read_bundle(path)
        _require_place(bundle, asset)
    except GruardError as error:
        again = f"or remove {path.parent} and run fleet train again"
        return AssetProof(asset, DAMAGED, f"{error}; restore it, {again}", bundle=str(path))
    try:
        detector = load_safely(bundle)
        detector.self_test()
        off, problem = _off_formula(bundle)
    except GruardError as error:
        return AssetProof(asset, UNFIT, str(error), bundle=str(path))
    threshold, steps = bundle.manifest.thresholds[detector.kernel_id], _steps(bundle)
    return AssetProof(
        asset,
        UNFIT if problem else PROVEN,
        problem or f"{steps} steps of the self-test give the recorded bits",
        version=bundle.manifest.version,
        bundle=str(path),
        threshold=threshold.value,
        target=threshold.wished_per_day,
        steps=steps,
        off=off,
    )


def with_alarms(proof: AssetProof, score: AssetScore) -> AssetProof:
    """Return `proof` with the alarms of a clean recording.

    They are over the target if so many would be as rare as one in twenty recordings at the target.
    """
    chance = chance_of_at_most(score.alarms - 1, proof.target * score.days)
    over = score.alarms > 0 and chance > CONFIDENCE
    found = f"{score.alarms} alarm{'' if score.alarms == 1 else 's'} in {score.days:.3g} days"
    return replace(
        proof,
        verdict=OVER_TARGET if over else PROVEN,
        reason=f"{proof.reason}; {found}, the target is {proof.target:g} a day",
        rows=score.rows,
        days=score.days,
        alarms=score.alarms,
    )


def _require_place(bundle: Bundle, asset: str) -> None:
    """Raise GruardError for another bundle than the one that was learned for this place."""
    manifest, version = bundle.manifest, bundle.path.parent.name
    if (manifest.name, str(manifest.version)) != (asset, version):
        raise GruardError(
            f"{bundle.path}: holds version {manifest.version} of {manifest.name}, where version "
            f"{version} of {asset} should be"
        )
    learned = read_sealed(bundle.path.parent / RESULT, AssetResult)
    if learned is not None and learned.bundle_digest not in ("", bundle.digest):
        raise GruardError(f"{bundle.path}: is whole, but not the bundle that was learned")


def _off_formula(bundle: Bundle) -> tuple[float, str]:
    """Return how far the steps are off the formula, and what is wrong; -1 for a network."""
    if not bundle.manifest.linear:
        return -1.0, ""
    model = unchanging(shipped_model(bundle.manifest, b""))
    rows = [bundle.arrays("golden.npz")[ROWS], *rows_of_bundle(bundle).recordings]
    off, largest = formula_checks(model, roll_all(model, rows))
    worst = next((check for check in (off, largest) if not check.passed), None)
    return off.value, f"{worst.name}: {worst.value:g}; check its memory" if worst else ""


def _steps(bundle: Bundle) -> int:
    return len(bundle.arrays("golden.npz")[ROWS])
