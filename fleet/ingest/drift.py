"""Drift: do an asset's healthy scores still have the distribution of its calibration?

The measure is the population stability index (Siddiqi, Credit Risk Scorecards, 2006, chapter 9),

    PSI = sum over bins of (q - p) ln(q / p),

with p the share of the reference in a bin and q that of the week. It is twice the symmetrised
Kullback-Leibler divergence of Jeffreys (1946). The bins hold about a tenth of the reference each.

The usual bands call 0.1 some and 0.25 much drift. For n and m independent scores the index of two
samples of one distribution is about (1/n + 1/m) times a chi-square variable with bins - 1 degrees
of freedom (Yurdakul 2018), but successive scores are alike. Healthy scores that wander for an hour
and more are above 0.25 in many a week, even after a day of calibration (docs/fleet-records.md,
`python -m benchmarks.records drift`). So n and m are divided by the memory of the scores, and
drift is what is above `MUCH` and above the 99.9 % quantile of chance. A calibration of fewer than
`FEWEST` such independent scores has not shown the machine, and is not compared.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import GruardError
from edge_runtime.plain import read_sealed, write_sealed
from fleet.ingest.totals import EDGES, WeekScores

SOME, MUCH = 0.1, 0.25
"""The usual bands of the index."""
FEWEST = 20.0
"""Independent scores of a reference, and of a week, at least."""
QUANTILES = 400
BINS, FEWEST_BINS = 10, 3
_MODEL = re.compile("[0-9a-f]{12}")
_NORMAL = 3.0902  # quantile 0.999 of the normal distribution
_BLOCKS = (10, 20, 40)
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """The healthy scores that a bundle was calibrated on.

    scores: quantiles in equal steps, [QUANTILES + 1]. rows: how many scores. memory: rows that are
    worth one independent score. target: false alarms a day. problem: why there are no scores; empty
    if there are.
    """

    model: str
    bundle: str
    version: int
    scores: tuple[float, ...]
    rows: int
    memory: float
    target: float
    problem: str = ""


@dataclass(frozen=True)
class Drift:
    """The index of one week and its limit, 0 if it cannot be judged. problem: why not, or empty."""

    week: int
    index: float
    limit: float
    problem: str = ""

    @property
    def found(self) -> bool:
        """Whether the scores drifted."""
        return not self.problem and self.index > self.limit


def memory_of(scores: Float64) -> float:
    """Return how many successive `scores` [n] are worth one independent score.

    From the means of blocks: their variance over that of the ranks, times the block's length; the
    largest of several lengths, since a short record shows too little of a long memory.
    """
    ranks = np.argsort(np.argsort(scores)) / len(scores)
    found, spread = [1.0], float(ranks.var())
    for count in _BLOCKS:
        length = len(scores) // count
        if length and spread > 0:
            means = ranks[: count * length].reshape(count, length).mean(axis=1)
            found.append(length * float(means.var(ddof=1)) / spread)
    return max(found)


def chance_limit(independent: float, bins: int) -> float:
    """Return what the index exceeds by chance once in 1,000 times.

    independent: harmonic sum of the independent scores of both, 1 / (1/n + 1/m). The quantile of
    chi-square is that of Wilson and Hilferty (1931).
    """
    freedom = bins - 1
    part = 2 / (9 * freedom)
    return freedom * (1 - part + _NORMAL * math.sqrt(part)) ** 3 / independent


def stability_index(expected: Float64, counts: Float64) -> float:
    """Return the index of `counts` [bins] against the shares `expected` [bins], all above 0.

    Half a score is added to each bin, since an empty one has no logarithm.
    """
    shares = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return float(((shares - expected) * np.log(shares / expected)).sum())


def drift_of(week: WeekScores, reference: Reference) -> Drift:
    """Compare the scores of a week with those of the calibration."""
    if reference.problem:
        return Drift(week.week, 0.0, 0.0, reference.problem)
    expected, groups = _bins(reference, week.threshold)
    if len(expected) < FEWEST_BINS:
        return Drift(week.week, 0.0, 0.0, "the scores of its calibration are all alike")
    counts: Float64 = np.zeros(len(expected))
    np.add.at(counts, groups, week.counts)
    index = stability_index(expected, counts)
    known, came = reference.rows / reference.memory, sum(week.counts) / reference.memory
    if known < FEWEST:
        return Drift(
            week.week, index, 0.0,
            f"its {reference.rows:,} rows of calibration are worth {known:.0f} independent ones, "
            f"and {FEWEST:.0f} are needed; record for longer and train again",
        )  # fmt: skip
    if came < FEWEST:
        return Drift(week.week, index, 0.0, "the week has too few scores yet")
    limit = chance_limit(1 / (1 / known + 1 / came), len(expected))
    return Drift(week.week, index, max(limit, MUCH))


def _bins(reference: Reference, threshold: float) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Return the shares of the reference in joined bins, and the joined bin of each of `EDGES`."""
    scores = np.asarray(reference.scores) / threshold
    # Quantiles may repeat; the last of equal ones is the share below.
    below = np.searchsorted(scores, EDGES, side="right") / len(scores)
    shares = np.diff(np.concatenate([[0.0], below, [1.0]]))
    groups, joined, filled = np.zeros(len(shares), np.int64), [0.0], 0.0
    for place, share in enumerate(shares):
        if joined[-1] >= 1 / BINS and 1 - filled >= 0.5 / BINS:
            joined.append(0.0)
        groups[place] = len(joined) - 1
        joined[-1] += share
        filled += share
    return np.asarray(joined), groups


def reference_of(folder: Path, model: str, bundles: tuple[str, ...]) -> Reference | None:
    """Return the reference of a model, from an asset's folder or else from its bundle.

    bundles: where to look for it, the most likely first. None if none of them has the model.
    """
    if not _MODEL.fullmatch(model):
        return None
    file = folder / f"reference-{model}.json"
    kept = read_sealed(file, Reference)
    if kept is None:
        kept = next(filter(None, (_of_bundle(Path(each), model) for each in bundles)), None)
        if kept is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_sealed(file, kept)
    return kept


def _of_bundle(path: Path, model: str) -> Reference | None:
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.calibration import rows_of_bundle
    from edge_runtime.commands.first_load import load_safely
    from edge_runtime.learning.rollout import roll_all

    try:
        bundle = read_bundle(path, allow_failed=True)
    except GruardError:
        return None  # a damaged bundle is the affair of who ships it
    if bundle.model_hash != model:
        return None
    manifest = bundle.manifest
    target = next(iter(manifest.thresholds.values())).wished_per_day
    empty = Reference(model, manifest.name, manifest.version, (), 0, 1.0, target)
    try:
        rollouts = roll_all(load_safely(bundle).model, list(rows_of_bundle(bundle).recordings))
    except GruardError as error:
        return Reference(**{**vars(empty), "problem": f"no scores of its calibration: {error}"})
    healthy = [each.score[each.settled & ~each.alarm & (each.tier == 1)] for each in rollouts]
    scores = np.concatenate([np.zeros(0), *healthy])
    if not len(scores):
        return Reference(**{**vars(empty), "problem": "its calibration has no settled score"})
    quantiles = np.quantile(scores, np.linspace(0, 1, QUANTILES + 1))
    return Reference(
        model, manifest.name, manifest.version, tuple(quantiles.tolist()), len(scores),
        memory_of(scores), target,
    )  # fmt: skip
