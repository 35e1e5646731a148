"""Every operand is there before it is read, and every tensor is written once."""

from dataclasses import replace
from pathlib import Path

import pytest
from graphs import first, with_operator, with_tensor

from edge_runtime.bundle.flatbuffer import GraphSummary, read_graph
from edge_runtime.bundle.graph_rules import graph_faults, order_faults


@pytest.fixture(scope="module")
def step(tiny_bundle: Path) -> GraphSummary:
    return read_graph((tiny_bundle / "model.tflite").read_bytes(), "model")


def test_an_operator_that_reads_what_a_later_one_writes_is_refused(step: GraphSummary) -> None:
    backwards = replace(step, operators=step.operators[::-1])
    assert "before it is written: put the operators into their order" in graph_faults(backwards)[0]


def test_an_operator_that_reads_its_own_result_is_refused(step: GraphSummary) -> None:
    number, operator = first(step, "ADD")
    loop = with_operator(step, number, inputs=(operator.outputs[0], operator.inputs[1]))
    assert f"operator {number} ADD reads tensor" in order_faults(loop)[0]


def test_a_tensor_that_nobody_writes_is_not_read(step: GraphSummary) -> None:
    number, operator = first(step, "TANH")
    found = order_faults(replace(step, operators=step.operators[:number]))
    assert any("is written by no operator" in fault for fault in found)
    rest = (*step.operators[:number], *step.operators[number + 1 :])
    found = order_faults(replace(step, operators=rest))
    assert any(f"reads tensor {operator.outputs[0]} (" in fault for fault in found)


def test_a_tensor_is_written_once(step: GraphSummary) -> None:
    twice = replace(step, operators=(*step.operators, step.operators[-1]))
    (found,) = graph_faults(twice)
    assert "already written: give every result a tensor of its own" in found


@pytest.mark.parametrize("place", ["input", "constant", "nothing"])
def test_neither_input_nor_constant_nor_nothing_is_written(step: GraphSummary, place: str) -> None:
    _, product = first(step, "FULLY_CONNECTED")
    index = {"input": step.inputs["mask"], "constant": product.inputs[1], "nothing": -1}[place]
    number, _ = first(step, "TANH")
    found = order_faults(with_operator(step, number, outputs=(index,)))
    assert any(f"operator {number} TANH writes" in fault for fault in found)
    assert any("writes nothing" in fault for fault in found) == (place == "nothing")


def test_an_input_that_is_a_constant_could_not_be_fed(step: GraphSummary) -> None:
    size = step.tensors[step.inputs["mask"]].shape[1]
    constant = with_tensor(step, step.inputs["mask"], constant_bytes=size)
    assert graph_faults(constant) == ["input mask is a constant: the host could not feed it"]


def test_every_name_has_a_tensor_of_its_own(step: GraphSummary) -> None:
    inputs = {**step.inputs, "mask": step.inputs["guarded"]}
    assert "one tensor is two inputs" in order_faults(replace(step, inputs=inputs))[0]
    outputs = {**step.outputs, "logit": step.outputs["gate_next"]}
    assert "one tensor is two outputs" in order_faults(replace(step, outputs=outputs))[0]
