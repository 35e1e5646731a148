"""The proof of a linear model, which has no int8 form: its float32 steps against the formula."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.cell import Model
from edge_runtime.detector.linear import FORECAST_CLIP, LinearForecasts
from edge_runtime.learning.check import Check
from edge_runtime.learning.rollout import Rollout
from edge_runtime.record import Float32

Float64 = npt.NDArray[np.float64]


def formula_checks(model: Model, rollouts: Sequence[Rollout]) -> list[Check]:
    """Compare forecasts of the runtime with float64 regressions over the same trusted readings."""
    names = model.manifest.channel_names
    off, largest = np.zeros(len(names)), np.zeros(len(names))
    for rollout in rollouts:
        for found, matrix, horizon in _regressions(model.lines, rollout):
            expected = _expected(rollout.trusted, matrix, len(model.lines.highway), horizon)
            errors = np.abs(found[len(found) - len(expected) :] - expected)
            off = np.maximum(off, errors.max(axis=0, initial=0.0))  # keeps a NaN
        largest = np.maximum(largest, np.abs(rollout.forecast).max(axis=0))
    most = float(FORECAST_CLIP)
    return [
        _check("linear: forecast off the formula, max", off, 1e-3, names),
        _check("linear: forecast, max", largest, most, names),
    ]


def _check(name: str, found: Float64, high: float, names: Sequence[str]) -> Check:
    """Check the largest of `found` [channels]; NaN counts as the largest."""
    worst = int(found.argmax())
    return Check(name, float(found[worst]), 0, high, "channel scales", names[worst])


def _regressions(
    lines: LinearForecasts, rollout: Rollout
) -> Iterator[tuple[Float32, Float64, int]]:
    """Yield each forecast, its coefficients [order * channels, channels] and its horizon."""
    own, cross, ahead = (m.astype(np.float64) for m in (lines.own, lines.cross, lines.ahead))
    highway = np.concatenate([np.diag(row) for row in lines.highway.astype(np.float64)])
    yield rollout.forecast, highway + (cross.T if len(cross) else 0), 1
    if len(own):
        yield rollout.own, np.concatenate([np.diag(row) for row in own]), 1
    if len(ahead):
        yield rollout.ahead, ahead.T, lines.horizon


def _expected(trusted: Float32, matrix: Float64, order: int, horizon: int) -> Float64:
    """Return the expected forecasts of the rows with a full history."""
    past = trusted[: max(len(trusted) - horizon, 0)].astype(np.float64)
    if len(past) < order:
        return np.zeros((0, trusted.shape[1]))
    lags = np.lib.stride_tricks.sliding_window_view(past, order, axis=0)[..., ::-1]
    flat = lags.transpose(0, 2, 1).reshape(len(lags), -1)
    return np.clip(flat @ matrix, -FORECAST_CLIP, FORECAST_CLIP)
