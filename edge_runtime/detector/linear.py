"""The linear forecasts of a sample, each from the trusted readings before it.

    highway  sum_k a_k x[t-1-k] + C (x[t-1], x[t-2], ...)    with the recurrent unit's correction
                                                             this is the forecast of the score
    own      sum_k b_k x[t-1-k]                              each channel from its own past only
    ahead    D (x[t-h], x[t-h-1], ...)                       from h samples before: a one-step
                                                             forecast learns slow faults away

There is no own forecast where the highway has no C, and no forecast ahead when too few rows were
recorded.
"""

from dataclasses import dataclass

import numpy as np

from edge_runtime import numerics
from edge_runtime.bundle import manifest
from edge_runtime.record import Float32

FORECAST_CLIP = np.float32(8)


@dataclass(frozen=True)
class LinearForecasts:
    """Coefficients, newest lag first; an empty array means that there is no such forecast.

    highway, own: [order, channels]. cross, ahead: [channels, order * channels]. horizon: h.
    """

    highway: Float32
    cross: Float32
    own: Float32
    ahead: Float32
    horizon: int

    @property
    def depth(self) -> int:
        """How many past trusted readings the forecasts need."""
        return max(len(self.highway), len(self.highway) + self.horizon - 1)


def lines_of(source: manifest.Forecast) -> LinearForecasts:
    """Return the manifest's forecast section as arrays."""
    highway, cross, own, ahead = (
        np.array(matrix, np.float32)
        for matrix in (source.highway, source.cross, source.own, source.ahead)
    )
    return LinearForecasts(highway, cross, own, ahead, source.horizon)


def one_ahead(lines: LinearForecasts, history: Float32, start: Float32) -> Float32:
    """Return the highway's forecast added to `start` [channels]; history: [depth, channels]."""
    order = len(lines.highway)
    total = _by_itself(lines.highway, history, start)
    if len(lines.cross):
        total = total + numerics.ordered_matvec(lines.cross, history[:order].ravel())
    return numerics.clip(total, FORECAST_CLIP)


def others(lines: LinearForecasts, history: Float32) -> tuple[Float32, Float32]:
    """Return the own forecast and the one ahead, [channels] each; 0 where there is none."""
    order = len(lines.highway)
    ahead = np.zeros(history.shape[1], np.float32)
    own = _by_itself(lines.own, history, ahead)
    if len(lines.ahead):
        past = history[lines.horizon - 1 : lines.horizon - 1 + order]
        ahead = numerics.ordered_matvec(lines.ahead, past.ravel())
    return numerics.clip(own, FORECAST_CLIP), numerics.clip(ahead, FORECAST_CLIP)


def at_rest(lines: LinearForecasts, place: Float32) -> Float32:
    """Return each forecast's error [3, channels] for readings that have always been at `place`."""
    nothing = np.zeros(len(place), np.float32)
    still = np.broadcast_to(place, (len(lines.highway), len(place)))
    highway, own = (_by_itself(each, still, nothing) for each in (lines.highway, lines.own))
    crossed, ahead = (
        _by_lags(matrix, place) if len(matrix) else nothing for matrix in (lines.cross, lines.ahead)
    )
    return np.stack([place - (highway + crossed), place - own, place - ahead])


def _by_itself(coefficients: Float32, history: Float32, start: Float32) -> Float32:
    """Add to `start` what each channel's own past [order, channels] contributes."""
    total = start
    for lag, each in enumerate(coefficients):
        total = total + each * history[lag]
    return total


def _by_lags(matrix: Float32, place: Float32) -> Float32:
    """Multiply matrix [channels, order * channels] by `place` at every lag."""
    channels = len(place)
    total = np.zeros(channels, np.float32)
    for start in range(0, matrix.shape[1], channels):
        total = total + numerics.ordered_matvec(matrix[:, start : start + channels], place)
    return total
