"""The model that ships, in the runtime's own step."""

from dataclasses import replace

from edge_runtime.bundle.flatbuffer import NO_GRAPH, GraphSummary, read_graph
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.detector.cell import Model, build_model
from edge_runtime.detector.change import change_constants
from edge_runtime.detector.detector import open_graph
from edge_runtime.detector.interpreter import quiet_stderr
from edge_runtime.detector.kernels import KERNEL_ID


def graph_of(model: bytes) -> GraphSummary:
    """Return the graph of the int8 file; `NO_GRAPH` for a linear model, which has no file."""
    return read_graph(model, "converted model") if model else NO_GRAPH


def shipped_model(manifest: Manifest, model: bytes, kernel: str = KERNEL_ID) -> Model:
    """Return the int8 file on `kernel`, or no graph for a linear model, in the runtime's step."""
    with quiet_stderr():  # XNNPACK writes a line when it loads
        graph = open_graph(manifest, model, graph_of(model), kernel)
    return build_model(manifest, graph, "")


def unchanging(model: Model) -> Model:
    """Return `model` without the rule of lasting changes, so that its formula never changes."""
    return replace(model, change=change_constants(replace(model.manifest, change=None)))
