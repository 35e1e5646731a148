"""A linear model: its float32 steps against the plain formula."""

from collections.abc import Sequence

import numpy as np

from convert.checks.check import Check
from convert.rollout import Rollout
from edge_runtime.detector.step import FORECAST_CLIP, Model


def formula_checks(model: Model, rollouts: Sequence[Rollout]) -> list[Check]:
    """The runtime's forecasts against the regression in float64, over the same trusted readings."""
    worst, largest = 0.0, 0.0
    for rollout in rollouts:
        trusted = rollout.trusted.astype(np.float64)
        order = len(model.highway)
        lags = np.lib.stride_tricks.sliding_window_view(trusted[:-1], order, axis=0)[..., ::-1]
        expected = np.einsum("nck,kc->nc", lags, model.highway.astype(np.float64))
        if len(model.cross):
            flat = lags.transpose(0, 2, 1).reshape(len(lags), -1)
            expected += flat @ model.cross.T.astype(np.float64)
        expected = np.clip(expected, -FORECAST_CLIP, FORECAST_CLIP)
        errors = np.abs(rollout.forecast[order:] - expected)
        worst = float(np.maximum(worst, errors.max(initial=0.0)))  # keeps a NaN
        largest = float(np.maximum(largest, np.abs(rollout.forecast).max()))
    return [
        Check("linear: forecast off the formula, max", worst, 0, 1e-3, "channel scales"),
        Check("linear: forecast, max", largest, 0, float(FORECAST_CLIP), "channel scales"),
    ]
