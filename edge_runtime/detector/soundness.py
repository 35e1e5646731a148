"""Whether a state can be what a step left, or memory has failed since.

A step keeps every number of its state within bounds, so that one beyond them, or one that is none,
was changed by something else. It would stay: a recurrent unit that is not a number never is one
again, and no rule of the tiers sees it.
"""

from collections.abc import Sequence

import numpy as np

from edge_runtime.detector.standardise import VALUE_CLIP
from edge_runtime.detector.step import State
from edge_runtime.record import Float32

_ONE = np.float32(1)
_LARGEST = np.finfo(np.float32).max


def is_possible(state: State, gate_limit: np.float32) -> bool:
    """Whether a step can have left `state`. gate_limit: of the model."""
    moved = state.change
    sums = [
        each.ravel()
        for each in (
            state.score.parts, state.score.terms, moved.baselines, moved.recorded, moved.pulled
        )
    ]  # fmt: skip
    if not _within([moved.centre, moved.standing], VALUE_CLIP):
        return False
    if state.recurrent is None:
        return _within(sums, _LARGEST)
    carried = state.recurrent
    units = [*carried.hidden, carried.mask]
    readings = [carried.history.ravel(), carried.value]
    return (
        _within(units, _ONE)
        and _within([carried.gate], gate_limit)
        and _within(readings, VALUE_CLIP)
        and _within([*sums, carried.correction], _LARGEST)
    )


def _within(vectors: Sequence[Float32], bound: np.float32) -> bool:
    return bool(np.all(np.abs(np.concatenate(vectors)) <= bound))
