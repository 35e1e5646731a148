"""Clean recordings: the same errors, the same gates, and scores that rank alike."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convert.checks.check import Check
from convert.metrics import rank_correlation
from convert.pair import Pair
from convert.rollout import Rollout
from edge_runtime.detector.cell import Model

SMALLEST_ERROR = 0.1  # of the innovation scale; forecasts better than this are all alike


def clean_checks(model: Model, pairs: Sequence[Pair]) -> list[Check]:
    """`pairs`: both arithmetics over clean recordings; `model` gives scales and names.

    Errors are compared where both gates are open. Where one closes its channel runs on forecasts,
    whose errors say how long it was closed and nothing about the arithmetic; how often the gates
    disagree is a check of its own.
    """
    names = model.manifest.channel_names
    gates = [(_open(p.quantised), _open(p.reference)) for p in pairs]
    both = np.concatenate([a & b for a, b in gates])
    # A channel that hardly ever errs (constant, exactly predicted) has nothing to compare.
    floor = (SMALLEST_ERROR * model.innovation_scale.astype(np.float64)) ** 2
    quantised = _variances([p.quantised for p in pairs], both)
    ratios = (floor + quantised) / (floor + _variances([p.reference for p in pairs], both))
    worst = int(np.argmax(np.abs(np.log(ratios))))
    disagree = 100 * np.concatenate([a != b for a, b in gates]).mean(axis=0)
    most = names[int(disagree.argmax())] if disagree.any() else ""
    ranks = rank_correlation(
        np.concatenate([p.quantised.score[p.settled] for p in pairs]),
        np.concatenate([p.reference.score[p.settled] for p in pairs]),
    )
    return [
        Check(
            "clean: residual variance, worst channel",
            float(ratios[worst]),
            0.95,
            1.05,
            "int8 over float",
            names[worst],
        ),
        Check("clean: gates that disagree", float(disagree.mean()), 0, 2, "% of readings", most),
        Check("clean: score rank correlation", ranks, 0.97, 1, "Spearman"),
    ]


def _open(rollout: Rollout) -> npt.NDArray[np.bool_]:
    """Where a usable reading is trusted, or not used at all: [n, channels]."""
    return (rollout.gate >= 0.5) | (rollout.mask == 0)


def _variances(
    rollouts: Sequence[Rollout], chosen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Mean squared error of the forecast per channel over the `chosen` usable readings."""
    errors = np.concatenate([(r.value - r.forecast) * r.mask for r in rollouts]).astype(np.float64)
    used = np.concatenate([r.mask > 0 for r in rollouts]) & chosen
    return (errors**2 * used).sum(axis=0) / np.maximum(used.sum(axis=0), 1)
