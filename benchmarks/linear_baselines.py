"""Ridge autoregressions whose out-of-fold residuals are scored: the floor a network has to beat."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from benchmarks.fitting import (
    Bools,
    Fitted,
    Float64,
    Standardiser,
    distance,
    ewma,
    fit_standardiser,
    root_size,
    shrunk_root,
    split_rows,
)
from edge_runtime.record import Float32

ORDER = 5
OWN_RIDGE, FULL_RIDGE = 1e-3, 1e-2  # times the number of rows
FOLDS = 5
RESIDUAL_QUANTILE, SMALLEST_RESIDUAL = 0.99, 0.05

# (lags [n, order * channels], targets [n, scored], columns of the scored channels) to weights.
Regression = Callable[[Float64, Float64, "np.ndarray"], Float64]


def own_lags(lags: Float64, targets: Float64, columns: np.ndarray) -> Float64:
    """Each channel from its own lags only: AR(5)."""
    width = lags.shape[1] // ORDER
    weights = np.zeros((lags.shape[1], targets.shape[1]))
    for target, column in enumerate(columns):
        own = slice(column, None, width)
        weights[own, target] = _ridge(lags[:, own], targets[:, target], OWN_RIDGE)
    return weights


def all_lags(lags: Float64, targets: Float64, columns: np.ndarray) -> Float64:
    """Each channel from the lags of all: VAR(5)."""
    return _ridge(lags, targets, FULL_RIDGE)


def fit_distance(
    regression: Regression, train: Sequence[Float32], scored: Bools, seed: int
) -> Fitted:
    """T = EWMA(sqrt(e' (C + 0.01 I)^-1 e)), C the second moment of the residuals e."""
    model = _Forecaster(regression, train, scored)
    root = shrunk_root(np.concatenate(model.residuals))
    return Fitted(
        lambda rows: ewma(distance(model.errors(rows), root)),
        model.parameters + root_size(len(root)),
    )


def fit_sum(regression: Regression, train: Sequence[Float32], scored: Bools, seed: int) -> Fitted:
    """z(R) + z(T): R = EWMA(sum_i log(1 + (e_i / q_i)² / 4)), q_i = max(q99 |e_i|, 0.05).

    T as in `fit_distance`. z takes mean and deviation from the out-of-fold rows.
    """
    model = _Forecaster(regression, train, scored)
    clean = np.concatenate(model.residuals)
    limit = np.quantile(np.abs(clean), RESIDUAL_QUANTILE, axis=0)
    limit = np.maximum(limit, SMALLEST_RESIDUAL)
    root = shrunk_root(clean)

    def parts(errors: Float64) -> Float64:
        heavy = np.log1p(np.square(errors / limit) / 4).sum(axis=1)
        return ewma(np.stack([heavy, distance(errors, root)], axis=1))

    seen = np.concatenate([parts(errors) for errors in model.residuals])
    mean, deviation = seen.mean(axis=0), seen.std(axis=0)
    return Fitted(
        lambda rows: ((parts(model.errors(rows)) - mean) / deviation).sum(axis=1),
        model.parameters + len(limit) + root_size(len(limit)) + 4,
    )


class _Forecaster:
    """A regression on all clean rows, and the residuals of rows that it did not see."""

    def __init__(self, regression: Regression, train: Sequence[Float32], scored: Bools) -> None:
        self._standardise: Standardiser = fit_standardiser(train)
        self._columns = np.flatnonzero(scored)
        self._regression = regression
        clean = [self._standardise(rows) for rows in train]
        self._weights = self._fit(clean)
        self.residuals = self._out_of_fold(clean)
        self.parameters = self._standardise.parameters + int(np.count_nonzero(self._weights))

    def errors(self, rows: Float32) -> Float64:
        """One-step forecast errors [n, scored channels]; the first row stands for earlier ones."""
        return self._errors(self._standardise(rows), self._weights)

    def _errors(self, z: Float64, weights: Float64) -> Float64:
        return z[:, self._columns] - _lagged(z) @ weights

    def _fit(self, pieces: Sequence[Float64]) -> Float64:
        usable = [z for z in pieces if len(z) > ORDER]
        lags = np.concatenate([_lagged(z)[ORDER:] for z in usable])
        targets = np.concatenate([z[ORDER:, self._columns] for z in usable])
        return self._regression(lags, targets, self._columns)

    def _out_of_fold(self, clean: Sequence[Float64]) -> list[Float64]:
        """Residuals of each of the contiguous folds under the weights of the other ones."""
        edges = np.linspace(0, sum(map(len, clean)), FOLDS + 1).astype(int)
        residuals = []
        for start, stop in pairwise(edges):
            held_out, rest = split_rows(clean, start, stop)
            weights = self._fit(rest)
            # The first rows of a piece have no full history.
            residuals += [self._errors(z, weights)[ORDER:] for z in held_out if len(z) > ORDER]
        return residuals


def _lagged(z: Float64) -> Float64:
    """[n, order * channels]: the rows one, two, … steps earlier, side by side."""
    padded = np.concatenate([np.repeat(z[:1], ORDER, axis=0), z])
    return np.concatenate(
        [padded[ORDER - lag : len(padded) - lag] for lag in range(1, ORDER + 1)], axis=1
    )


def _ridge(inputs: Float64, targets: Float64, ridge: float) -> Float64:
    moment = inputs.T @ inputs + ridge * len(inputs) * np.eye(inputs.shape[1])
    return np.linalg.solve(moment, inputs.T @ targets)
