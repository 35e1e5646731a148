"""The manifest of what ships: constants and thresholds measured with the shipping arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from convert.cross_fitting import in_folds, measured
from convert.draft import (
    draft_manifest,
    forecast_constants,
    no_threshold,
    with_fallback_limits,
    with_score_centres,
    with_smoothing,
    with_state_limit,
)
from convert.rollout import Rollout, rescored, roll_all
from convert.streams import clean_rows, clean_test_rows
from convert.twins import graph_of, shipped_model
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.calibration.calibration import Calibration, calibrate
from edge_runtime.detector.step import Model
from train.folds import cut_folds
from train.linear import fold_weights
from train.run_folder import Run

Float32 = npt.NDArray[np.float32]

# Enough training rows to measure covariances; more would only take time.
MOST_SHAPE_ROWS = 6000


@dataclass(frozen=True)
class Calibrated:
    """A manifest with its threshold, and what the threshold was drawn from."""

    manifest: Manifest
    calibration: Calibration


def calibrated(run: Run, model: bytes, version: int, wished_per_day: float) -> Calibrated:
    """Every constant of the manifest, and the threshold of the reference kernel."""
    draft = draft_manifest(run, graph_of(model), version)
    if draft.linear:
        draft, clean = measured(draft, _rolled_by_folds(run, draft), _lengths(clean_rows(run)))
        unseen = clean
    else:
        rows = _share(run.rows["train"] + run.rows["validate"], MOST_SHAPE_ROWS)
        rows += run.rows["calibrate"]
        rollouts = roll_all(shipped_model(draft, model), rows)
        draft, clean = measured(draft, in_folds(rollouts), _lengths(rows))
        unseen = clean[-len(run.rows["calibrate"]) :]
    # What is usual must be told from all rows: a few hundred later ones may be all calm or all
    # strange. Only the threshold insists on rows that the network never saw.
    manifest = with_score_centres(with_smoothing(draft, clean), clean)
    manifest = with_fallback_limits(manifest, clean)
    manifest = with_state_limit(manifest, clean)
    shipped = shipped_model(manifest, model)
    unseen = [rescored(rollout, shipped.score) for rollout in unseen]
    calibration = _calibration(shipped, unseen, run, wished_per_day)
    thresholds = {shipped.graph.kernel_id: calibration.threshold}
    return Calibrated(replace(manifest, thresholds=thresholds), calibration)


def calibrated_on(kernel: str, run: Run, model: bytes, known: Calibrated) -> Calibration:
    """The threshold of another `kernel`, for the same wish and with the same constants."""
    draft = replace(known.manifest, thresholds={kernel: no_threshold()})
    shipped = shipped_model(draft, model, kernel)
    wish = known.calibration.threshold.wished_per_day
    return _calibration(shipped, roll_all(shipped, run.rows["calibrate"]), run, wish)


def _calibration(
    model: Model, unseen: Sequence[Rollout], run: Run, wished_per_day: float
) -> Calibration:
    test = roll_all(model, clean_test_rows(run))
    return calibrate(
        [r.score[r.settled] for r in unseen],
        [r.score[r.settled] for r in test],
        wished_per_day,
        run.config.period,
        model.manifest.alarm,
    )


def _rolled_by_folds(run: Run, draft: Manifest) -> list[list[Rollout]]:
    """All clean rows of a linear run, each fold rolled with the forecast that never saw it."""
    folds = []
    for number, pieces in enumerate(cut_folds(clean_rows(run))):
        weights = {**run.weights, **fold_weights(run.weights, number)}
        fold = replace(draft, forecast=forecast_constants(weights))
        folds.append(roll_all(shipped_model(fold, b""), pieces))
    return folds


def _lengths(recordings: Sequence[Float32]) -> list[int]:
    return [len(rows) for rows in recordings]


def _share(recordings: Sequence[Float32], most: int) -> list[Float32]:
    """The beginning of each recording, the same share of all, `most` rows or fewer in total."""
    share = min(most / sum(map(len, recordings)), 1.0)
    return [rows[: max(int(share * len(rows)), 1)] for rows in recordings]
