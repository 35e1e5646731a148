"""The int8 step on the reference kernel: exactly quantise, invoke, dequantise, and nothing else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from no_interpreter import BLOCKED

from edge_runtime import numerics
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.interpreter import Int8Graph, NoGraph, load_interpreter
from edge_runtime.errors import GruardError

ROOT = Path(__file__).parents[3]
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


def int8_graph(bundle: Bundle) -> Int8Graph:
    softplus = np.array(bundle.manifest.tables.softplus, np.float32)
    return Int8Graph(bundle.model, bundle.graph, softplus)


@pytest.fixture(scope="module")
def graph(bundle: Bundle) -> Int8Graph:
    return int8_graph(bundle)


def random_inputs(bundle: Bundle, seed: int) -> dict[str, np.ndarray]:
    """Inputs that also leave the range of int8 now and then."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(tensor.shape[1]) * 3).astype(np.float32)
        for name, tensor in bundle.manifest.inputs.items()
    }


@settings(max_examples=30)
@given(SEEDS)
def test_a_step_is_quantise_invoke_dequantise_tensor_by_tensor(
    bundle: Bundle, graph: Int8Graph, seed: int
) -> None:
    inputs = random_inputs(bundle, seed)
    interpreter, tensors = load_interpreter(bundle.model), bundle.graph.tensors
    for name, index in bundle.graph.inputs.items():
        scale = np.float32(tensors[index].scales[0])
        zero_point = np.float32(tensors[index].zero_points[0])
        codes = numerics.quantise(inputs[name], scale, zero_point)
        interpreter.set_tensor(index, codes[np.newaxis])
    interpreter.invoke()
    outputs, codes = graph(inputs), graph.codes(inputs)
    assert set(codes) == set(bundle.graph.outputs) == set(outputs) - {"doubt"}
    for name, index in bundle.graph.outputs.items():
        raw = interpreter.get_tensor(index)[0]
        assert codes[name].dtype == np.int8
        np.testing.assert_array_equal(codes[name], raw)
        scale = np.float32(tensors[index].scales[0])
        expected = (raw.astype(np.float32) - np.float32(tensors[index].zero_points[0])) * scale
        np.testing.assert_array_equal(outputs[name], expected)


@settings(max_examples=30)
@given(SEEDS)
def test_doubt_is_the_softplus_of_the_logit(bundle: Bundle, graph: Int8Graph, seed: int) -> None:
    outputs = graph(random_inputs(bundle, seed))
    expected = np.logaddexp(0, -outputs["logit"].astype(np.float64))
    np.testing.assert_allclose(outputs["doubt"], expected, rtol=1e-6)


@settings(max_examples=30)
@given(SEEDS)
def test_two_interpreters_give_the_same_bytes(bundle: Bundle, graph: Int8Graph, seed: int) -> None:
    inputs = random_inputs(bundle, seed)
    first, second = graph.codes(inputs), int8_graph(bundle).codes(inputs)
    assert {k: v.tobytes() for k, v in first.items()} == {k: v.tobytes() for k, v in second.items()}


def test_a_step_remembers_nothing_of_the_step_before(bundle: Bundle, graph: Int8Graph) -> None:
    first = graph(random_inputs(bundle, 1))
    kept = {name: value.copy() for name, value in first.items()}
    graph(random_inputs(bundle, 2))
    for name, value in graph(random_inputs(bundle, 1)).items():
        np.testing.assert_array_equal(value, kept[name])
        np.testing.assert_array_equal(first[name], kept[name])  # nor are results overwritten


def test_no_delegate_takes_the_graph_over(bundle: Bundle) -> None:
    operators = load_interpreter(bundle.model)._get_ops_details()
    names = [operator["op_name"] for operator in operators]
    assert names == [operator.name for operator in bundle.graph.operators]
    assert not {"DELEGATE", "TfLiteXNNPackDelegate"} & set(names)


def test_the_state_sizes_are_those_of_the_graph(graph: Int8Graph) -> None:
    assert graph.state_sizes == (8,) and graph.gated and graph.kernel_id == "tflite-builtin"


def test_no_graph_computes_nothing_from_anything(bundle: Bundle) -> None:
    graph = NoGraph()
    assert graph(random_inputs(bundle, 1)) == graph({}) == {}
    assert (graph.kernel_id, graph.gated, graph.state_sizes) == ("host-float32", False, ())


def test_a_model_the_interpreter_refuses_is_a_gruard_error() -> None:
    with pytest.raises(GruardError, match="refuses the model"):
        load_interpreter(b"not a model at all, but long enough to look at")


NO_INTERPRETER = """
from edge_runtime.errors import GruardError
from edge_runtime.detector.interpreter import load_interpreter
try:
    load_interpreter(b"")
except GruardError as error:
    print(error)
"""


def test_without_an_interpreter_the_error_says_what_to_install() -> None:
    found = subprocess.run(
        [sys.executable, "-c", BLOCKED + NO_INTERPRETER],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "pip install 'gruard[interpreter]'" in found.stdout
