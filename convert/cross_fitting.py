"""The shapes of the score, and scores that no shape has seen.

A covariance fits the rows it was measured on better than any others: their distances come out too
small, by a lot where channels are many and rows few. So the shapes that ship are measured on all
rows at hand, and the scores by which they are centred and calibrated fold by fold, each with the
shapes of the other folds.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from convert.draft import with_score_shapes
from convert.rollout import Rollout, joined, remeasured, stretch
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.detector.score import score_constants
from train.folds import all_but, fold_spans

Folds = Sequence[Sequence[Rollout]]
Bools = npt.NDArray[np.bool_]


def in_folds(rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
    """Whole recordings cut into folds, for a forecaster that is the same for all."""
    spans = fold_spans([len(r.score) for r in rollouts])
    return [[stretch(rollouts[r], start, stop) for r, start, stop in fold] for fold in spans]


def marked(folds: Folds, kept: Sequence[Bools]) -> list[list[Rollout]]:
    """`folds` with the rows that are kept: of each recording, [its length]."""
    spans = fold_spans(list(map(len, kept)))
    return [
        [replace(r, kept=kept[i][a:b]) for r, (i, a, b) in zip(fold, places, strict=True)]
        for fold, places in zip(folds, spans, strict=True)
    ]


def measured(
    draft: Manifest, folds: Folds, lengths: Sequence[int]
) -> tuple[Manifest, list[Rollout]]:
    """`draft` with the shapes of all folds, and their rows scored as rows to come will be.

    folds: rollouts over recordings of `lengths`, cut by `train.folds`. The recordings come back in
    one piece each, so that the score's memory runs through.
    """
    whole: list[list[Rollout]] = [[] for _ in lengths]
    for number, (fold, spans) in enumerate(zip(folds, fold_spans(lengths), strict=True)):
        constants = score_constants(with_score_shapes(draft, all_but(folds, number)))
        for rollout, (recording, _, _) in zip(fold, spans, strict=True):
            whole[recording].append(remeasured(rollout, constants))
    every = [rollout for fold in folds for rollout in fold]
    return with_score_shapes(draft, every), [joined(pieces) for pieces in whole if pieces]
