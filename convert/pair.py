"""The same rows through both arithmetics."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convert.rollout import Rollout, roll
from edge_runtime.detector.step import Model

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Rollouts of the int8 model and of its float twin over the same rows."""

    quantised: Rollout
    reference: Rollout

    @property
    def settled(self) -> npt.NDArray[np.bool_]:
        """Where both models answer for themselves: [n]."""
        return self.quantised.settled & self.reference.settled


def roll_pair(quantised: Model, reference: Model, rows: Float32) -> Pair:
    """Both models over raw `rows` [n, channels], each from a fresh state."""
    return Pair(roll(quantised, rows), roll(reference, rows))
