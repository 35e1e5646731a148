"""The linear highway: one ridge autoregression per channel, the forecast every GRU must beat."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

RIDGE = 1e-3
# Roots of the autoregression are kept inside this radius, so that a free run cannot blow up.
LARGEST_ROOT = 0.999
SMALLEST_SCALE = 0.01


def fit_highway(rows: Sequence[Float32], masks: Sequence[Float32], order: int) -> Float32:
    """Coefficients [order, channels], newest lag first, by ridge regression without intercept.

    rows: standardised recordings [n, channels]; masks: 1 where usable. Only stretches of order + 1
    usable readings count. A channel without any gets persistence (1, 0, 0, …), and so does a
    channel that never moves.
    """
    channels = rows[0].shape[1]
    coefficients = np.zeros((order, channels))
    for channel in range(channels):
        past, present = _lagged(rows, masks, order, channel)
        coefficients[:, channel] = _ridge(past, present, order)
    return np.stack([_stabilise(c) for c in coefficients.T], axis=1).astype(np.float32)


def innovation_scale(
    rows: Sequence[Float32], masks: Sequence[Float32], highway: Float32
) -> Float32:
    """Robust scale [channels] of the highway's one-step errors, at least 0.01.

    The larger of the scaled median deviation and a third of the standard deviation: a signal that
    rests most of the time has a median deviation near zero.
    """
    order, channels = highway.shape
    scales = []
    for channel in range(channels):
        past, present = _lagged(rows, masks, order, channel)
        errors = present - past @ highway[:, channel]
        if not len(errors):
            scales.append(1.0)
            continue
        scales.append(max(1.4826 * float(np.median(np.abs(errors))), float(errors.std()) / 3))
    return np.maximum(np.array(scales, np.float32), np.float32(SMALLEST_SCALE))


def _lagged(
    rows: Sequence[Float32], masks: Sequence[Float32], order: int, channel: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lag matrix [n, order] and targets [n] of one channel over all recordings."""
    past, present = [np.zeros((0, order))], [np.zeros(0)]
    for values, mask in zip(rows, masks, strict=True):
        if len(values) <= order:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(values[:, channel], order + 1)
        usable = np.lib.stride_tricks.sliding_window_view(mask[:, channel], order + 1).all(axis=1)
        past.append(windows[usable, -2::-1].astype(np.float64))
        present.append(windows[usable, -1].astype(np.float64))
    return np.concatenate(past), np.concatenate(present)


def _ridge(
    past: npt.NDArray[np.float64], present: npt.NDArray[np.float64], order: int
) -> npt.NDArray[np.float64]:
    persistence = np.eye(order)[0]
    if len(past) <= order or not present.var() > 1e-12:
        return persistence
    # Shrink towards persistence: the weakest claim that is still a forecast.
    gram = past.T @ past + RIDGE * len(past) * np.eye(order)
    return persistence + np.linalg.solve(gram, past.T @ (present - past @ persistence))


def _stabilise(coefficients: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale lag k by r^k, which multiplies every root by r, until the largest is inside."""
    radius = np.abs(np.roots([1.0, *-coefficients])).max(initial=0.0)
    if radius <= LARGEST_ROOT:
        return coefficients
    shrink = LARGEST_ROOT / radius
    return coefficients * shrink ** np.arange(1, len(coefficients) + 1)
