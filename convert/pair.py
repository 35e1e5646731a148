"""The same rows through both arithmetics."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convert.rollout import Rollout, joined, roll
from edge_runtime.detector.cell import Model

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


def roll_pair(quantised: Model, reference: Model, rows: Float32, seams: Sequence[int] = ()) -> Pair:
    """Both models over raw `rows` [n, channels], each from a fresh state, also at `seams`.

    No machine jumps as rows do at a seam. Gates that it shuts may stay shut for hundreds of rows,
    and how the models find out of that is a comparison of nothing that was recorded.
    """
    pieces = np.split(rows, list(seams))
    return Pair(
        joined([roll(quantised, piece) for piece in pieces]),
        joined([roll(reference, piece) for piece in pieces]),
    )
