"""Converted models that are no int8 step are refused by the device, with the way to mend them."""

from collections.abc import Callable

import tensorflow as tf

from convert.export import export_float
from edge_runtime.bundle.flatbuffer import GraphSummary, read_graph
from edge_runtime.bundle.graph_rules import graph_faults
from edge_runtime.detector.interpreter import quiet_stderr
from edge_runtime.learning.run import Run
from train.cell_config import CellConfig


def faults(graph: GraphSummary) -> str:
    return "\n".join(graph_faults(graph))


def test_the_float_step_is_refused(tiny_run: Run) -> None:
    model = export_float(tiny_run.weights, CellConfig(**tiny_run.config.sizes))
    found = faults(read_graph(model, "float"))
    assert "not int8" in found and "full-integer quantisation" in found


def converted(function: Callable[..., object]) -> GraphSummary:
    concrete = tf.function(function).get_concrete_function(x=tf.TensorSpec([1, 3], tf.float32, "x"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
    with quiet_stderr():
        return read_graph(converter.convert(), "foreign")


def test_a_foreign_model_is_refused() -> None:
    found = faults(converted(lambda x: {"y": tf.nn.softmax(x)}))
    assert "operator SOFTMAX is not allowed" in found
    assert "not a gruard step" in found and "missing" in found


def test_a_loop_is_refused_with_the_way_out() -> None:
    def looped(x: tf.Tensor) -> dict[str, tf.Tensor]:
        again = tf.while_loop(lambda y: tf.reduce_sum(y) < 9.0, lambda y: [tf.tanh(y) + y], [x])
        return {"y": again[0]}

    found = faults(converted(looped))
    assert "operator WHILE is not allowed: the GRU became a loop" in found
    assert "export one step, not a sequence layer" in found
    assert "subgraphs instead of 1" in found
