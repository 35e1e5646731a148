"""The linear highway: the ridge autoregression that every GRU must beat.

If the recording has enough rows, it is a full vector autoregression with all coefficients shrunk
towards zero. Fitting each channel's own past first, and then what the other channels add, has
smaller errors. But the full form spreads a forecast over all channels that carry the same
information, so an error shows when one of them stops agreeing (figures in docs/accuracy.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Kind = Literal["full", "channel", "none"]

RIDGE = 1e-3
FULL_RIDGE = 3e-3
FEWEST_COMPLETE, MOST_COMPLETE = 100, 20000
MOST_CROSS = 140  # channels whose coefficients on each other fit in a manifest
# Roots of the autoregression are kept inside this radius, so that a free run cannot blow up.
LARGEST_ROOT = 0.999
SMALLEST_SCALE = 0.01


@dataclass(frozen=True)
class Highway:
    """own: [order, channels]; cross: [channels, order * channels], or [0, 0] for none.

    Newest lag first: the forecast is the sum of own[k] * x[-1 - k] over k, plus
    cross @ (x[-1], x[-2], …).
    """

    own: Float32
    cross: Float32

    def matrix(self) -> Float32:
        """Return both parts as one [order * channels, channels]: forecast = lags @ matrix."""
        total: Float32 = np.concatenate([np.diag(row) for row in self.own]).astype(np.float32)
        if len(self.cross):
            total += self.cross.T
        return total


def fit_highway(
    rows: Sequence[Float32],
    masks: Sequence[Float32],
    order: int,
    kind: Kind = "full",
) -> Highway:
    """Fit the highway to standardised recordings [n, channels]; masks: 1 where usable.

    full: one ridge regression without intercept over stretches of order + 1 rows that are complete
    in all channels; with fewer than 100 of those, with one channel, or with more than 140, the same
    as channel.
    channel: one regression per channel over its own usable stretches; persistence (1, 0, …) for a
    channel without such stretches or that never moves. none: the forecast is the channel's centre.
    """
    channels = rows[0].shape[1]
    own, cross = np.zeros((order, channels)), np.zeros((0, 0))
    past, present = _complete(rows, masks, order)
    if kind == "full" and 1 < channels <= MOST_CROSS and len(past) >= FEWEST_COMPLETE:
        cross = _solve(past, present, FULL_RIDGE).T
        diagonal = np.arange(channels)
        for lag in range(order):
            own[lag] = cross[diagonal, lag * channels + diagonal]
            cross[diagonal, lag * channels + diagonal] = 0.0
    elif kind != "none":
        for channel in range(channels):
            own[:, channel] = _ridge(*_lagged(rows, masks, order, channel), order)
    own, cross = _stabilise(own, cross)
    return Highway(own.astype(np.float32), cross.astype(np.float32))


def fit_own(rows: Sequence[Float32], masks: Sequence[Float32], order: int) -> Float32:
    """Fit coefficients [order, channels] of each channel's own past; arguments as `fit_highway`."""
    return fit_highway(rows, masks, order, "channel").own


def fit_ahead(
    rows: Sequence[Float32], masks: Sequence[Float32], order: int, horizon: int, kind: Kind = "full"
) -> Float32:
    """Fit [channels, order * channels]: the forecast of a row from the `order` rows that end
    `horizon` rows before it, newest first; [0, 0] with too few rows or more than 140 channels.

    full: one ridge regression; otherwise, or with one channel, each channel by itself. The fit is
    direct: iterating the one-step forecast would accumulate its errors.
    """
    channels = rows[0].shape[1]
    past, present = _complete(rows, masks, order, horizon)
    if len(past) < FEWEST_COMPLETE or channels > MOST_CROSS:
        return np.zeros((0, 0), np.float32)
    if kind == "full" and channels > 1:
        return _solve(past, present, FULL_RIDGE).T.astype(np.float32)
    ahead = np.zeros((channels, order * channels), np.float32)
    for channel in range(channels):
        own = past[:, channel::channels]
        ahead[channel, channel::channels] = _solve(own, present[:, channel], RIDGE)
    return ahead


def innovation_scale(
    rows: Sequence[Float32], masks: Sequence[Float32], highway: Highway
) -> Float32:
    """Return a robust scale [channels] of the highway's one-step errors, at least 0.01.

    It is the larger of the scaled median deviation and a third of the standard deviation, because
    a signal that rests most of the time has a median deviation near zero.
    """
    order, channels = highway.own.shape
    if len(highway.cross):
        past, present = _complete(rows, masks, order)
        every = list((present - past @ highway.matrix()).T)
    else:
        lagged = [_lagged(rows, masks, order, channel) for channel in range(channels)]
        every = [y - x @ highway.own[:, i] for i, (x, y) in enumerate(lagged)]
    scales = [
        max(1.4826 * float(np.median(np.abs(e))), float(e.std()) / 3) if len(e) else 1.0
        for e in every
    ]
    return np.maximum(np.array(scales, np.float32), np.float32(SMALLEST_SCALE))


def _lagged(
    rows: Sequence[Float32], masks: Sequence[Float32], order: int, channel: int
) -> tuple[Float64, Float64]:
    """Return the lag matrix [n, order] and targets [n] of one channel over all recordings."""
    past, present = [np.zeros((0, order))], [np.zeros(0)]
    for values, mask in zip(rows, masks, strict=True):
        if len(values) <= order:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(values[:, channel], order + 1)
        usable = np.lib.stride_tricks.sliding_window_view(mask[:, channel], order + 1).all(axis=1)
        past.append(windows[usable, -2::-1].astype(np.float64))
        present.append(windows[usable, -1].astype(np.float64))
    return np.concatenate(past), np.concatenate(present)


def _complete(
    rows: Sequence[Float32], masks: Sequence[Float32], order: int, horizon: int = 1
) -> tuple[Float64, Float64]:
    """Return lags [n, order * channels] and targets [n, channels] of rows complete in all channels.

    The newest lag is `horizon` rows before the target. Long recordings are thinned evenly to about
    `MOST_COMPLETE` rows; more would only take time.
    """
    channels = rows[0].shape[1]
    past, present = [np.zeros((0, order * channels))], [np.zeros((0, channels))]
    step = -(-sum(map(len, rows)) // MOST_COMPLETE)
    reach = order + horizon - 1
    for values, mask in zip(rows, masks, strict=True):
        if len(values) <= reach:
            continue
        whole = mask.all(axis=1)
        complete = np.lib.stride_tricks.sliding_window_view(whole[:-horizon], order).all(axis=1)
        ends = reach + np.flatnonzero(complete & whole[reach:])[::step]
        lags = values[ends[:, np.newaxis] - horizon - np.arange(order)].astype(np.float64)
        past.append(lags.reshape(len(ends), order * channels))
        present.append(values[ends].astype(np.float64))
    return np.concatenate(past), np.concatenate(present)


def _ridge(past: Float64, present: Float64, order: int) -> Float64:
    persistence: Float64 = np.eye(order)[0]
    if len(past) <= order or not present.var() > 1e-12:
        return persistence
    # Shrink towards persistence, the simplest forecast.
    correction = _solve(past, present - past @ persistence, RIDGE)
    return np.asarray(persistence + correction)


def _solve(past: Float64, target: Float64, ridge: float) -> Float64:
    gram = past.T @ past + ridge * len(past) * np.eye(past.shape[1])
    solution: Float64 = np.linalg.solve(gram, past.T @ target)
    return solution


def _stabilise(own: Float64, cross: Float64) -> tuple[Float64, Float64]:
    """Scale lag k by r^k, which multiplies every root by r, until the largest is inside."""
    order, channels = own.shape
    if len(cross):
        both = np.concatenate([np.diag(row) for row in own]) + cross.T
        radius = _largest_root(both, order)
        shrink = (LARGEST_ROOT / max(radius, LARGEST_ROOT)) ** np.arange(1, order + 1)
        return own * shrink[:, np.newaxis], cross * np.repeat(shrink, channels)
    radii = [np.abs(np.roots([1.0, *-c])).max(initial=0.0) for c in own.T]
    shrinks = np.minimum(LARGEST_ROOT / np.maximum(radii, LARGEST_ROOT), 1.0)
    return own * shrinks ** np.arange(1, order + 1)[:, np.newaxis], cross


def _largest_root(matrix: npt.NDArray[Any], order: int) -> float:
    """Return the spectral radius of the companion matrix of a vector autoregression."""
    width = matrix.shape[1]
    companion = np.eye(order * width, k=-width)
    companion[:width] = matrix.T
    return float(np.abs(np.linalg.eigvals(companion)).max())
