"""Only one full-int8 step may run; everything else is refused with the way to mend it."""

from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary, GraphTensor, read_graph
from edge_runtime.bundle.graph_rules import graph_faults, layer_count, signature


@pytest.fixture(scope="module")
def step(tiny_bundle: Path) -> GraphSummary:
    return read_graph((tiny_bundle / "model.tflite").read_bytes(), "model")


def faults(graph: GraphSummary) -> str:
    return "\n".join(graph_faults(graph))


def test_the_int8_step_is_allowed(step: GraphSummary) -> None:
    assert graph_faults(step) == []
    assert layer_count(step.inputs) == 1


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("IF", "export one step without branches"),
        ("DEQUANTIZE", "quantise the whole graph to int8"),
        ("CUSTOM edgetpu-custom-op", "only TFLite's built-in ADD, CONCATENATION, FULLY_CONNECTED"),
        ("BUILTIN 77", "only TFLite's built-in ADD, CONCATENATION, FULLY_CONNECTED"),
        ("SPLIT", "only ADD, CONCATENATION, FULLY_CONNECTED"),
    ],
)
def test_each_forbidden_operator_comes_with_its_fix(
    step: GraphSummary, name: str, fix: str
) -> None:
    foreign = GraphOperator(name, 1, (0,), (1,))
    (found,) = graph_faults(replace(step, operators=(*step.operators, foreign)))
    assert f"operator {name} is not allowed" in found and fix in found


@pytest.mark.parametrize("shape", [(3, 8), (4, 7), (8,), ()], ids=str)
def test_products_that_processors_round_differently_are_refused(
    step: GraphSummary, shape: tuple[int, ...]
) -> None:
    products = [o for o in step.operators if o.name == "FULLY_CONNECTED"]
    assert min(step.tensors[o.inputs[1]].shape for o in products) == (4, 8)  # the smallest allowed
    index = products[0].inputs[1]
    small = tuple(replace(t, shape=shape) if t.index == index else t for t in step.tensors)
    (found,) = graph_faults(replace(step, tensors=small))
    assert f"(first: {list(shape)})" in found and "pad their weights with zeros" in found


def test_a_product_without_weights_is_refused(step: GraphSummary) -> None:
    bare = GraphOperator("FULLY_CONNECTED", 1, (0,), (1,))
    assert "(first: [])" in faults(replace(step, operators=(*step.operators, bare)))
    left_out = replace(bare, inputs=(0, -1))
    assert "(first: [])" in faults(GraphSummary(1, (), (left_out,), {}, {}))


def test_what_gruard_never_writes_is_refused_by_its_name(step: GraphSummary) -> None:
    (found,) = graph_faults(replace(step, extras=("2 signatures",)))
    assert found == "2 signatures: nothing that gruard writes; convert again"


def test_a_reason_stays_short_whatever_a_file_calls_its_tensors(step: GraphSummary) -> None:
    inputs = {f"state_{i}" + "x" * 10_000: 0 for i in range(30_000)}
    assert all(len(fault) < 3000 for fault in graph_faults(replace(step, inputs=inputs)))


def test_a_coarse_reason_hides_the_finer_ones(step: GraphSummary) -> None:
    extra = replace(step.operators[0], outputs=(step.inputs["mask"],))
    both = replace(step, subgraphs=2, operators=(*step.operators, extra))
    (found,) = graph_faults(both)
    assert "2 subgraphs" in found


def test_missing_and_unknown_signature_names_are_told(step: GraphSummary) -> None:
    inputs = {("colour" if name == "mask" else name): i for name, i in step.inputs.items()}
    (found,) = graph_faults(replace(step, inputs=inputs))
    assert "missing ['mask']" in found and "unknown ['colour']" in found
    outputs = {name: i for name, i in step.outputs.items() if name != "update_0"}
    assert "missing ['update_0']" in faults(replace(step, outputs=outputs))


def spoiled(graph: GraphSummary, name: str, **change: object) -> GraphSummary:
    def changed(tensor: GraphTensor) -> GraphTensor:
        return replace(tensor, **change) if tensor.index == graph.inputs[name] else tensor  # type: ignore[arg-type]

    return replace(graph, tensors=tuple(changed(tensor) for tensor in graph.tensors))


@pytest.mark.parametrize(
    "change",
    [
        {"scales": (0.1, 0.1, 0.1)},
        {"scales": ()},
        {"zero_points": ()},
        {"dtype": "int32"},
        {"shape": (3,)},
        {"shape": (2, 3)},
        {"shape": (1, 0)},
    ],
    ids=str,
)
def test_inputs_are_one_int8_row_with_one_scale(
    step: GraphSummary, change: dict[str, object]
) -> None:
    assert "tensor mask is not a [1, n] int8 tensor" in faults(spoiled(step, "mask", **change))


def made(gru_layers: int, gated: bool) -> GraphSummary:
    """A graph with the names of such a step, each output a copy of one and the same input."""
    inputs, outputs = signature(gru_layers, gated)
    names = [*sorted(inputs), *sorted(outputs)]
    tensors = [
        GraphTensor(i, name, "int8", (1, 3), (0.1,), (0,), 0) for i, name in enumerate(names)
    ]
    index = {name: i for i, name in enumerate(names)}
    sides = [{name: index[name] for name in sorted(side)} for side in (inputs, outputs)]
    copies = [GraphOperator("QUANTIZE", 1, (0,), (index[name],)) for name in sorted(outputs)]
    return GraphSummary(1, tuple(tensors), tuple(copies), *sides)


STEPS = [(0, True), (1, False), (1, True), (3, False), (2, True)]


def test_the_signature_of_each_part() -> None:
    gate_inputs = {"evidence", "magnitude", "difference", "mask", "guarded", "gate"}
    gru_inputs = {"innovation", "forecast", "evidence", "mask", "state_0"}
    gru_outputs = {"correction", "update_0", "candidate_0"}
    assert signature(0, True) == (gate_inputs, {"logit", "gate_next"})
    assert signature(1, False) == (gru_inputs, gru_outputs)
    both = (gate_inputs | gru_inputs, gru_outputs | {"logit", "gate_next"})
    assert signature(1, True) == both
    assert signature(2, True)[0] - both[0] == {"state_1"}
    assert signature(2, True)[1] - both[1] == {"update_1", "candidate_1"}
    assert signature(0, False) == (set(), set())


@pytest.mark.parametrize(("gru_layers", "gated"), STEPS)
def test_a_step_has_a_gate_or_a_gru_or_both(gru_layers: int, gated: bool) -> None:
    graph = made(gru_layers, gated)
    assert graph_faults(graph) == [] and layer_count(graph.inputs) == gru_layers


def test_a_step_with_neither_is_none() -> None:
    assert "neither a gate nor a GRU: not a gruard step" in faults(made(0, False))


@pytest.mark.parametrize(("gru_layers", "gated"), STEPS)
def test_every_name_of_every_step_is_needed(gru_layers: int, gated: bool) -> None:
    graph = made(gru_layers, gated)
    for name in graph.inputs:
        rest = {key: i for key, i in graph.inputs.items() if key != name}
        assert "signature" in faults(replace(graph, inputs=rest)), name
    for name in graph.outputs:
        rest = {key: i for key, i in graph.outputs.items() if key != name}
        assert "signature outputs differ" in faults(replace(graph, outputs=rest)), name


@pytest.mark.parametrize(
    ("graph", "side", "name"),
    [
        (made(0, True), "inputs", "innovation"),
        (made(0, True), "outputs", "correction"),
        (made(1, False), "inputs", "guarded"),
        (made(1, False), "outputs", "gate_next"),
        (made(1, True), "outputs", "update_1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_half_a_part_is_not_taken(graph: GraphSummary, side: str, name: str) -> None:
    found = faults(replace(graph, **{side: {**getattr(graph, side), name: 0}}))
    assert f"signature {side} differ" in found and f"unknown ['{name}']" in found
