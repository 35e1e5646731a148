"""Standardising channels with statistics that a few wild readings cannot move."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.record import Float32
from train.recording import Recording

CENTRAL = (0.005, 0.995)
DEAD_SPREAD = 1e-6
DEAD_SCALE = 0.01
SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class FittedScaler:
    """center, scale: float32 [channels] in raw units; scale is always greater than 0."""

    center: Float32
    scale: Float32

    def transform(self, values: Float32) -> Float32:
        """Raw values [..., channels] in standardised units; NaN stays NaN."""
        return (values - self.center) / self.scale

    def inverse(self, values: Float32) -> Float32:
        """Standardised values [..., channels] in raw units."""
        return values * self.scale + self.center


def fit_scaler(recordings: Iterable[Recording]) -> FittedScaler:
    """The scaler of training rows; see `fit_rows`."""
    return fit_rows(np.concatenate([recording.values for recording in recordings]))


def fit_rows(rows: Float32) -> FittedScaler:
    """Fit on `rows` [n, channels]; readings that are not finite are left out.

    center is the median. scale is the standard deviation of the central 99 % of the readings, or of
    all of them when even those are constant. A dead channel, spread below 1e-6 of its median (the
    resolution of float32), stays watched: 1 % of the median, at least 1e-6 raw units, counts as
    one standard deviation. Raises ValueError for a channel without any reading.
    """
    values = rows.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    if np.isnan(values).all(axis=0).any():
        raise ValueError("a channel has no finite reading")
    center = np.nanmedian(values, axis=0)
    spread = _deviation(values)
    dead = spread <= DEAD_SPREAD * np.abs(center)
    scale = np.where(dead, DEAD_SCALE * np.abs(center), spread)
    # The bound keeps a departure from a constant zero inside the range of float32.
    scale = np.maximum(scale, SMALLEST_SCALE)
    return FittedScaler(center.astype(np.float32), scale.astype(np.float32))


def _deviation(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = np.nanquantile(values, CENTRAL, axis=0)
    central = np.nanstd(np.clip(values, low, high), axis=0)
    return np.where(central > 0, central, np.nanstd(values, axis=0))
