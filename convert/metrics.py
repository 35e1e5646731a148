"""Figures of merit, each from its definition."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, spearmanr

Bools = npt.NDArray[np.bool_]


def auc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive row scores above a negative one.

    NaN when there are no positive or no negative rows (Hanley and McNeil 1982).
    """
    labels = np.asarray(positive, bool)
    ranks = rankdata(np.asarray(scores))
    ones, zeros = int(labels.sum()), int((~labels).sum())
    if not ones or not zeros:
        return float("nan")
    return float((ranks[labels].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def rank_correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(np.asarray(a), np.asarray(b)).statistic)


def agreement(counts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Share of equal verdicts and Cohen's kappa (1 when neither ever says yes, or both always).

    counts: how often the one and the other said no (0) or yes (1), [one][other]. Both NaN when
    nobody said anything (Cohen 1960).
    """
    matrix = np.array(counts, float)
    total = matrix.sum()
    if not total:
        return float("nan"), float("nan")
    observed = float(np.trace(matrix) / total)
    chance = float(matrix.sum(axis=0) @ matrix.sum(axis=1) / total**2)
    kappa = 1.0 if observed == 1.0 or chance == 1.0 else (observed - chance) / (1 - chance)
    return observed, kappa


def intervals(flags: Bools) -> list[tuple[int, int]]:
    """Half-open [start, stop) stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def first_hits(alarm: Bools, events: list[tuple[int, int]], grace: int = 0) -> list[int | None]:
    """For each event the delay in rows to its first alarm, or None when it is missed.

    An alarm up to `grace` rows after the event still counts.
    """
    hits: list[int | None] = []
    for start, stop in events:
        found = np.flatnonzero(alarm[start : stop + grace])
        hits.append(int(found[0]) if len(found) else None)
    return hits
