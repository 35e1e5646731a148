"""The .tflite reader tells what the interpreter tells, and refuses what is damaged."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.bundle.flatbuffer import GraphSummary, read_graph
from edge_runtime.detector.interpreter import load_interpreter
from edge_runtime.errors import GruardError

POSITION = st.floats(0, 1, exclude_max=True)


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> bytes:
    return (tiny_bundle / "model.tflite").read_bytes()


def test_tensors_are_those_of_the_interpreter(model: bytes) -> None:
    graph = read_graph(model, "model")
    # The interpreter appends scratch tensors of its own.
    details = load_interpreter(model).get_tensor_details()[: len(graph.tensors)]
    assert len(details) == len(graph.tensors)
    for found, told in zip(graph.tensors, details, strict=True):
        parameters = told["quantization_parameters"]
        assert (found.index, found.name) == (told["index"], told["name"])
        assert found.dtype == np.dtype(told["dtype"]).name
        assert found.shape == tuple(told["shape"])
        assert found.scales == tuple(parameters["scales"])
        assert found.zero_points == tuple(parameters["zero_points"])


def test_signature_and_operators_are_those_of_the_interpreter(model: bytes) -> None:
    graph, interpreter = read_graph(model, "model"), load_interpreter(model)
    signature = interpreter.get_signature_list()["serving_default"]
    assert set(graph.inputs) == set(signature["inputs"])
    assert set(graph.outputs) == set(signature["outputs"])
    assert set(graph.inputs.values()) == {d["index"] for d in interpreter.get_input_details()}
    assert set(graph.outputs.values()) == {d["index"] for d in interpreter.get_output_details()}
    told = [d["op_name"] for d in interpreter._get_ops_details()]
    assert [operator.name for operator in graph.operators] == told
    assert graph.subgraphs == 1


def test_weights_are_told_from_activations(model: bytes) -> None:
    graph = read_graph(model, "model")
    for tensor in graph.tensors:
        if tensor.constant_bytes:
            size = {"int8": 1, "int32": 4}[tensor.dtype]
            assert tensor.constant_bytes == size * int(np.prod(tensor.shape))
    computed = {i for operator in graph.operators for i in operator.outputs}
    constants = {t.index for t in graph.tensors if t.constant_bytes}
    assert constants and not constants & (computed | set(graph.inputs.values()))


def read_or_refuse(data: bytes) -> GraphSummary | None:
    try:
        return read_graph(data, "damaged")
    except GruardError as error:
        assert str(error).startswith("damaged: ")
        return None


@settings(max_examples=300)
@given(where=POSITION)
def test_a_truncated_file_is_refused_or_read(model: bytes, where: float) -> None:
    read_or_refuse(model[: int(where * len(model))])


@settings(max_examples=600)
@given(where=POSITION, value=st.integers(1, 255))
def test_one_changed_byte_is_refused_or_read(model: bytes, where: float, value: int) -> None:
    data = bytearray(model)
    data[int(where * len(data))] ^= value
    read_or_refuse(bytes(data))


def test_some_broken_bytes_are_seen_and_others_only_by_the_hash(model: bytes) -> None:
    outcomes = set()
    for position in range(0, len(model), 13):
        data = bytearray(model)
        data[position] ^= 0xFF
        outcomes.add(read_or_refuse(bytes(data)) is None)
    assert outcomes == {True, False}


def test_a_table_before_the_start_of_the_file_is_not_read_from_its_end(model: bytes) -> None:
    data = bytearray(model)
    root = int.from_bytes(data[:4], "little")
    data[root : root + 4] = (root + 8).to_bytes(4, "little")  # its vtable: 8 before the start
    with pytest.raises(GruardError, match="offset outside the file"):
        read_graph(bytes(data), "model")


def test_a_name_beyond_the_end_of_the_file_is_not_cut_short(model: bytes) -> None:
    name = read_graph(model, "model").tensors[0].name.encode()
    data, start = bytearray(model), model.index(len(name).to_bytes(4, "little") + name)
    data[start : start + 4] = len(model).to_bytes(4, "little")
    with pytest.raises(GruardError, match="offset outside the file"):
        read_graph(bytes(data), "model")


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(GruardError, match="TFL3"):
        read_graph(data[:4] + b"TFL2" + data[8:], "noise")
    assert read_or_refuse(data[:4] + b"TFL3" + data[4:]) is None


def test_half_a_file_says_what_to_do(model: bytes) -> None:
    with pytest.raises(GruardError, match=r"model\.tflite: damaged .*convert again"):
        read_graph(model[: len(model) // 2], "model.tflite")
