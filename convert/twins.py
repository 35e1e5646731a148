"""The int8 model that ships and its float twin, as the runtime's `Model`, over the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.flatbuffer import read_graph
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.detector.cell import Model, build_model
from edge_runtime.detector.interpreter import FloatGraph, NoGraph
from edge_runtime.detector.kernels import KERNEL_ID
from edge_runtime.learning.rollout import Rollout, joined, roll

Float32 = npt.NDArray[np.float32]


def float_twin(manifest: Manifest, float_model: bytes, kernel: str = KERNEL_ID) -> Model:
    """Return the float file in the runtime's step, with all other constants unchanged.

    kernel: that of the int8 model it is compared with, whose threshold it uses. The state of the
    twin has no limits: a value that would round to the edge of int8 does not count as saturated.
    """
    if manifest.linear:
        return build_model(manifest, NoGraph(), "")
    graph = FloatGraph(float_model, read_graph(float_model, "float model"), kernel)
    unlimited = ((np.float32(-np.inf), np.float32(np.inf)),) * len(graph.state_sizes)
    return replace(build_model(manifest, graph, ""), state_limits=unlimited)


@dataclass(frozen=True)
class Pair:
    """Rollouts of the int8 model and its float twin over the same rows."""

    quantised: Rollout
    reference: Rollout

    @property
    def settled(self) -> npt.NDArray[np.bool_]:
        """Bool [n]: where both models have settled."""
        return self.quantised.settled & self.reference.settled


def roll_pair(quantised: Model, reference: Model, rows: Float32, seams: Sequence[int] = ()) -> Pair:
    """Roll both models over raw `rows` [n, channels], from a fresh state, also at `seams`.

    The jump at a seam is an artefact. It may close gates for hundreds of rows, and how the models
    recover from that compares nothing that was recorded.
    """
    pieces = np.split(rows, list(seams))
    return Pair(
        joined([roll(quantised, piece) for piece in pieces]),
        joined([roll(reference, piece) for piece in pieces]),
    )
