"""Detectors to beat: fitted on clean rows only, causal, untuned; and their thresholds.

The ridge autoregressions, scored by their out-of-fold residuals, are the floor for a network. The
tree ensembles come from other libraries, with their usual sizes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.fitting import (
    SMOOTHING,
    Bools,
    Fit,
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
from benchmarks.judge import ContenderOutcome
from benchmarks.series import Series
from edge_runtime.record import Float32

EXPLAINED = 0.95
FITTED_SHARE, MARGIN = 0.8, 1.5
ORDER = 5
OWN_RIDGE, FULL_RIDGE = 1e-3, 1e-2  # times the number of rows
FOLDS = 5
RESIDUAL_QUANTILE, SMALLEST_RESIDUAL = 0.99, 0.05
# (lags [n, order * channels], targets [n, scored], columns of the scored channels) to weights.
Regression = Callable[[Float64, Float64, "np.ndarray"], Float64]
FOREST_TREES = 100
HALF_SPACE_TREES, HALF_SPACE_HEIGHT = 25, 8
NODE_NUMBERS = 4  # isolation: channel, threshold, child, depth
HALF_SPACE_NUMBERS = 3  # channel, threshold, mass


@dataclass(frozen=True)
class Baseline:
    """A way to fit a detector. seeded: its result depends on the seed."""

    name: str
    fit: Fit
    seeded: bool = False

    def run(self, series: Series, seed: int, scratch: Path) -> Mapping[str, ContenderOutcome]:
        """Score after a fit on all clean rows; alarm after one that leaves rows for a threshold."""
        train = [recording.values for recording in series.train]
        started = time.monotonic()
        fitted = self.fit(train, series.scored, seed)
        seconds = time.monotonic() - started
        alarmed = with_threshold(self.fit, train, series.scored, seed)
        outcome = ContenderOutcome(
            scores=[fitted.score(test.values) for test in series.tests],
            alarms=[alarmed.alarms(test.values) for test in series.tests],
            parameters=fitted.parameters,
            bytes=fitted.bytes,
            training_seconds=seconds,
        )
        return {self.name: outcome}


@dataclass(frozen=True)
class Alarmed:
    """A detector with a threshold from rows that it never saw; alarm where score >= threshold."""

    fitted: Fitted
    threshold: float

    def alarms(self, rows: Float32) -> Bools:
        """Bool [n] for a fresh recording of raw rows [n, channels]."""
        return self.fitted.score(rows) >= self.threshold


def with_threshold(fit: Fit, train: Sequence[Float32], scored: Bools, seed: int) -> Alarmed:
    """Fit on the first 80 % of the rows; the threshold comes from the scores of the last 20 %.

    threshold = median + 1.5 (largest - median). Scores of rows that were fitted on are smaller than
    those of new ones, and a threshold from them alarms all the time.
    """
    rows = sum(map(len, train))
    unseen, seen = split_rows(train, int(FITTED_SHARE * rows), rows)
    fitted = fit(seen, scored, seed)
    scores = np.concatenate([fitted.score(piece) for piece in unseen])
    middle = float(np.median(scores))
    return Alarmed(fitted, middle + MARGIN * (float(scores.max()) - middle))


def flag_all(train: Sequence[Float32], scored: Bools, seed: int) -> Fitted:
    """The same score, and an alarm, in every row."""
    return Fitted(lambda rows: np.zeros(len(rows)), 0)


def random_scores(train: Sequence[Float32], scored: Bools, seed: int) -> Fitted:
    """Uniform noise."""
    return Fitted(lambda rows: np.random.default_rng(seed).random(len(rows)), 0)


def static_z(train: Sequence[Float32], scored: Bools, seed: int) -> Fitted:
    """Largest |z| of a row's channels."""
    standardise = fit_standardiser(train)
    return Fitted(
        lambda rows: np.abs(standardise(rows)[:, scored]).max(axis=1), standardise.parameters
    )


def ewma_z(train: Sequence[Float32], scored: Bools, seed: int) -> Fitted:
    """Largest |EWMA of z| of a row's channels, in deviations of an EWMA of white noise."""
    standardise = fit_standardiser(train)
    deviation = np.sqrt(SMOOTHING / (2 - SMOOTHING))
    return Fitted(
        lambda rows: np.abs(ewma(standardise(rows)[:, scored])).max(axis=1) / deviation,
        standardise.parameters,
    )


def hotelling(train: Sequence[Float32], scored: Bools, seed: int) -> Fitted:
    """EWMA of the shrunk Mahalanobis distance of the row itself (Hotelling's T², its root)."""
    standardise = fit_standardiser(train)
    root = shrunk_root(np.concatenate([standardise(rows)[:, scored] for rows in train]))
    return Fitted(
        lambda rows: ewma(distance(standardise(rows)[:, scored], root)),
        standardise.parameters + root_size(len(root)),
    )


def pca_q(train: Sequence[Float32], scored: Bools, seed: int) -> Fitted:
    """EWMA of Q, the squared residual outside the components with 95 % of the variance."""
    standardise = fit_standardiser(train)
    clean = np.concatenate([standardise(rows)[:, scored] for rows in train])
    variance, components = np.linalg.eigh(clean.T @ clean)
    share = np.cumsum(variance[::-1]) / variance.sum()
    kept = components[:, ::-1][:, : int(np.searchsorted(share, EXPLAINED)) + 1]

    def score(rows: Float32) -> Float64:
        z = standardise(rows)[:, scored]
        return ewma(np.square(z - z @ kept @ kept.T).sum(axis=1))

    return Fitted(score, standardise.parameters + kept.size)


def baselines() -> Mapping[str, Baseline]:
    """Return all baselines by name, from trivial ones to the strongest linear ones."""
    found = [
        Baseline("flag-all", flag_all),
        Baseline("random", random_scores, seeded=True),
        Baseline("static-z", static_z),
        Baseline("ewma-z", ewma_z),
        Baseline("t2-ewma", hotelling),
        Baseline("pca-q", pca_q),
        Baseline("half-space-trees", half_space_trees, seeded=True),
        Baseline("isolation-forest", isolation_forest, seeded=True),
        Baseline("ar-t2", partial(fit_distance, own_lags)),
        Baseline("ar-sum", partial(fit_sum, own_lags)),
        Baseline("var-t2", partial(fit_distance, all_lags)),
        Baseline("var-sum", partial(fit_sum, all_lags)),
    ]
    return {baseline.name: baseline for baseline in found}


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
    """A regression on all clean rows, and its out-of-fold residuals."""

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


def isolation_forest(train: Sequence[Float32], scored: Bools, seed: int) -> Fitted:
    """Isolation forest (Liu, Ting and Zhou, 2008) by scikit-learn, row by row."""
    from sklearn.ensemble import IsolationForest

    standardise = fit_standardiser(train)
    clean = np.concatenate([standardise(rows)[:, scored] for rows in train])
    forest = IsolationForest(n_estimators=FOREST_TREES, random_state=seed).fit(clean)
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    return Fitted(
        lambda rows: -forest.score_samples(standardise(rows)[:, scored]),
        standardise.parameters + NODE_NUMBERS * nodes,
    )


def half_space_trees(train: Sequence[Float32], scored: Bools, seed: int) -> Fitted:
    """Half-space trees (Tan, Ting and Liu, 2011) by river, row by row.

    Usually they keep learning; here the window is the clean rows and learning ends with them, as
    for every other detector.
    """
    from river.anomaly import HalfSpaceTrees

    standardise = fit_standardiser(train)
    clean = np.concatenate([standardise(rows)[:, scored] for rows in train])
    # A channel that never moves still needs a range to be cut in.
    reach = np.maximum(np.abs(clean).max(axis=0), 1.0)
    trees = HalfSpaceTrees(
        n_trees=HALF_SPACE_TREES,
        height=HALF_SPACE_HEIGHT,
        window_size=len(clean),
        limits={i: (-float(r), float(r)) for i, r in enumerate(reach)},
        seed=seed,
    )
    for row in clean.tolist():
        trees.learn_one(dict(enumerate(row)))

    def score(rows: Float32) -> Float64:
        z = standardise(rows)[:, scored].tolist()
        return np.array([trees.score_one(dict(enumerate(row))) for row in z])

    nodes = HALF_SPACE_TREES * (2 ** (HALF_SPACE_HEIGHT + 1) - 1)
    return Fitted(score, standardise.parameters + HALF_SPACE_NUMBERS * nodes)
