"""Detectors to beat: fitted on clean rows only, causal, untuned; and their thresholds."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.fitting import (
    SMOOTHING,
    Bools,
    Fit,
    Fitted,
    Float64,
    distance,
    ewma,
    fit_standardiser,
    root_size,
    shrunk_root,
    split_rows,
)
from benchmarks.judge import ContenderOutcome
from benchmarks.linear_baselines import all_lags, fit_distance, fit_sum, own_lags
from benchmarks.series import Series
from benchmarks.tree_baselines import half_space_trees, isolation_forest
from edge_runtime.record import Float32

EXPLAINED = 0.95
FITTED_SHARE, MARGIN = 0.8, 1.5


@dataclass(frozen=True)
class Baseline:
    """A way to fit a detector. seeded: its result depends on the seed."""

    name: str
    fit: Fit
    seeded: bool = False

    def run(self, series: Series, seed: int, scratch: Path) -> Mapping[str, ContenderOutcome]:
        """Scores after a fit on all clean rows, alarms after one that left rows for a threshold."""
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
    """All of them by name, from nothing at all to the strongest linear ones."""
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
