"""Errors inside the graph: matched soundly, right by hand, and a spoiled tensor is named."""

import struct
from dataclasses import dataclass

import numpy as np
import pytest
from made_steps import Inputs, inputs_of, weights_of

from convert.export import export_float, export_int8
from convert.tensor_errors import EXACT_DB, TensorError, tensor_errors, worst_tensor
from edge_runtime.bundle.flatbuffer import GraphTensor, read_graph
from edge_runtime.errors import GruardError
from train.cell_config import CellConfig

pytestmark = pytest.mark.slow

CONFIG = CellConfig(channels=3, gru_units=8, gate_units=12, head_layers=1)


@dataclass(frozen=True)
class Step:
    """One step in both arithmetics, and what it is fed."""

    model: bytes
    float_model: bytes
    inputs: list[Inputs]

    def errors(self, model: bytes | None = None) -> tuple[TensorError, ...]:
        return tensor_errors(model or self.model, self.float_model, self.inputs)


@pytest.fixture(scope="module")
def made() -> Step:
    weights, inputs = weights_of(CONFIG), inputs_of(CONFIG)
    return Step(export_int8(weights, CONFIG, inputs), export_float(weights, CONFIG), inputs)


def with_scale(model: bytes, tensor: GraphTensor, factor: float) -> bytes:
    """The file with another scale for one tensor, and therefore other codes in it."""
    (scale,) = tensor.scales
    return model.replace(struct.pack("<f", scale), struct.pack("<f", scale * factor))


def spoilable(model: bytes) -> list[GraphTensor]:
    """Results whose scale is free: neither their maker nor a biased layer after them ties it."""
    graph = read_graph(model, "model")
    makers = {o.outputs[0]: o.name for o in graph.operators}
    tied = {
        index
        for o in graph.operators
        if o.name == "CONCATENATION" or (o.name == "FULLY_CONNECTED" and o.inputs[2] >= 0)
        for index in o.inputs
    }
    chosen = [
        graph.tensors[index]
        for index, kind in makers.items()
        if kind in ("FULLY_CONNECTED", "ADD", "SUB", "MUL") and index not in tied
    ]
    return [t for t in chosen if model.count(struct.pack("<f", t.scales[0])) == 1]


@pytest.mark.long
def test_every_spoiled_tensor_is_the_one_that_is_named(made: Step) -> None:
    found = spoilable(made.model)
    assert len(found) >= 12
    for tensor in found:
        coarse = worst_tensor(made.errors(with_scale(made.model, tensor, 64)))
        assert coarse.name.startswith(label(made, tensor)) and coarse.lost_db > 15, (
            coarse.sentence()
        )
        clipping = worst_tensor(made.errors(with_scale(made.model, tensor, 1 / 64)))
        assert clipping.name.startswith(label(made, tensor)), clipping.sentence()
        assert clipping.saturated > 0.5 and coarse.saturated == 0


def label(made: Step, tensor: GraphTensor) -> str:
    """How a report begins to name the tensor."""
    outputs = {index: name for name, index in read_graph(made.model, "model").outputs.items()}
    return outputs.get(tensor.index, tensor.name + ",")


def test_a_good_step_loses_little_and_saturates_nowhere(made: Step) -> None:
    errors = made.errors()
    assert len({error.name for error in errors}) == len(errors) > 30
    assert all(25 < error.sqnr_db <= EXACT_DB and not error.saturated for error in errors)
    assert worst_tensor(errors).lost_db < 15


def test_an_input_is_rounded_and_the_figures_follow_from_that(made: Step) -> None:
    error = next(e for e in made.errors() if e.name == "evidence")
    graph = read_graph(made.model, "model")
    tensor = graph.tensors[graph.inputs["evidence"]]
    scale, zero_point = tensor.scales[0], tensor.zero_points[0]
    values = np.array([sample["evidence"] for sample in made.inputs], np.float64)
    codes = np.clip(np.round(values / scale) + zero_point, -128, 127)
    apart = (codes - zero_point) * scale - values
    power = 10 * np.log10((values**2).mean() / (apart**2).mean())
    assert error.sqnr_db == pytest.approx(power, abs=0.05)
    assert error.largest_error == pytest.approx(np.abs(apart).max(), rel=1e-3)
    assert error.kind_of_op == "input" and error.shape == (1, CONFIG.channels)


def test_two_different_steps_are_not_compared(made: Step) -> None:
    other = CellConfig(channels=3, gru_units=8, gate_units=12, head_layers=2)
    float_model = export_float(weights_of(other), other)
    with pytest.raises(GruardError, match=r"not the same step: .*convert both from"):
        tensor_errors(made.model, float_model, made.inputs)
