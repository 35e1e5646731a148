"""The score of many rows at once, and the shapes it is measured by.

The shapes are how large forecast errors are on clean rows and how they correlate. `parts_of_rows`
adds up each sum in the same order as one step of the runtime, so its results are the same bits.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.score import (
    ScoreConstants,
    of_all_errors,
    own_terms,
    scored_count,
)

Float32 = npt.NDArray[np.float32]
SMALLEST_RESIDUAL_SCALE = 0.05
SHRINKAGE = 0.01
ABSENT, RARE = 4.0, 0.01
ONE_DEVIATION = 0.8413  # of normally distributed values lie below their mean plus one deviation
SMALLEST_DEVIATION = 1e-3


def parts_of_rows(
    errors: Float32, value: Float32, doubt: Float32, mask: Float32, constants: ScoreConstants
) -> tuple[Float32, Float32]:
    """Compute `edge_runtime.detector.score.score_parts` of every row, bit for bit.

    errors: [n, 3, channels], the rest [n, channels]. Returns parts [n, 6] and per-channel terms
    [n, 3, channels].
    """
    e, x, terms, evidence = own_terms(errors, value, doubt, mask, constants)
    count = scored_count(constants)
    residual, own, ahead = (_sums(terms[:, i]) / count for i in range(3))
    distance = _lengths(_times(constants.distance_root, e))
    level = _lengths(_times(constants.level_root, x))
    parts = [residual, own, distance, level, ahead, _sums(evidence) / count]
    by_channel = np.stack([of_all_errors(terms), evidence, x * x], axis=1)
    return np.stack(parts, axis=1), by_channel


def _sums(values: Float32) -> Float32:
    total: Float32 = np.add.accumulate(values, axis=1)[:, -1]
    return total


def _times(matrix: Float32, rows: Float32) -> Float32:
    """Multiply the matrix with each row; each sum runs from the first to the last column."""
    total = matrix[:, 0] * rows[:, :1]
    for column in range(1, rows.shape[1]):
        total = total + matrix[:, column] * rows[:, column : column + 1]
    return total


def _lengths(vectors: Float32) -> Float32:
    return np.sqrt(_sums(vectors * vectors).astype(np.float64)).astype(np.float32)


def residual_scale(errors: Float32, mask: Float32) -> Float32:
    """Return the 99 % quantile of |error|, at least 0.05; errors, mask: [n, channels]."""
    used = mask > 0
    scales = [
        float(np.quantile(np.abs(column[usable]), 0.99)) if usable.any() else 1.0
        for column, usable in zip(errors.T, used.T, strict=True)
    ]
    return np.maximum(np.array(scales, np.float32), np.float32(SMALLEST_RESIDUAL_SCALE))


def absent_error(scale: Float32, mask: Float32) -> Float32:
    """Return the error [channels] that an unusable reading counts as, given `residual_scale`.

    Four times the scale for a channel that is unusable in at most 1 % of the rows of mask
    [n, channels]; less for a channel that is unusable more often.
    """
    share = np.maximum(1 - (mask > 0).mean(axis=0), RARE)
    return np.asarray(ABSENT * scale * np.sqrt(RARE / share), np.float32)


def centre_of(parts: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return median and upper deviation [parts] of clean score parts [n, parts].

    The deviation is the 84 % quantile minus the median, at least 0.001. For normally distributed
    values it equals the standard deviation, and a few strange stretches do not change it.
    """
    middle, above = np.quantile(parts, (0.5, ONE_DEVIATION), axis=0)
    return middle, np.maximum(above - middle, SMALLEST_DEVIATION)


def inverse_root(rows: Float32) -> Float32:
    """Return W [channels, channels] with WᵀW = (C + aI)⁻¹, C the second moments of `rows`."""
    wide = rows.astype(np.float64)
    moments = wide.T @ wide / len(wide)
    shrunk = moments + SHRINKAGE * np.eye(len(moments))
    return np.linalg.inv(np.linalg.cholesky(shrunk)).astype(np.float32)
