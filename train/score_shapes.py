"""The shapes of the score: how large forecast errors are on clean rows, and how they correlate."""

from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

SMALLEST_RESIDUAL_SCALE = 0.05
SHRINKAGE = 0.01
ABSENT, RARE = 4.0, 0.01
ONE_DEVIATION = 0.8413  # of normally distributed values lie below their mean plus one deviation
SMALLEST_DEVIATION = 1e-3


def residual_scale(errors: Float32, mask: Float32) -> Float32:
    """The 99 % quantile of |error| per channel, at least 0.05; errors, mask: [n, channels]."""
    used = mask > 0
    scales = [
        float(np.quantile(np.abs(column[usable]), 0.99)) if usable.any() else 1.0
        for column, usable in zip(errors.T, used.T, strict=True)
    ]
    return np.maximum(np.array(scales, np.float32), np.float32(SMALLEST_RESIDUAL_SCALE))


def absent_error(scale: Float32, mask: Float32) -> Float32:
    """The error [channels] that an unusable reading counts as, given `residual_scale`.

    Four times the scale, which an error exceeds in 1 % of the rows, where a reading is unusable in
    1 % of the rows of mask [n, channels] or fewer; less where that is common.
    """
    share = np.maximum(1 - (mask > 0).mean(axis=0), RARE)
    return (ABSENT * scale * np.sqrt(RARE / share)).astype(np.float32)


def centre_of(parts: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Median and upper deviation [parts] of clean score parts [n, parts].

    The deviation is the 84 % quantile less the median, at least 0.001: that of normally distributed
    values, but deaf to the few strange stretches that every clean recording has.
    """
    middle, above = np.quantile(parts, (0.5, ONE_DEVIATION), axis=0)
    return middle, np.maximum(above - middle, SMALLEST_DEVIATION)


def inverse_root(rows: Float32) -> Float32:
    """W [channels, channels] with WᵀW = (C + aI)⁻¹ for the second moments C of `rows`."""
    wide = rows.astype(np.float64)
    moments = wide.T @ wide / len(wide)
    shrunk = moments + SHRINKAGE * np.eye(len(moments))
    return np.linalg.inv(np.linalg.cholesky(shrunk)).astype(np.float32)
