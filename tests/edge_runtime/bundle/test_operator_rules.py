"""An operator that is not used as gruard uses it is refused, with what was expected."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from graphs import first, with_operator, with_tensor

from edge_runtime.bundle.flatbuffer import (
    GraphOperator,
    GraphSummary,
    GraphTensor,
    read_graph,
)
from edge_runtime.bundle.graph_rules import LARGEST_GAIN, USAGES, graph_faults, operator_faults


@pytest.fixture(scope="module")
def step(tiny_bundle: Path) -> GraphSummary:
    return read_graph((tiny_bundle / "model.tflite").read_bytes(), "model")


def row(index: int, width: int, scale: float = 0.1, zero_point: int = 0) -> GraphTensor:
    return GraphTensor(index, f"t{index}", "int8", (1, width), (scale,), (zero_point,), 0)


# RELU stands alone only behind products that were padded, which the tiny step's are not.
RELU = GraphSummary(1, (row(0, 3), row(1, 3)), (GraphOperator("RELU", 2, (0,), (1,)),), {}, {})


def of(step: GraphSummary, name: str) -> tuple[GraphSummary, int, GraphOperator]:
    graph = RELU if name == "RELU" else step
    return graph, *first(graph, name)


def told(graph: GraphSummary, number: int) -> str:
    """What is said of the operator `number` (others may suffer with it)."""
    name = graph.operators[number].name
    (found,) = [f for f in operator_faults(graph) if f.startswith(f"operator {number} {name}")]
    return found


def test_all_of_gruards_operators_are_used_as_expected(step: GraphSummary) -> None:
    assert operator_faults(step) == operator_faults(RELU) == []
    assert {o.name for o in step.operators} | {"RELU"} == set(USAGES)


@pytest.mark.parametrize("name", sorted(USAGES))
def test_the_form_of_each_operator_is_gruards(step: GraphSummary, name: str) -> None:
    graph, number, operator = of(step, name)
    rows = operator.inputs
    changes: list[tuple[dict[str, Any], str]] = [
        ({"version": 9}, "version 9 instead of"),
        ({"inputs": ()}, "0 inputs and 1 outputs instead of"),
        ({"inputs": rows[:1] * 17}, "17 inputs and 1 outputs instead of"),
        ({"outputs": ()}, "1 inputs and 0" if len(rows) == 1 else "inputs and 0 outputs"),
        ({"outputs": operator.outputs * 2}, "and 2 outputs instead of"),
        ({"activation": "RELU6"}, "fused activation RELU6 instead of NONE"),
        ({"axis": 7}, "axis 7 instead of"),
        ({"inputs": (-1, *rows[1:])}, "an input is left out"),
    ]
    for change, expected in changes:
        assert expected in told(with_operator(graph, number, **change), number), change


def test_a_product_far_finer_than_its_operands_is_refused(step: GraphSummary) -> None:
    graph, number, operator = of(step, "MUL")
    first, second = (graph.tensors[index].scales[0] for index in operator.inputs)
    for scale, fine in (
        (first * second / LARGEST_GAIN, False),
        (1.01 * first * second / LARGEST_GAIN, True),
    ):
        changed = with_tensor(graph, operator.outputs[0], scales=(scale,))
        found = [f for f in operator_faults(changed) if "a product of a scale above" in f]
        assert bool(found) != fine
    assert operator_faults(with_operator(graph, number, version=3)) == []


@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL", "LOGISTIC", "TANH", "RELU", "QUANTIZE"])
def test_elementwise_operands_have_one_shape(step: GraphSummary, name: str) -> None:
    graph, number, operator = of(step, name)
    for index in {*operator.inputs, *operator.outputs}:
        other = with_tensor(graph, index, shape=(1, 99))
        if len(operator.inputs) == 2 and len(set(operator.inputs)) == 1:
            continue
        assert "int8 rows [1, n] of one shape expected" in told(other, number)


def test_elementwise_operands_are_rows(step: GraphSummary) -> None:
    _, product = first(step, "FULLY_CONNECTED")
    number, add = first(step, "ADD")
    weights = with_operator(step, number, inputs=(product.inputs[1], add.inputs[1]))
    assert "int8 rows [1, n]" in told(weights, number)


@pytest.mark.parametrize("name", ["ADD", "SUB"])
def test_a_sum_that_ends_the_interpreter_is_refused(step: GraphSummary, name: str) -> None:
    _, add = first(step, name)
    largest = max(step.tensors[index].scales[0] for index in add.inputs)
    for scale, fine in ((largest / LARGEST_GAIN, False), (1.01 * largest / LARGEST_GAIN, True)):
        changed = with_tensor(step, add.outputs[0], scales=(scale,))
        found = [f for f in operator_faults(changed) if "a sum of a scale above" in f]
        assert bool(found) != fine


@pytest.mark.parametrize("name", ["LOGISTIC", "TANH"])
@pytest.mark.parametrize("change", [{"scales": (0.01,)}, {"zero_points": (5,)}], ids=str)
def test_a_table_has_the_scale_of_its_range(
    step: GraphSummary, name: str, change: dict[str, Any]
) -> None:
    number, operator = first(step, name)
    other = with_tensor(step, operator.outputs[0], **change)
    assert "an output of scale" in told(other, number)


def test_a_concatenation_is_as_long_as_its_parts(step: GraphSummary) -> None:
    number, operator = first(step, "CONCATENATION")
    shorter = with_operator(step, number, inputs=operator.inputs[:-1])
    assert "as long as its inputs together" in told(shorter, number)
    _, slice_ = first(step, "SLICE")
    numbers = with_operator(step, number, inputs=(operator.inputs[0], slice_.inputs[1]))
    assert "int8 rows [1, n] expected" in told(numbers, number)
    rescaled = with_tensor(step, operator.outputs[0], scales=(0.5,))
    assert "one scale and zero point" in told(rescaled, number)


@pytest.mark.parametrize(
    ("place", "change", "expected"),
    [
        (1, {"integers": ()}, "a constant begin"),
        (2, {"integers": (1,)}, "a constant size"),
        (1, {"integers": (1, 0)}, "a begin of [0, i]"),
        (1, {"integers": (0, -1)}, "a part within its input"),
        (1, {"integers": (0, 2)}, "a part within its input"),
        (1, {"integers": (0, 2**31 - 1)}, "a part within its input"),
        (2, {"integers": (1, -1)}, "the output's shape as the size"),
        (2, {"integers": (1, 4)}, "the output's shape as the size"),
    ],
    ids=str,
)
def test_a_slice_stays_within_its_input(
    step: GraphSummary, place: int, change: dict[str, Any], expected: str
) -> None:
    number, operator = first(step, "SLICE")
    assert expected in told(with_tensor(step, operator.inputs[place], **change), number)


def test_a_slice_keeps_its_scale(step: GraphSummary) -> None:
    number, operator = first(step, "SLICE")
    rescaled = with_tensor(step, operator.outputs[0], scales=(0.5,))
    assert "one scale and zero point" in told(rescaled, number)


@pytest.mark.parametrize(
    ("place", "change", "expected"),
    [
        (0, {"shape": (1, 99)}, "an input of"),
        (1, {"shape": (8, 99)}, "an input of 99"),
        (1, {"zero_points": (1,)}, "weights of zero point 0"),
        (1, {"constant_bytes": 0}, "constant int8 weights"),
        (1, {"dtype": "int32"}, "constant int8 weights"),
        (2, {"shape": (99,)}, "a constant int32 bias"),
        (2, {"dtype": "int8"}, "a constant int32 bias"),
        (2, {"scales": ()}, "a constant int32 bias"),
        (2, {"scales": (0.1,)}, "a bias of the scale"),
    ],
    ids=str,
)
def test_a_product_fits_its_weights(
    step: GraphSummary, place: int, change: dict[str, Any], expected: str
) -> None:
    products = [(i, o) for i, o in enumerate(step.operators) if o.name == "FULLY_CONNECTED"]
    number, operator = next((i, o) for i, o in products if o.inputs[2] >= 0)
    assert expected in told(with_tensor(step, operator.inputs[place], **change), number)
    output = with_tensor(step, operator.outputs[0], shape=(1, 99))
    assert "and an output of" in told(output, number)


def test_only_a_product_has_a_fused_relu(step: GraphSummary) -> None:
    number, _ = first(step, "FULLY_CONNECTED")
    assert graph_faults(with_operator(step, number, activation="RELU")) == []
    number, _ = first(step, "ADD")
    (found,) = graph_faults(with_operator(step, number, activation="RELU"))
    assert "fused activation RELU instead of NONE" in found


def test_the_same_graph_without_its_bias_is_allowed(step: GraphSummary) -> None:
    products = [(i, o) for i, o in enumerate(step.operators) if o.name == "FULLY_CONNECTED"]
    number, operator = next((i, o) for i, o in products if o.inputs[2] >= 0)
    bare = replace(operator, inputs=(*operator.inputs[:2], -1))
    assert graph_faults(with_operator(step, number, inputs=bare.inputs)) == []
