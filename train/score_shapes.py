"""The shapes of the score: how large forecast errors are on clean rows, and how they correlate."""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

SMALLEST_RESIDUAL_SCALE = 0.05
SHRINKAGE = 0.01


def residual_scale(errors: Float32, mask: Float32) -> Float32:
    """The 99 % quantile of |error| per channel, at least 0.05; errors, mask: [n, channels]."""
    used = mask > 0
    scales = [
        float(np.quantile(np.abs(column[usable]), 0.99)) if usable.any() else 1.0
        for column, usable in zip(errors.T, used.T, strict=True)
    ]
    return np.maximum(np.array(scales, np.float32), np.float32(SMALLEST_RESIDUAL_SCALE))


def inverse_root(rows: Float32) -> Float32:
    """W [channels, channels] with WᵀW = (C + aI)⁻¹ for the second moments C of `rows`."""
    wide = rows.astype(np.float64)
    moments = wide.T @ wide / len(wide)
    shrunk = moments + SHRINKAGE * np.eye(len(moments))
    return np.linalg.inv(np.linalg.cholesky(shrunk)).astype(np.float32)
