"""Many independent samples through the runtime's own symptoms at once, bit for bit the same.

The runtime's functions take a last axis for the samples of a batch; here constants and states get
it. One call for some hundred faults costs little more than one for a single sample.
"""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from edge_runtime.symptoms import SymptomConstants, SymptomState


def batch_constants(constants: SymptomConstants) -> SymptomConstants:
    """`constants` with an axis for the samples."""
    seen = constants.contribution
    contribution = replace(
        seen,
        center=seen.center[..., np.newaxis],
        precision=seen.precision[..., np.newaxis],
        block=seen.block[..., np.newaxis],
        deviation=seen.deviation[..., np.newaxis],
        smoothing=seen.smoothing[..., np.newaxis],
    )
    channels = ("explained_mean", "explained_high", "move_mean", "jump_mean", "persistence")
    vectors = {
        name: getattr(constants, name)[..., np.newaxis]
        for name in (*channels, "longest_repeat", "blameable")
    }
    return replace(constants, contribution=contribution, **vectors)


def batch_state(states: Sequence[SymptomState]) -> SymptomState:
    """The states of all samples as one."""
    arrays = {
        f.name: np.stack([getattr(s, f.name) for s in states], axis=-1)
        for f in fields(SymptomState)
    }
    return SymptomState(**arrays)


def sample_state(batch: SymptomState, sample: int) -> SymptomState:
    """The state of one sample of the batch."""
    arrays = {f.name: getattr(batch, f.name)[..., sample] for f in fields(SymptomState)}
    return SymptomState(**arrays)
