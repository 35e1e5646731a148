"""The unsmoothed score of many steps at once, each sum in the order of the step's own."""

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.score import ScoreConstants, own_terms, scored_count

Float32 = npt.NDArray[np.float32]


def parts_of_rows(
    innovation: Float32, value: Float32, doubt: Float32, mask: Float32, constants: ScoreConstants
) -> tuple[Float32, Float32]:
    """`edge_runtime.detector.score.score_parts` of every row, bit for bit.

    All arguments [n, channels]. Returns parts [n, 4] and per-channel terms [n, 3, channels].
    """
    e, x, residual, evidence = own_terms(innovation, value, doubt, mask, constants)
    count = scored_count(constants)
    parts = [
        _sums(residual) / count,
        _lengths(_times(constants.distance_root, e)),
        _lengths(_times(constants.level_root, x)),
        _sums(evidence) / count,
    ]
    return np.stack(parts, axis=1), np.stack([residual, evidence, x * x], axis=1)


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
