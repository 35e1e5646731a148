"""The exponential average of whole recordings."""

from itertools import accumulate

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def smoothed(series: npt.ArrayLike, rate: float, before: npt.ArrayLike = 0.0) -> Float64:
    """Return s of a series x [n] or [n, channels]: s_k = (1 - rate) s_{k-1} + rate x_k.

    before: s of the row before the first, a number or [channels]. Computed in float64.
    """
    return filtered(series, rate, 1 - rate, before)


def filtered(
    series: npt.ArrayLike, gain: float, keep: float, before: npt.ArrayLike = 0.0
) -> Float64:
    """Return s_k = keep s_{k-1} + gain x_k; arguments as in `smoothed`."""
    rows = np.asarray(series, np.float64)
    columns = rows.reshape(len(rows), int(np.prod(rows.shape[1:]))).T  # also without rows
    starts = np.broadcast_to(np.asarray(before, np.float64).ravel(), len(columns))
    # Floats of Python: a step on small arrays takes longer than one on all channels in turn.
    averages = [
        list(accumulate(column, lambda s, x: keep * s + gain * x, initial=start))[1:]
        for column, start in zip(columns.tolist(), starts.tolist(), strict=True)
    ]
    return np.array(averages, np.float64).T.reshape(rows.shape)
