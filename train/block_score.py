"""The unsmoothed score of many steps at once, each sum in the order of the step's own."""

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.score import (
    ScoreConstants,
    of_all_errors,
    own_terms,
    scored_count,
)

Float32 = npt.NDArray[np.float32]


def parts_of_rows(
    errors: Float32, value: Float32, doubt: Float32, mask: Float32, constants: ScoreConstants
) -> tuple[Float32, Float32]:
    """`edge_runtime.detector.score.score_parts` of every row, bit for bit.

    errors: [n, 3, channels], the rest [n, channels]. Returns parts [n, 6] and per-channel terms
    [n, 3, channels].
    """
    e, x, terms, evidence = own_terms(errors, value, doubt, mask, constants)
    count = scored_count(constants)
    residual, own, ahead = (_sums(terms[:, i]) / count for i in range(3))
    distance = _lengths(_times(constants.distance_root, e))
    level = _lengths(_times(constants.level_root, x))
    parts = [residual, own, distance, level, ahead, _sums(evidence) / count]
    told = np.stack([of_all_errors(terms), evidence, x * x], axis=1)
    return np.stack(parts, axis=1), told


def _sums(values: Float32) -> Float32:
    total: Float32 = np.add.accumulate(values, axis=1)[:, -1]
    return total


def _times(matrix: Float32, rows: Float32) -> Float32:
    """The matrix times each row, each sum first to last."""
    total = matrix[:, 0] * rows[:, :1]
    for column in range(1, rows.shape[1]):
        total = total + matrix[:, column] * rows[:, column : column + 1]
    return total


def _lengths(vectors: Float32) -> Float32:
    return np.sqrt(_sums(vectors * vectors).astype(np.float64)).astype(np.float32)
