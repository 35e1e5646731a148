"""The variants of the gate that are compared, and the faults that each is shown in training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from train.batches import FAULT_SIZES
from train.faults import inject

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Batch = Mapping[str, Float32]
Faults = Literal["none", "usual", "curriculum"]

# The curriculum's smallest fault, in channel scales: at first, and from this share of training on.
CURRICULUM_START, CURRICULUM_SHARE = 2.0, 0.5


@dataclass(frozen=True)
class Variant:
    """One way to build and train the network.

    meaning: for the report. trained: False for the linear highway alone. faults: what is put into
    the training windows. protected: history and GRU are fed what the gate lets through, not the
    reading as it came. heard: the gate's evidence counts in the score.
    """

    meaning: str
    trained: bool = True
    gate: bool = True
    faults: Faults = "usual"
    protected: bool = True
    heard: bool = False


VARIANTS: dict[str, Variant] = {
    "linear": Variant("the linear highway alone, untrained", trained=False, gate=False),
    "plain": Variant("GRU without gate, trained on clean windows only", gate=False, faults="none"),
    "injected": Variant("GRU without gate, trained with faults (`--model gru`)", gate=False),
    "unprotected": Variant(
        "the gate only counts in the score; readings go in raw", protected=False, heard=True
    ),
    "gated": Variant("today's gate (`--model gated`)"),
    "curriculum": Variant(
        "today's gate, faults in training from large to small", faults="curriculum"
    ),
}
HEARD = "heard"
HEARD_MEANING = "the same network, and its gate's evidence counts in the score"
ORACLE = "oracle"
ORACLE_MEANING = (
    "the same network, told by the mask what is faulty: what a perfect gate would keep out"
)


def shown(
    batch: Batch, faults: Faults, progress: float, exogenous: Bools, rng: np.random.Generator
) -> Batch:
    """The training batch with the faults of a variant instead of the usual ones.

    batch: as `train.batches.draw_batch` makes it. progress: share of training done, 0 to 1.
    """
    if faults == "usual":
        return batch
    clean, mask = batch["clean"], batch["clean_mask"]
    if faults == "none":
        return {**batch, "faulty": clean, "faulty_mask": mask, "fault": np.zeros_like(clean)}
    sizes = curriculum_sizes(progress)
    injections = [inject(window, rng, sizes=sizes, exogenous=exogenous) for window in clean]
    usable = mask * np.stack([i.mask for i in injections])
    return {
        **batch,
        "faulty": np.stack([i.values for i in injections]) * usable,
        "faulty_mask": usable,
        "fault": np.stack([i.labels > 0 for i in injections]).astype(np.float32),
    }


def curriculum_sizes(progress: float) -> tuple[float, float]:
    """Smallest and largest fault, in channel scales: from 2 down to the usual range half-way.

    The lower bound falls evenly on a logarithmic scale, as sizes are drawn.
    """
    smallest, largest = FAULT_SIZES
    done = min(progress / CURRICULUM_SHARE, 1.0)
    return CURRICULUM_START ** (1 - done) * smallest**done, largest
