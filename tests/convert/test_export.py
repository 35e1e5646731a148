"""Export: one step, all int8, only allowed operators, and the same numbers as the Keras weights."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import tensorflow as tf
from made_steps import Inputs, inputs_of, weights_of

from convert.export import export_float, export_int8, input_widths
from edge_runtime import numerics
from edge_runtime.bundle.flatbuffer import GraphSummary, read_graph
from edge_runtime.bundle.graph_rules import ALLOWED_OPERATORS, graph_faults, signature
from edge_runtime.detector.cell import GRAPH_FORECAST_CLIP, GRAPH_INNOVATION_CLIP
from edge_runtime.detector.interpreter import FloatGraph, Int8Graph, quiet_stderr
from train.cell import cell_step, fused_linear
from train.cell_config import CellConfig

pytestmark = pytest.mark.slow

CONFIGS = [
    CellConfig(channels=1, gru_units=8, gate_units=8, order=1),
    CellConfig(channels=3, gru_layers=2, gru_units=8, gate_layers=2, gate_units=12, head_layers=1),
    CellConfig(channels=12, gru_units=32, gate_units=32, order=5),
    CellConfig(channels=5, gru_layers=3, gru_units=16, gate_layers=3, gate_units=8, head_layers=2),
    CellConfig(channels=3, gru_layers=0, gate_layers=2, gate_units=12),
    CellConfig(channels=3, gru_layers=2, gru_units=8, gate_layers=0, head_layers=1),
]


def keras_step(
    weights: Mapping[str, np.ndarray], config: CellConfig
) -> Callable[[Inputs], dict[str, np.ndarray]]:
    def step(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return cell_step(weights, config, inputs, fused_linear)

    graph = tf.function(step, autograph=False)

    def run(inputs: Inputs) -> dict[str, np.ndarray]:
        outputs = graph({name: tf.constant(value[np.newaxis]) for name, value in inputs.items()})
        return {name: np.asarray(value)[0] for name, value in outputs.items()}

    return run


def int8_graph(model: bytes) -> Int8Graph:
    graph = read_graph(model, "int8")
    softplus = np.zeros(256, np.float32)
    if "logit" in graph.outputs:
        logit = graph.tensors[graph.outputs["logit"]]
        softplus = numerics.softplus_table(logit.scales[0], logit.zero_points[0])
    return Int8Graph(model, graph, softplus)


@pytest.mark.long
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_float_file_is_the_keras_step(config: CellConfig) -> None:
    weights = weights_of(config)
    model = export_float(weights, config)
    exported, expected = FloatGraph(model, read_graph(model, "float")), keras_step(weights, config)
    parts = (config.gate_layers > 0, (config.gru_units,) * config.gru_layers)
    assert (exported.gated, exported.state_sizes) == parts
    for inputs in inputs_of(config, 10):
        outputs, wanted = exported(inputs), expected(inputs)
        assert ("doubt" in outputs) == exported.gated
        assert set(outputs) - {"doubt"} == signature(config.gru_layers, exported.gated)[1]
        for name, value in outputs.items():
            if name != "doubt":
                np.testing.assert_allclose(value, wanted[name], rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_int8_file_is_one_allowed_step_close_to_the_float_one(config: CellConfig) -> None:
    weights, samples = weights_of(config), inputs_of(config)
    model = export_int8(weights, config, samples)
    graph = read_graph(model, "int8")
    assert graph_faults(graph) == [] and graph.subgraphs == 1
    assert {operator.name for operator in graph.operators} <= ALLOWED_OPERATORS
    assert {tensor.dtype for tensor in graph.tensors} <= {"int8", "int32"}
    assert all(t.dtype == "int8" for t in graph.tensors if t.index in graph.inputs.values())
    named = signature(config.gru_layers, config.gate_layers > 0)
    assert (set(graph.inputs), set(graph.outputs)) == named
    per_tensor = [t for t in graph.tensors if t.constant_bytes and t.dtype == "int8"]
    assert per_tensor and all(len(tensor.scales) == 1 for tensor in per_tensor)

    quantised, expected = int8_graph(model), keras_step(weights, config)
    parts = (config.gate_layers > 0, (config.gru_units,) * config.gru_layers)
    assert (quantised.gated, quantised.state_sizes) == parts
    errors: dict[str, list[np.ndarray]] = {}
    for inputs in samples[:40]:
        outputs, wanted = quantised(inputs), expected(inputs)
        assert ("doubt" in outputs) == quantised.gated
        for name in graph.outputs:
            errors.setdefault(name, []).append(outputs[name] - wanted[name])
    spread = {name: float(np.sqrt(np.mean(np.square(e)))) for name, e in errors.items()}
    assert spread.pop("logit", 0.0) < 0.1
    assert max(spread.values()) < 0.05, spread


def test_the_same_inputs_give_the_same_bytes() -> None:
    config = CONFIGS[1]
    weights, samples = weights_of(config), inputs_of(config)
    first = export_int8(weights, config, samples)
    assert export_int8(weights, config, iter(samples)) == first
    other = {**weights, "logit_bias": weights["logit_bias"] + np.float32(0.1)}
    assert export_int8(other, config, samples) != first


def test_nothing_the_host_can_feed_is_clipped() -> None:
    config = CONFIGS[1]
    tiny = [{n: 0.01 * v for n, v in sample.items()} for sample in inputs_of(config, 20)]
    graph = read_graph(export_int8(weights_of(config), config, tiny), "int8")
    bounds = {"evidence": 1, "magnitude": 1, "difference": 1, "mask": 1, "guarded": 1, "gate": 1}
    bounds |= {"innovation": GRAPH_INNOVATION_CLIP, "forecast": GRAPH_FORECAST_CLIP}
    bounds |= {"state_0": 1, "state_1": 1}
    for name, bound in bounds.items():
        tensor = graph.tensors[graph.inputs[name]]
        largest = (127 - tensor.zero_points[0]) * tensor.scales[0]
        assert largest >= 0.99 * bound, name
        if name not in ("magnitude", "mask", "guarded", "gate"):
            smallest = (-128 - tensor.zero_points[0]) * tensor.scales[0]
            assert smallest <= -0.99 * bound, name


def test_neither_gate_nor_gru_is_nothing_to_export() -> None:
    config = CellConfig(channels=3, gru_layers=0, gate_layers=0)
    assert config.linear and input_widths(config) == {}


def converted(function: Callable[..., object], float_ends: bool) -> GraphSummary:
    signature = tf.TensorSpec([1, 3], tf.float32, "x")
    concrete = tf.function(function).get_concrete_function(x=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
    if float_ends:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        rows = np.random.default_rng(0).normal(size=(20, 1, 3)).astype(np.float32)
        converter.representative_dataset = lambda: ({"x": row} for row in rows)
    with quiet_stderr():
        return read_graph(converter.convert(), "foreign")


def test_a_graph_with_a_float_operator_is_refused_with_the_reason() -> None:
    kernel = tf.constant(np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32))
    graph = converted(lambda x: {"y": tf.nn.relu(tf.matmul(x, kernel))}, float_ends=True)
    faults = "\n".join(graph_faults(graph))
    assert "operator DEQUANTIZE is not allowed: a float island: quantise the whole graph" in faults
    assert "tensors are not int8" in faults


def test_a_keras_sequence_layer_is_refused_with_the_reason() -> None:
    import keras

    layer = keras.layers.GRU(4)
    layer.build((1, 5, 3))

    def sequence(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": layer(tf.repeat(x[:, tf.newaxis], 5, axis=1))}

    faults = "\n".join(graph_faults(converted(sequence, float_ends=False)))
    assert "operator WHILE is not allowed: the GRU became a loop: export one step" in faults
    assert "neither a gate nor a GRU: not a gruard step" in faults
