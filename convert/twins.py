"""Both arithmetics of a step as the device's own `Model`: what ships, and its float twin."""

from dataclasses import replace

import numpy as np

from edge_runtime.bundle.flatbuffer import NO_GRAPH, GraphSummary, read_graph
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.detector.cell import Model, build_model
from edge_runtime.detector.change import change_constants
from edge_runtime.detector.detector import open_graph
from edge_runtime.detector.interpreter import FloatGraph, NoGraph
from edge_runtime.detector.kernels import KERNEL_ID
from train.quiet import quiet_stderr


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
