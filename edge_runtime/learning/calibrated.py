"""The manifest that ships: constants and thresholds measured with the shipping arithmetic.

A covariance fits the rows it was measured on better than any other rows: their distances come out
too small, by a lot with many channels and few rows. So the shapes of the score that ship are
measured on all rows, and the scores that centre and calibrate them fold by fold, each fold with the
shapes of the other folds.

A linear detector is fitted on some of many clean rows (`learning.thinning`). The rest goes through
the detector that ships, which never saw it: threshold and fallback limits are those of all rows.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Manifest
from edge_runtime.calibration import Calibration, calibrate, margins_of
from edge_runtime.detector.cell import Model
from edge_runtime.detector.score import score_constants
from edge_runtime.errors import ignore_line
from edge_runtime.learning.cleaning import kept_rows
from edge_runtime.learning.draft import (
    draft_manifest,
    forecast_constants,
    is_white,
    no_threshold,
    with_lines,
    with_memories,
    with_score_shapes,
    with_state_limit,
)
from edge_runtime.learning.fallback_limits import LargestViews, with_fallback_limits
from edge_runtime.learning.linear import all_but, cut_folds, fold_spans, fold_weights
from edge_runtime.learning.prepare import Rows, standard_rows
from edge_runtime.learning.rollout import (
    Rollout,
    joined,
    remeasured,
    rescored,
    roll,
    roll_all,
    stretch,
)
from edge_runtime.learning.run import Run
from edge_runtime.learning.shipped import graph_of, shipped_model
from edge_runtime.learning.split import near
from edge_runtime.learning.streams import clean_rows, clean_test_rows, fitted_and_rest
from edge_runtime.learning.thinning import PIECE, cut_spans
from edge_runtime.status.health import duration

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
# Enough training rows to measure covariances; more rows would only take time.
MOST_SHAPE_ROWS = 6000
PROGRESS_EVERY = 5.0  # seconds before the first line of progress, and between two
AROUND_STRANGE = 10  # rows left out on each side of one whose score looks like an anomaly's
Folds = Sequence[Sequence[Rollout]]
Part = TypeVar("Part")


class RowsProgress:
    """Say every five seconds how many of `total` rows are scored, and how long the others take.

    clock: monotonic seconds.
    """

    def __init__(self, total: int, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._total, self._say, self._clock = total, say, clock
        self._began = self._last = clock()
        self._done = 0

    def scored(self, rows: int) -> None:
        """Count `rows` more."""
        self._done += rows
        now, left = self._clock(), self._total - self._done
        if now - self._last >= PROGRESS_EVERY and left > 0:
            self._last = now
            seconds = (now - self._began) / self._done * left
            self._say(
                f"{self._done:,} of {self._total:,} rows scored, about {duration(seconds)} left"
            )


class Scores(Protocol):
    """Scores [n] of a recording, and where they are used: settled, bool [n]."""

    @property
    def score(self) -> Float32: ...
    @property
    def settled(self) -> Bools: ...


@dataclass(frozen=True)
class ScoredRows:
    """What is kept of a rollout of many rows; see `Scores`."""

    score: Float32
    settled: Bools


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


def calibrated(
    run: Run,
    model: bytes,
    version: int,
    wished_per_day: float,
    say: Callable[[str], None] = ignore_line,
) -> Calibrated:
    """Measure every constant of the manifest, and the threshold of the reference kernel.

    say: takes a line every five seconds while rows that were not fitted are scored.
    """
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
    others = cut_spans(clean_rows(run), fitted_and_rest(run)[1]) if draft.linear else []
    tested = clean_test_rows(run)
    progress = RowsProgress(sum(map(len, (*others, *tested))), say, time.monotonic)
    largest = LargestViews(draft.channels)
    rest = _rest(manifest, others, largest, progress) if others else []
    for rollout in clean:
        largest.add(rollout)
    manifest = with_fallback_limits(manifest, largest.found())
    manifest = with_state_limit(manifest, clean)
    shipped = shipped_model(manifest, model)
    fitted = [rescored(rollout, shipped.score) for rollout in unseen]
    test = list(_scored(shipped, tested, progress))
    scores: list[Scores] = _in_time_order(run, fitted, rest) if rest else [*fitted]
    calibration, used = _calibration(shipped, scores, test, run, wished_per_day), None
    if calibration.dirty:
        used = (_kept(*look) if kept is None else kept)[-len(fitted) :]
        if rest:
            calm = [~near(r.score > calibration.strange, AROUND_STRANGE) for r in rest]
            used = _in_time_order(run, used, calm)
        calibration = _calibration(shipped, scores, test, run, wished_per_day, used)
    thresholds = {shipped.graph.kernel_id: calibration.threshold}
    return Calibrated(replace(manifest, thresholds=thresholds), calibration, used)


def _rest(
    manifest: Manifest, others: Sequence[Float32], largest: LargestViews, progress: RowsProgress
) -> list[ScoredRows]:
    """Return the scores of the clean rows that were not fitted; add their views to `largest`.

    They are rolled piece by piece, which bounds the memory.
    """
    model, found = shipped_model(manifest, b""), []
    for rows in others:
        rollout = roll(model, rows)
        largest.add(rollout)
        found.append(_scores_of(rollout))
        progress.scored(len(rows))
    return found


def _scored(
    model: Model, recordings: Sequence[Float32], progress: RowsProgress
) -> Iterator[ScoredRows]:
    """Yield the scores of recordings, long ones in pieces."""
    for rows in recordings:
        for start in range(0, len(rows), PIECE):
            piece = rows[start : start + PIECE]
            yield _scores_of(roll(model, piece))
            progress.scored(len(piece))


def _scores_of(rollout: Rollout) -> ScoredRows:
    # Copies, because a view would keep the whole rollout.
    return ScoredRows(rollout.score.copy(), rollout.settled)


def _in_time_order(run: Run, fitted: Sequence[Part], rest: Sequence[Part]) -> list[Part]:
    """Merge what belongs to the spans that were fitted, and to those that were not."""
    spans = chain(*fitted_and_rest(run))
    pairs = sorted(zip(spans, [*fitted, *rest], strict=True), key=lambda pair: pair[0])
    return [part for _, part in pairs]


def calibrated_on(kernel: str, run: Run, model: bytes, known: Calibrated) -> Calibration:
    """Return the threshold of another `kernel`, with the same target and the same constants."""
    draft = replace(known.manifest, thresholds={kernel: no_threshold()})
    shipped = shipped_model(draft, model, kernel)
    wish = known.calibration.threshold.wished_per_day
    unseen, test = roll_all(shipped, run.rows["calibrate"]), roll_all(shipped, clean_test_rows(run))
    return _calibration(shipped, unseen, test, run, wish, known.kept)


def _calibration(
    model: Model,
    unseen: Sequence[Scores],
    test: Sequence[Scores],
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
        fitted=_rows_fitted(run, model.manifest),
    )


def _rows_fitted(run: Run, manifest: Manifest) -> int | None:
    """Return the number of clean rows that a linear detector is fitted on, None for all."""
    fitted, rest = fitted_and_rest(run)
    return sum(b - a for _, a, b in fitted) if manifest.linear and rest else None


def _rows_in(used: Sequence[Bools]) -> int:
    return sum(int(np.count_nonzero(rows)) for rows in used)


def _rows(run: Run, linear: bool) -> list[Float32]:
    """Return the recordings that shapes and centres are measured on."""
    if linear:
        return cut_spans(clean_rows(run), fitted_and_rest(run)[0])
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
