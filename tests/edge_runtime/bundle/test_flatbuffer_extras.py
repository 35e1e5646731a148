"""Whatever the interpreter would read and gruard never writes is named by the reader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.bundle.flatbuffer import read_graph
from edge_runtime.bundle.graph_rules import graph_faults
from edge_runtime.errors import GruardError
from tests.edge_runtime.tflite_schema import packed, parsed, schema


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> bytes:
    return (tiny_bundle / "model.tflite").read_bytes()


def edited(model: bytes, change: Callable[[Any], object]) -> bytes:
    objects = parsed(model)
    change(objects)
    return packed(objects)


def operator(parsed: Any, kind: int) -> Any:
    numbers = [max(c.deprecatedBuiltinCode, c.builtinCode) for c in parsed.operatorCodes]
    return next(o for o in parsed.subgraphs[0].operators if numbers[o.opcodeIndex] == kind)


ADD, CONCATENATION, TANH = 0, 2, 28


def set_field(target: Callable[[Any], Any], **values: Any) -> Callable[[Any], None]:
    def change(parsed: Any) -> None:
        for name, value in values.items():
            assert hasattr(target(parsed), name)
            setattr(target(parsed), name, value)

    return change


def tensor(parsed: Any) -> Any:
    return parsed.subgraphs[0].tensors[0]


def second_signature(parsed: Any) -> None:
    parsed.signatureDefs = parsed.signatureDefs * 2


def unused_code(parsed: Any) -> None:
    code = schema.OperatorCodeT()
    code.deprecatedBuiltinCode = code.builtinCode = 25
    code.version = 1
    parsed.operatorCodes.append(code)


def metadata(name: str) -> Callable[[Any], None]:
    return set_field(lambda m: m.metadata[0], name=name)


def test_the_file_packed_again_is_still_allowed(model: bytes) -> None:
    graph = read_graph(edited(model, lambda parsed: None), "model")
    assert graph == read_graph(model, "model") and graph.extras == ()
    assert graph_faults(graph) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (set_field(tensor, isVariable=True), "field 5 of the schema in a table of kind tensor"),
        (set_field(tensor, shapeSignature=np.array([-1, 8], np.int32)), "kind tensor"),
        (set_field(tensor, sparsity=schema.SparsityParametersT()), "field 6"),
        (set_field(lambda m: tensor(m).quantization, quantizedDimension=1), "kind quantisation"),
        (set_field(lambda m: tensor(m).quantization, min=[0.0], max=[1.0]), "kind quantisation"),
        (set_field(lambda m: m.buffers[5], offset=4096, size=64), "kind buffer"),
        (set_field(lambda m: operator(m, ADD), customOptions=[1, 2, 3]), "kind operator"),
        (set_field(lambda m: operator(m, ADD), intermediates=[0]), "kind operator"),
        (set_field(lambda m: operator(m, ADD), mutatingVariableInputs=[True]), "kind operator"),
        (
            set_field(
                lambda m: operator(m, TANH),
                builtinOptionsType=11,
                builtinOptions=schema.AddOptionsT(),
            ),
            "options of another operator on TANH",
        ),
        (
            set_field(
                lambda m: operator(m, ADD),
                builtinOptionsType=21,
                builtinOptions=schema.MulOptionsT(),
            ),
            "options of another operator on ADD",
        ),
        (
            set_field(lambda m: operator(m, ADD).builtinOptions, potScaleInt16=False),
            "kind options of ADD",
        ),
        (set_field(lambda m: operator(m, 9).builtinOptions, weightsFormat=1), "FULLY_CONNECTED"),
        (set_field(lambda m: operator(m, 9).builtinOptions, keepNumDims=True), "FULLY_CONNECTED"),
        (set_field(lambda m: m, version=2), "version 2 of the file format"),
        (
            set_field(lambda m: m, metadataBuffer=[0]),
            "field 5 of the schema in a table of kind model",
        ),
        (set_field(lambda m: m.signatureDefs[0], signatureKey="other"), "name 'other'"),
        (set_field(lambda m: m.subgraphs[0], inputs=[0]), "inputs of the graph that are not"),
        (set_field(lambda m: m.subgraphs[0], outputs=[0]), "outputs of the graph that are not"),
        (second_signature, "2 signatures"),
        (unused_code, "an operator code that nothing uses, SOFTMAX"),
        (
            metadata("model_control_dependencies"),
            "metadata of the name 'model_control_dependencies'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_gruard_never_writes_is_named_and_refused(
    model: bytes, change: Callable[[Any], None], told: str
) -> None:
    graph = read_graph(edited(model, change), "model")
    assert any(told in extra for extra in graph.extras), graph.extras
    assert any(told in fault for fault in graph_faults(graph))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (set_field(lambda m: operator(m, ADD).builtinOptions, fusedActivationFunction=3), "RELU6"),
        (set_field(lambda m: operator(m, CONCATENATION).builtinOptions, axis=0), "axis 0"),
        (
            set_field(
                lambda m: operator(m, CONCATENATION), builtinOptionsType=0, builtinOptions=None
            ),
            "options of another operator",
        ),
        (set_field(lambda m: m.operatorCodes[0], version=7), "version 7 instead of"),
        (set_field(tensor, shape=[1, 1 << 30]), "1 to 8192 are expected"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_read_is_judged(model: bytes, change: Callable[[Any], None], told: str) -> None:
    assert told in graph_faults(read_graph(edited(model, change), "model"))[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (set_field(lambda m: m.metadata[0], buffer=9999), "metadata name a buffer"),
        (set_field(tensor, buffer=9999), "a tensor names a buffer"),
        (
            set_field(lambda m: operator(m, ADD), opcodeIndex=99),
            "an operator names an operator code",
        ),
        (set_field(lambda m: operator(m, ADD), inputs=[0, 9999]), "names a tensor"),
        (set_field(lambda m: operator(m, ADD), inputs=[0, -2]), "names a tensor"),
        (set_field(lambda m: m.signatureDefs[0].inputs[0], tensorIndex=9999), "names a tensor"),
        (set_field(lambda m: m.signatureDefs[0].inputs[0], name="mask"), "has a name twice"),
        (set_field(lambda m: m, subgraphs=[]), "no subgraph"),
        (set_field(lambda m: operator(m, ADD), inputs=[0] * 70_000), "more than 65536 entries"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_that_lead_nowhere_are_damage(
    model: bytes, change: Callable[[Any], None], told: str
) -> None:
    with pytest.raises(GruardError, match=f"damaged .*{told}.*convert again"):
        read_graph(edited(model, change), "model")


def test_notes_of_other_contents_are_not_let_through_to_the_interpreter(model: bytes) -> None:
    """It reads them unchecked: some of these end it with a segmentation fault."""

    def noted(name: bytes, data: bytes | None) -> bytes:
        def change(parsed: Any) -> None:
            note = next(note for note in parsed.metadata if note.name == name)
            parsed.buffers[note.buffer].data = data and np.frombuffer(data, np.uint8)

        return edited(model, change)

    objects = parsed(model)
    (place,) = [n.buffer for n in objects.metadata if n.name == b"CONVERSION_METADATA"]
    conversion = bytes(objects.buffers[place].data)
    odd = "or with odd contents"
    for name, data in [
        (b"min_runtime_version", None),
        (b"min_runtime_version", b"1.14.0\xff"),
        (b"CONVERSION_METADATA", None),
        (b"CONVERSION_METADATA", bytes(2000)),
    ]:
        graph = read_graph(noted(name, data), "model")
        assert any(odd in extra for extra in graph.extras), (name, data)
    for position in range(len(conversion)):
        harmed = bytearray(conversion)
        harmed[position] ^= 0xFF
        try:
            read_graph(noted(b"CONVERSION_METADATA", bytes(harmed)), "model")
        except GruardError as error:
            assert "damaged" in str(error)
    with pytest.raises(GruardError, match="damaged"):
        read_graph(noted(b"CONVERSION_METADATA", conversion[:40]), "model")


def test_a_name_that_is_not_utf_8_is_damage(model: bytes) -> None:
    name = read_graph(model, "model").tensors[0].name.encode()
    with pytest.raises(GruardError, match=r"damaged .*a text that is not UTF-8"):
        read_graph(model.replace(name, b"\xff" + name[1:]), "model")


def test_a_tensor_of_buffer_0_has_no_constant(model: bytes) -> None:
    def move(parsed: Any) -> None:
        operator_ = operator(parsed, 9)
        weights = parsed.subgraphs[0].tensors[operator_.inputs[1]]
        parsed.buffers[0].data, weights.buffer = parsed.buffers[weights.buffer].data, 0

    (found,) = graph_faults(read_graph(edited(model, move), "model"))[:1]
    assert "is neither constant nor a [1, n] row" in found


def test_a_name_that_can_not_be_printed_is_replaced(model: bytes) -> None:
    graph = read_graph(edited(model, set_field(tensor, name="a\x1b[2J\nb")), "model")
    assert graph.tensors[0].name == "a\ufffd[2J\ufffdb"
