"""Every shape that a user can configure becomes a full-int8 step with a verdict."""

from collections.abc import Sequence

import numpy as np
import pytest
from made_steps import inputs_of, name_of, spread, weights_of

from convert.export import export_float, export_int8, input_widths
from convert.tensor_errors import tensor_errors
from edge_runtime.bundle.flatbuffer import read_graph
from edge_runtime.bundle.graph_rules import graph_faults, signature
from edge_runtime.detector.interpreter import FloatGraph, Int8Graph
from edge_runtime.numerics import softplus_table
from train.cell_config import CellConfig

SMALL = [
    CellConfig(channels=1, gru_units=8),
    CellConfig(channels=5, gru_layers=3, gru_units=8, gate_layers=3, head_layers=2),
]


def check(config: CellConfig) -> None:
    weights, inputs = weights_of(config), inputs_of(config, 60)
    model, float_model = export_int8(weights, config, inputs), export_float(weights, config)
    graph = read_graph(model, "model")
    assert graph_faults(graph) == []
    assert {tensor.dtype for tensor in graph.tensors} <= {"int8", "int32"}
    assert (set(graph.inputs), set(graph.outputs)) == signature(config.gru_layers, True)
    assert {n: graph.tensors[i].shape[1] for n, i in graph.inputs.items()} == input_widths(config)
    _check_steps(model, float_model, config, inputs[:20])
    errors = tensor_errors(model, float_model, inputs[:40])
    assert min(error.sqnr_db for error in errors) > 10, min(errors, key=lambda e: e.sqnr_db)


def _check_steps(
    model: bytes, float_model: bytes, config: CellConfig, inputs: Sequence[dict[str, np.ndarray]]
) -> None:
    """The host blends the state in float32, so it is never requantised on its way round."""
    graph = read_graph(model, "model")
    logit = graph.tensors[graph.outputs["logit"]]
    table = softplus_table(logit.scales[0], logit.zero_points[0])
    quantised = Int8Graph(model, graph, table)
    reference = FloatGraph(float_model, read_graph(float_model, "float model"))
    assert quantised.state_sizes == (config.gru_units,) * config.gru_layers
    for sample in inputs:
        a, b = quantised(sample), reference(sample)
        assert np.abs(a["gate_next"] - b["gate_next"]).max() < 0.2
        for layer in range(config.gru_layers):
            candidate = np.abs(a[f"candidate_{layer}"] - b[f"candidate_{layer}"])
            assert candidate.mean() < 0.1, (layer, candidate.mean())


@pytest.mark.slow
@pytest.mark.parametrize("config", SMALL, ids=name_of)
def test_small_shapes_convert(config: CellConfig) -> None:
    check(config)


@pytest.mark.long
@pytest.mark.parametrize("config", spread(24), ids=name_of)
def test_shapes_from_all_over_convert(config: CellConfig) -> None:
    check(config)
