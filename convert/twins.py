"""The int8 model that ships and its float twin, as the runtime's `Model`, over the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from convert.rollout import Rollout, joined, roll
from edge_runtime.bundle.flatbuffer import NO_GRAPH, GraphSummary, read_graph
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.detector.cell import Model, build_model
from edge_runtime.detector.change import change_constants
from edge_runtime.detector.detector import open_graph
from edge_runtime.detector.interpreter import FloatGraph, NoGraph
from edge_runtime.detector.kernels import KERNEL_ID
from train.console import quiet_stderr

Float32 = npt.NDArray[np.float32]


def graph_of(model: bytes) -> GraphSummary:
    """What is in the int8 file that was made; nothing for a linear model, which has none."""
    return read_graph(model, "converted model") if model else NO_GRAPH


def shipped_model(manifest: Manifest, model: bytes, kernel: str = KERNEL_ID) -> Model:
    """The int8 file on `kernel`, or nothing for a linear model, in the runtime's step."""
    with quiet_stderr():  # XNNPACK announces itself
        graph = open_graph(manifest, model, graph_of(model), kernel)
    return build_model(manifest, graph, "")


def unchanging(model: Model) -> Model:
    """`model` without the rule of lasting changes: its forecasts follow one formula throughout."""
    return replace(model, change=change_constants(replace(model.manifest, change=None)))


def float_twin(manifest: Manifest, float_model: bytes, kernel: str = KERNEL_ID) -> Model:
    """The float file in the runtime's step, with every other constant the same.

    kernel: of the int8 model that it is compared with, under whose threshold. The twin's state has
    no codes to run out of: rounded to the edge of int8 is not saturated.
    """
    if manifest.linear:
        return build_model(manifest, NoGraph(), "")
    graph = FloatGraph(float_model, read_graph(float_model, "float model"), kernel)
    endless = ((np.float32(-np.inf), np.float32(np.inf)),) * len(graph.state_sizes)
    return replace(build_model(manifest, graph, ""), state_limits=endless)


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
