"""Clean rows that are not: stretches of a recording in which the machine was not itself.

Recordings of healthy machines hold restarts, calibrations and faults that nobody noted. Measured
with them, covariances and scales are too wide for everything else. Without labels a stretch is
left out only where two witnesses agree, each in deviations over its median:

    score     of the row, by forecasts and shapes that did not see it
    distance  from the row to its nearest neighbour in the other folds of the recording

The reading and its average are compared, both whitened. A state that is rare but comes back has a
neighbour, and stays. One channel alone has no second witness, and in a short recording much is like
nothing else: what is rare there may be how the machine is.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, maximum_filter1d
from scipy.signal import lfilter

from convert.rollout import Rollout
from train.linear import all_but, fold_spans
from train.score import centre_of, inverse_root

Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

STRANGE, LONELY = 4.0, 4.0  # deviations of the score and of the distance
MOST = 0.05  # of the rows
FEWEST = 2500  # with fewer rows much is like nothing else
AROUND, WIDENED = 5, 10  # rows in which the distance may be large; left out on each side
AVERAGE = 0.3  # smoothing of the readings' average
BLOCK = 500  # rows that are compared at once


def kept_rows(clean: Sequence[Rollout], scored: Bools) -> list[Bools]:
    """For each recording which of its rows to learn from.

    clean: recordings in one piece each, with scores. scored: [channels].
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
        lonely = maximum_filter1d(distances[rows], AROUND) > LONELY
        kept.append(~binary_dilation(strange[rows] & lonely, iterations=WIDENED))
        start += length
    return kept


def _distances(clean: Sequence[Rollout], scored: Bools, lengths: Sequence[int]) -> Float64:
    """From each row to the nearest of the other folds: [all rows]."""
    recordings = [_features(r, scored) for r in clean]
    whole = np.concatenate(recordings)
    root = inverse_root((whole - whole.mean(axis=0)).astype(np.float32))
    found = [np.zeros(length) for length in lengths]
    spans = fold_spans(lengths)
    for number, fold in enumerate(spans):
        others = [recordings[r][start:stop] for r, start, stop in all_but(spans, number)]
        for r, start, stop in fold:
            found[r][start:stop] = _nearest(
                recordings[r][start:stop] @ root.T, np.concatenate(others) @ root.T
            )
    return np.concatenate(found)


def _features(rollout: Rollout, scored: Bools) -> Float64:
    """Reading and its average [n, 2 * scored channels]."""
    values = (rollout.value * rollout.mask)[:, scored].astype(np.float64)
    start = (1 - AVERAGE) * values[:1]
    average, _ = lfilter([AVERAGE], [1, AVERAGE - 1], values, axis=0, zi=start)
    return np.concatenate([values, average], axis=1)


def _nearest(rows: Float64, others: Float64) -> Float64:
    lengths = (others**2).sum(axis=1)
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    squares = [
        ((block**2).sum(axis=1)[:, np.newaxis] + lengths - 2 * block @ others.T).min(axis=1)
        for block in blocks
    ]
    return np.sqrt(np.maximum(np.concatenate(squares), 0))


def _in_deviations(values: Float64) -> Float64:
    middle, deviation = centre_of(values)
    return (values - middle) / deviation
