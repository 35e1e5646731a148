"""The manifest that ships: constants and thresholds measured with the shipping arithmetic.

A covariance fits the rows it was measured on better than any other rows: their distances come out
too small, by a lot with many channels and few rows. So the shapes of the score that ship are
measured on all rows, and the scores that centre and calibrate them fold by fold, each fold with the
shapes of the other folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Manifest
from edge_runtime.calibration import Calibration, calibrate, margins_of
from edge_runtime.detector.cell import Model
from edge_runtime.detector.score import score_constants
from edge_runtime.learning.cleaning import kept_rows
from edge_runtime.learning.draft import (
    draft_manifest,
    forecast_constants,
    is_white,
    no_threshold,
    with_fallback_limits,
    with_lines,
    with_memories,
    with_score_shapes,
    with_state_limit,
)
from edge_runtime.learning.linear import all_but, cut_folds, fold_spans, fold_weights
from edge_runtime.learning.prepare import Rows, standard_rows
from edge_runtime.learning.rollout import Rollout, joined, remeasured, rescored, roll_all, stretch
from edge_runtime.learning.run import Run
from edge_runtime.learning.shipped import graph_of, shipped_model
from edge_runtime.learning.streams import clean_rows, clean_test_rows

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
# Enough training rows to measure covariances; more rows would only take time.
MOST_SHAPE_ROWS = 6000
Folds = Sequence[Sequence[Rollout]]


@dataclass(frozen=True)
class FurtherForecasts:
    """Input of the two further forecasts: standardised clean rows, and whether errors are white."""

    rows: Rows
    white: bool

    def without(self, number: int) -> Rows:
        """Return the rows of all folds except fold `number`."""
        values, masks = (cut_folds(part) for part in (self.rows.values, self.rows.masks))
        return Rows(tuple(all_but(values, number)), tuple(all_but(masks, number)))


@dataclass(frozen=True)
class Calibrated:
    """A manifest with its threshold, and the calibration behind the threshold.

    kept: the rows of each recording that the calibration used, bool [n]; None for all.
    """

    manifest: Manifest
    calibration: Calibration
    kept: Sequence[Bools] | None


def calibrated(run: Run, model: bytes, version: int, wished_per_day: float) -> Calibrated:
    """Measure every constant of the manifest, and the threshold of the reference kernel."""
    draft, rows = draft_manifest(run, graph_of(model), version), _rows(run, not model)
    # A first pass with the highway only shows whether errors are white, and which rows are dirty.
    look = _measured(run, model, draft, rows)
    white = is_white(look[1])
    further = FurtherForecasts(standard_rows(rows, draft.channels, draft.period), white)
    draft = with_lines(draft, further.rows, white)
    # If errors are white, the ceilings of the score replace cleaning.
    kept = None if white else _kept(*look)
    draft, clean = _measured(run, model, draft, rows, further, kept)
    # The usual values are measured on all rows, because the last few hundred may be all calm or all
    # strange. Only the threshold needs rows that the network never saw.
    unseen = clean if draft.linear else clean[-len(run.rows["calibrate"]) :]
    manifest = with_memories(draft, clean, white, sum(len(r.score) for r in unseen))
    manifest = with_fallback_limits(manifest, clean)
    manifest = with_state_limit(manifest, clean)
    shipped = shipped_model(manifest, model)
    unseen = [rescored(rollout, shipped.score) for rollout in unseen]
    test = roll_all(shipped, clean_test_rows(run))
    calibration, used = _calibration(shipped, unseen, test, run, wished_per_day), None
    if calibration.dirty:
        used = (_kept(*look) if kept is None else kept)[-len(unseen) :]
        calibration = _calibration(shipped, unseen, test, run, wished_per_day, used)
    thresholds = {shipped.graph.kernel_id: calibration.threshold}
    return Calibrated(replace(manifest, thresholds=thresholds), calibration, used)


def calibrated_on(kernel: str, run: Run, model: bytes, known: Calibrated) -> Calibration:
    """Return the threshold of another `kernel`, with the same target and the same constants."""
    draft = replace(known.manifest, thresholds={kernel: no_threshold()})
    shipped = shipped_model(draft, model, kernel)
    wish = known.calibration.threshold.wished_per_day
    unseen, test = roll_all(shipped, run.rows["calibrate"]), roll_all(shipped, clean_test_rows(run))
    return _calibration(shipped, unseen, test, run, wish, known.kept)


def _calibration(
    model: Model,
    unseen: Sequence[Rollout],
    test: Sequence[Rollout],
    run: Run,
    wished_per_day: float,
    kept: Sequence[Bools] | None = None,
) -> Calibration:
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
    """Return the recordings that shapes and centres are measured on."""
    if linear:
        return clean_rows(run)
    rows = _share(run.rows["train"] + run.rows["validate"], MOST_SHAPE_ROWS)
    return rows + run.rows["calibrate"]


def _measured(
    run: Run,
    model: bytes,
    draft: Manifest,
    rows: Sequence[Float32],
    further: FurtherForecasts | None = None,
    kept: Sequence[Bools] | None = None,
) -> tuple[Manifest, list[Rollout]]:
    """Return `draft` with its shapes, and `rows` rolled and scored out of sample.

    further: None for the highway as the only forecast. kept: the rows that shapes are measured on.
    """
    if draft.linear:
        folds = _rolled_by_folds(run, draft, rows, further)
    else:
        folds = in_folds(roll_all(shipped_model(draft, model), rows))
    lengths = list(map(len, rows))
    return measured(draft, folds if kept is None else marked(folds, kept), lengths)


def _kept(draft: Manifest, clean: Sequence[Rollout]) -> list[Bools]:
    constants = score_constants(with_memories(draft, clean, white=False, unseen=0))
    scored = np.array([not channel.exogenous for channel in draft.channels])
    return kept_rows([rescored(rollout, constants) for rollout in clean], scored)


def _rolled_by_folds(
    run: Run, draft: Manifest, rows: Sequence[Float32], further: FurtherForecasts | None
) -> list[list[Rollout]]:
    """Roll all clean rows of a linear run, each fold with forecasts that never saw it."""
    folds = []
    for number, pieces in enumerate(cut_folds(rows)):
        weights = {**run.weights, **fold_weights(run.weights, number)}
        fold = replace(draft, forecast=forecast_constants(weights))
        if further is not None:
            fold = with_lines(fold, further.without(number), further.white)
        folds.append(roll_all(shipped_model(fold, b""), pieces))
    return folds


def _share(recordings: Sequence[Float32], most: int) -> list[Float32]:
    """Return the same share of each recording, from its beginning, at most `most` rows in total."""
    share = min(most / sum(map(len, recordings)), 1.0)
    return [rows[: max(int(share * len(rows)), 1)] for rows in recordings]


def in_folds(rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
    """Cut the rollouts of whole recordings into folds, for a forecaster that all folds share."""
    spans = fold_spans([len(r.score) for r in rollouts])
    return [[stretch(rollouts[r], start, stop) for r, start, stop in fold] for fold in spans]


def marked(folds: Folds, kept: Sequence[Bools]) -> list[list[Rollout]]:
    """Mark in `folds` the rows that are kept; kept: bool [n] of each recording."""
    spans = fold_spans(list(map(len, kept)))
    return [
        [replace(r, kept=kept[i][a:b]) for r, (i, a, b) in zip(fold, places, strict=True)]
        for fold, places in zip(folds, spans, strict=True)
    ]


def measured(
    draft: Manifest, folds: Folds, lengths: Sequence[int]
) -> tuple[Manifest, list[Rollout]]:
    """Return `draft` with the shapes of all folds, and their rows scored out of sample.

    folds: rollouts over recordings of `lengths`, cut by `learning.linear.fold_spans`. The result
    has one rollout per recording, so that the score's memory is not interrupted.
    """
    whole: list[list[Rollout]] = [[] for _ in lengths]
    for number, (fold, spans) in enumerate(zip(folds, fold_spans(lengths), strict=True)):
        constants = score_constants(with_score_shapes(draft, all_but(folds, number)))
        for rollout, (recording, _, _) in zip(fold, spans, strict=True):
            whole[recording].append(remeasured(rollout, constants))
    every = [rollout for fold in folds for rollout in fold]
    return with_score_shapes(draft, every), [joined(pieces) for pieces in whole if pieces]


def standout_warning(found: Calibration) -> str:
    """Return the warning that an anomaly among the clean rows raised the threshold."""
    return (
        f"the strangest clean row (settled row {found.row} of {found.rows}) is "
        f"{found.standout:.0f} times the usual, more than {found.limit:g}; the threshold is higher "
        "because of it, and weaker faults give no alarm. If the machine was not healthy there, "
        "label those rows or cut them out and learn again; if it was, record for longer"
    )
