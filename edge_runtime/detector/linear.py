"""The linear forecasts of a sample, each from the trusted readings before it.

    highway  sum_k a_k x[t-1-k] + C (x[t-1], x[t-2], ...)    what the score calls the forecast, with
                                                             the recurrent unit's correction
    own      sum_k b_k x[t-1-k]                              of each channel by its own past alone
    ahead    D (x[t-h], x[t-h-1], ...)                       from h samples before: what creeps in
                                                             is learned by a forecast one step ahead

Where the highway is each channel's own, there is no second one; with too few rows none from afar.
"""

from dataclasses import dataclass

import numpy as np

from edge_runtime import numerics
from edge_runtime.bundle import manifest
from edge_runtime.record import Float32

FORECAST_CLIP = np.float32(8)


@dataclass(frozen=True)
class LinearForecasts:
    """Coefficients, newest lag first; an empty array where there is no such forecast.

    highway, own: [order, channels]. cross, ahead: [channels, order * channels]. horizon: h.
    """

    highway: Float32
    cross: Float32
    own: Float32
    ahead: Float32
    horizon: int

    @property
    def depth(self) -> int:
        """How many trusted readings all of them need."""
        return max(len(self.highway), len(self.highway) + self.horizon - 1)


def lines_of(source: manifest.Forecast) -> LinearForecasts:
    """The manifest's section as arrays."""
    highway, cross, own, ahead = (
        np.array(matrix, np.float32)
        for matrix in (source.highway, source.cross, source.own, source.ahead)
    )
    return LinearForecasts(highway, cross, own, ahead, source.horizon)


def one_ahead(lines: LinearForecasts, history: Float32, start: Float32) -> Float32:
    """The highway's forecast on top of `start` [channels]; history: [depth, channels]."""
    order = len(lines.highway)
    total = _by_itself(lines.highway, history, start)
    if len(lines.cross):
        total = total + numerics.ordered_matvec(lines.cross, history[:order].ravel())
    return numerics.clip(total, FORECAST_CLIP)


def others(lines: LinearForecasts, history: Float32) -> tuple[Float32, Float32]:
    """Forecasts [channels] by each channel's own past and from afar; 0 where there is none."""
    order = len(lines.highway)
    ahead = np.zeros(history.shape[1], np.float32)
    own = _by_itself(lines.own, history, ahead)
    if len(lines.ahead):
        past = history[lines.horizon - 1 : lines.horizon - 1 + order]
        ahead = numerics.ordered_matvec(lines.ahead, past.ravel())
    return numerics.clip(own, FORECAST_CLIP), numerics.clip(ahead, FORECAST_CLIP)


def at_rest(lines: LinearForecasts, place: Float32) -> Float32:
    """The error [3, channels] of each forecast for readings that have always stood at `place`."""
    nothing = np.zeros(len(place), np.float32)
    still = np.broadcast_to(place, (len(lines.highway), len(place)))
    highway, own = (_by_itself(each, still, nothing) for each in (lines.highway, lines.own))
    crossed, ahead = (
        _by_lags(matrix, place) if len(matrix) else nothing for matrix in (lines.cross, lines.ahead)
    )
    return np.stack([place - (highway + crossed), place - own, place - ahead])


def _by_itself(coefficients: Float32, history: Float32, start: Float32) -> Float32:
    """What each channel's own past [order, channels] adds to `start`."""
    total = start
    for lag, each in enumerate(coefficients):
        total = total + each * history[lag]
    return total


def _by_lags(matrix: Float32, place: Float32) -> Float32:
    """matrix [channels, order * channels] times `place` again and again, lag by lag."""
    channels = len(place)
    total = np.zeros(channels, np.float32)
    for start in range(0, matrix.shape[1], channels):
        total = total + numerics.ordered_matvec(matrix[:, start : start + channels], place)
    return total
