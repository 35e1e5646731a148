"""The manifest of what ships: constants and thresholds measured with the shipping arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from convert.cleaning import kept_rows
from convert.cross_fitting import in_folds, marked, measured
from convert.draft import (
    draft_manifest,
    forecast_constants,
    is_white,
    no_threshold,
    with_fallback_limits,
    with_lines,
    with_memories,
    with_state_limit,
)
from convert.rollout import Rollout, rescored, roll_all
from convert.streams import clean_rows, clean_test_rows
from convert.twins import graph_of, shipped_model
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.calibration.calibration import Calibration, calibrate, margins_of
from edge_runtime.detector.score import score_constants
from edge_runtime.detector.step import Model
from train.batches import Rows
from train.folds import cut_folds
from train.linear import fold_weights
from train.prepare import standard_rows
from train.run_folder import Run

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# Enough training rows to measure covariances; more would only take time.
MOST_SHAPE_ROWS = 6000


@dataclass(frozen=True)
class Calibrated:
    """A manifest with its threshold, and what the threshold was drawn from.

    kept: which rows of each recording, where not all: some stood out from all others.
    """

    manifest: Manifest
    calibration: Calibration
    kept: Sequence[Bools] | None


def calibrated(run: Run, model: bytes, version: int, wished_per_day: float) -> Calibrated:
    """Every constant of the manifest, and the threshold of the reference kernel."""
    draft, rows = draft_manifest(run, graph_of(model), version), _rows(run, not model)
    # A first look, by the highway alone, tells how the score shall remember and what is dirty.
    first, clean = _measured(run, model, draft, rows)
    white = is_white(clean)
    kept = _kept(first, clean)
    draft = with_lines(draft, _standard(rows, draft), white)
    # Where errors are white the ceilings of the score stand in for cleaning.
    draft, clean = _measured(run, model, draft, rows, white, None if white else kept)
    # What is usual must be told from all rows: a few hundred later ones may be all calm or all
    # strange. Only the threshold insists on rows that the network never saw.
    unseen = clean if draft.linear else clean[-len(run.rows["calibrate"]) :]
    manifest = with_memories(draft, clean, white, sum(len(r.score) for r in unseen))
    manifest = with_fallback_limits(manifest, clean)
    manifest = with_state_limit(manifest, clean)
    shipped = shipped_model(manifest, model)
    unseen = [rescored(rollout, shipped.score) for rollout in unseen]
    calibration, used = _calibration(shipped, unseen, run, wished_per_day), None
    if calibration.dirty:
        used = kept[-len(unseen) :]
        calibration = _calibration(shipped, unseen, run, wished_per_day, used)
    thresholds = {shipped.graph.kernel_id: calibration.threshold}
    return Calibrated(replace(manifest, thresholds=thresholds), calibration, used)


def calibrated_on(kernel: str, run: Run, model: bytes, known: Calibrated) -> Calibration:
    """The threshold of another `kernel`, for the same wish and with the same constants."""
    draft = replace(known.manifest, thresholds={kernel: no_threshold()})
    shipped = shipped_model(draft, model, kernel)
    wish = known.calibration.threshold.wished_per_day
    unseen = roll_all(shipped, run.rows["calibrate"])
    return _calibration(shipped, unseen, run, wish, known.kept)


def _calibration(
    model: Model,
    unseen: Sequence[Rollout],
    run: Run,
    wished_per_day: float,
    kept: Sequence[Bools] | None = None,
) -> Calibration:
    test = roll_all(model, clean_test_rows(run))
    used = [r.settled for r in unseen]
    if kept is not None:
        used = [settled & rows for settled, rows in zip(used, kept, strict=True)]
    return calibrate(
        [r.score[rows] for r, rows in zip(unseen, used, strict=True)],
        [r.score[r.settled] for r in test],
        wished_per_day,
        run.config.period,
        model.manifest.alarm,
        margins_of(model.manifest),
        left_out=_rows_in([r.settled for r in unseen]) - _rows_in(used),
    )


def _rows_in(used: Sequence[Bools]) -> int:
    return sum(int(np.count_nonzero(rows)) for rows in used)


def _rows(run: Run, linear: bool) -> list[Float32]:
    """The recordings that shapes and centres are measured on."""
    if linear:
        return clean_rows(run)
    rows = _share(run.rows["train"] + run.rows["validate"], MOST_SHAPE_ROWS)
    return rows + run.rows["calibrate"]


def _standard(rows: Sequence[Float32], draft: Manifest) -> Rows:
    return standard_rows(rows, draft.channels, draft.period)


def _measured(
    run: Run,
    model: bytes,
    draft: Manifest,
    rows: Sequence[Float32],
    white: bool | None = None,
    kept: Sequence[Bools] | None = None,
) -> tuple[Manifest, list[Rollout]]:
    """`draft` with its shapes, and `rows` rolled and scored as rows to come will be.

    white: None for the highway alone. kept: which of the rows the shapes are measured on.
    """
    if draft.linear:
        folds = _rolled_by_folds(run, draft, rows, white)
    else:
        folds = in_folds(roll_all(shipped_model(draft, model), rows))
    lengths = list(map(len, rows))
    return measured(draft, folds if kept is None else marked(folds, kept), lengths)


def _kept(draft: Manifest, clean: Sequence[Rollout]) -> list[Bools]:
    constants = score_constants(with_memories(draft, clean, white=False, unseen=0))
    scored = np.array([not channel.exogenous for channel in draft.channels])
    return kept_rows([rescored(rollout, constants) for rollout in clean], scored)


def _rolled_by_folds(
    run: Run, draft: Manifest, rows: Sequence[Float32], white: bool | None
) -> list[list[Rollout]]:
    """All clean rows of a linear run, each fold rolled with the forecasts that never saw it."""
    standard = _standard(rows, draft)
    values, masks = cut_folds(standard.values), cut_folds(standard.masks)
    folds = []
    for number, pieces in enumerate(cut_folds(rows)):
        weights = {**run.weights, **fold_weights(run.weights, number)}
        fold = replace(draft, forecast=forecast_constants(weights))
        if white is not None:
            fold = with_lines(fold, Rows(_but(values, number), _but(masks, number)), white)
        folds.append(roll_all(shipped_model(fold, b""), pieces))
    return folds


def _but(folds: Sequence[Sequence[Float32]], number: int) -> tuple[Float32, ...]:
    """The pieces of all other folds."""
    return tuple(piece for i, fold in enumerate(folds) if i != number for piece in fold)


def _share(recordings: Sequence[Float32], most: int) -> list[Float32]:
    """The beginning of each recording, the same share of all, `most` rows or fewer in total."""
    share = min(most / sum(map(len, recordings)), 1.0)
    return [rows[: max(int(share * len(rows)), 1)] for rows in recordings]
