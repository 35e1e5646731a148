"""Find stretches of a clean recording in which the machine was not healthy.

Recordings of healthy machines contain unlabelled restarts, calibrations and faults, which make
covariances and scales too wide. Without labels a row is left out only if two measures are both
large, each in deviations over its median:

    score     of the row, by forecasts and shapes that did not see it
    distance  from the row to its nearest neighbour in the other folds of the recording

The distance is that of the whitened reading and its average. A rare state that recurs has a
neighbour, and is kept. With a single channel, or few rows, nothing is left out: there a rare row
may be normal.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime.learning.linear import all_but, fold_spans
from edge_runtime.learning.rollout import Rollout
from edge_runtime.learning.score import centre_of, inverse_root
from edge_runtime.learning.smoothing import smoothed
from edge_runtime.learning.split import near

Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

STRANGE, LONELY = 4.0, 4.0  # deviations of the score and of the distance
MOST = 0.05  # of the rows
FEWEST = 2500  # with fewer rows many normal rows have no neighbour
AROUND, WIDENED = 5, 10  # rows in which the distance may be large; rows left out on each side
AVERAGE = 0.3  # smoothing of the readings' average
BLOCK = 50  # rows that are compared at once, with all others: 8 MB for 20,000 rows


def kept_rows(clean: Sequence[Rollout], scored: Bools) -> list[Bools]:
    """Return for each recording bool [n]: the rows to learn from.

    clean: one rollout per recording, with scores. scored: bool [channels].
    """
    lengths = [len(r.score) for r in clean]
    if np.count_nonzero(scored) < 2 or sum(lengths) < FEWEST:
        return [np.ones(length, bool) for length in lengths]
    scores = np.concatenate([r.score for r in clean]).astype(np.float64)
    strange = scores > max(STRANGE, float(np.quantile(scores, 1 - MOST)))
    distances = _in_deviations(_distances(clean, scored, lengths))
    kept, start = [], 0
    for length in lengths:
        rows = slice(start, start + length)
        lonely = near(distances[rows] > LONELY, AROUND // 2)
        kept.append(~near(strange[rows] & lonely, WIDENED))
        start += length
    return kept


def _distances(clean: Sequence[Rollout], scored: Bools, lengths: Sequence[int]) -> Float64:
    """Return the distance from each row to the nearest row of the other folds: [all rows]."""
    recordings = [_features(r, scored) for r in clean]
    whole = np.concatenate(recordings)
    root = inverse_root((whole - whole.mean(axis=0)).astype(np.float32))
    nearest = [np.zeros(length) for length in lengths]
    spans = fold_spans(lengths)
    for number, fold in enumerate(spans):
        others = [recordings[r][start:stop] for r, start, stop in all_but(spans, number)]
        for r, start, stop in fold:
            nearest[r][start:stop] = _nearest(
                recordings[r][start:stop] @ root.T, np.concatenate(others) @ root.T
            )
    return np.concatenate(nearest)


def _features(rollout: Rollout, scored: Bools) -> Float64:
    """Return the readings and their averages [n, 2 * scored channels]."""
    values = (rollout.value * rollout.mask)[:, scored].astype(np.float64)
    return np.concatenate([values, smoothed(values, AVERAGE, values[0])], axis=1)


def _nearest(rows: Float64, others: Float64) -> Float64:
    """Return how far each row is from the nearest of `others`: |a - b|² = |a|² + |b|² - 2 a·b."""
    lengths = (others**2).sum(axis=1, keepdims=True)
    reach, ones = np.hstack([others, lengths]).T, np.ones((len(rows), 1))
    pull = np.hstack([-2 * rows, ones])
    blocks = [pull[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    smallest = np.concatenate([(block @ reach).min(axis=1) for block in blocks])
    return np.asarray(np.sqrt(np.maximum((rows**2).sum(axis=1) + smallest, 0)))


def _in_deviations(values: Float64) -> Float64:
    middle, deviation = centre_of(values)
    return np.asarray((values - middle) / deviation)
