"""Machine-like disturbances: several channels of clean rows moved by one common cause.

What a broken machine looks like is not known beforehand, only that one sensor alone does not show
it. So a hidden cause with a random course moves a random group of channels, or the channels along
a random mixture of their leading principal directions, each with its own sign, share and lag.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
DIRECTIONS = 3
SMALLEST_SHARE = 0.1
LONGEST_LAG = 100.0


@dataclass(frozen=True)
class Habits:
    """Of the clean rows [n, channels]: leading directions [k, channels] and low readings."""

    directions: Float64
    low: Float64
    free: npt.NDArray[np.int64]  # channels that may be disturbed, at least two


def habits(rows: Float32, exogenous: npt.NDArray[np.bool_]) -> Habits:
    """What `disturb` needs to know of clean rows in standardised units."""
    centred = (rows - rows.mean(axis=0)).astype(np.float64)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:DIRECTIONS]
    return Habits(directions, np.quantile(rows, 0.01, axis=0), np.flatnonzero(~exogenous))


def disturb(
    window: Float32, start: int, length: int, size: float, known: Habits, rng: np.random.Generator
) -> tuple[Float32, tuple[int, ...]]:
    """A copy of `window` with a disturbance from `start` on, and the channels that show it.

    size: largest offset, in channel scales. Lagging channels still show it after `length` rows.
    """
    rows = window.copy()
    shares = _shares(known, rng)
    course = np.zeros(len(rows) - start)
    course[:length] = _course(length, rng)
    proportional = rng.random() < 0.5  # a gain that has changed, not an offset
    for channel in np.flatnonzero(shares):
        moved = _lagged(course, _log_uniform(rng, 1, LONGEST_LAG)) if rng.random() < 0.5 else course
        if proportional:
            above = rows[start:, channel] - known.low[channel]
            moved = moved * above / max(float(np.abs(above).max()), 1e-3)
        rows[start:, channel] += (size * shares[channel] * moved).astype(np.float32)
    return rows, tuple(int(channel) for channel in np.flatnonzero(shares))


def _shares(known: Habits, rng: np.random.Generator) -> Float64:
    """How much each channel shows of the cause, the largest ±1; at least two are not zero."""
    free, width = known.free, known.directions.shape[1]
    shares = np.zeros(width)
    if rng.random() < 0.5:
        mixture = rng.standard_normal(len(known.directions)) @ known.directions
        shares[free] = mixture[free]
        shares[np.abs(shares) < SMALLEST_SHARE * np.abs(shares).max()] = 0
    if np.count_nonzero(shares) < 2:
        members = rng.choice(free, int(rng.integers(2, max(3, len(free) // 2 + 2))), replace=False)
        sizes = [_log_uniform(rng, SMALLEST_SHARE, 1) for _ in members]
        shares[:] = 0
        shares[members] = rng.choice([-1.0, 1.0], len(members)) * sizes
    return shares / np.abs(shares).max()


def _course(length: int, rng: np.random.Generator) -> Float64:
    """From 0 to 1 at once, or in a ramp that takes some share or all of the time."""
    ramp = np.arange(1, length + 1) / length
    steepness = (np.inf, _log_uniform(rng, 1, 10), 1.0)[rng.integers(3)]
    return np.minimum(ramp * steepness, 1.0)


def _lagged(course: Float64, rows: float) -> Float64:
    keep = np.exp(-1 / rows)
    return lfilter([1 - keep], [1, -keep], course)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
