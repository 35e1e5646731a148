"""Figures of merit, each from its definition.

Only a network is judged by ranks, so only its conversion loads scipy.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]


def auc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Return the area under the ROC curve: P(a positive row scores above a negative one).

    NaN without positive or without negative rows (Hanley and McNeil 1982).
    """
    from scipy.stats import rankdata

    labels = np.asarray(positive, bool)
    ranks = rankdata(np.asarray(scores))
    ones, zeros = int(labels.sum()), int((~labels).sum())
    if not ones or not zeros:
        return float("nan")
    return float((ranks[labels].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def rank_correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(np.asarray(a), np.asarray(b)).statistic)


def agreement(counts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Return the share of equal decisions and Cohen's kappa (Cohen 1960).

    counts: numbers of decisions, [first rater][second rater], 0 no and 1 yes. kappa is 1 when both
    always give the same answer. Both are NaN without decisions.
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
    """Return the half-open [start, stop) stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def first_hits(alarm: Bools, events: list[tuple[int, int]], grace: int = 0) -> list[int | None]:
    """Return for each event the delay in rows to its first alarm, or None when it is missed.

    An alarm up to `grace` rows after the event still counts.
    """
    hits: list[int | None] = []
    for start, stop in events:
        alarmed = np.flatnonzero(alarm[start : stop + grace])
        hits.append(int(alarmed[0]) if len(alarmed) else None)
    return hits
