"""A small, bounds-checked reader of .tflite files: what is in the graph, before anything runs it.

The interpreter aborts the whole process on some damaged files, so the file is read here first.
Layout: TensorFlow Lite's public schema (`schema.fbs`, version 3). What gruard never writes is not
read but named (`GraphSummary.extras`), because the interpreter would read it.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.bundle.flatbuffer_metadata import MOST_METADATA, is_known_metadata
from edge_runtime.bundle.flatbuffer_table import DamagedError, Source, Table
from edge_runtime.errors import GruardError

BUILTIN_NAMES = {
    0: "ADD", 2: "CONCATENATION", 6: "DEQUANTIZE", 9: "FULLY_CONNECTED", 14: "LOGISTIC",
    18: "MUL", 19: "RELU", 22: "RESHAPE", 25: "SOFTMAX", 28: "TANH", 32: "CUSTOM", 41: "SUB",
    49: "SPLIT", 65: "SLICE", 114: "QUANTIZE", 117: "HARD_SWISH", 118: "IF", 119: "WHILE",
}  # fmt: skip
TYPE_NAMES = {0: "float32", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}
ACTIVATION_NAMES = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
SCHEMA_VERSION = 3
SIGNATURE_KEY = "serving_default"
# The fields of each table that gruard's files use, by their number in the schema.
_FIELDS = {
    "model": {0, 1, 2, 3, 4, 6, 7},  # version, codes, graphs, description, buffers, metadata, …
    "operator code": {0, 2, 3},  # code in a byte, version, code
    "graph": {0, 1, 2, 3, 4},  # tensors, inputs, outputs, operators, name
    "tensor": {0, 1, 2, 3, 4, 8},  # shape, type, buffer, name, quantisation, "has a rank"
    "quantisation": {2, 3},  # scales, zero points
    "operator": {0, 1, 2, 3, 4},  # code, inputs, outputs, type of options, options
    "buffer": {0},  # data
    "metadata": {0, 1},  # name, buffer
    "signature": {0, 1, 2},  # inputs, outputs, key
    "signature entry": {0, 1},  # name, tensor
}
# Options by operator: their type, then the fields for the fused activation and for the axis.
_OPTIONS = {
    "ADD": (11, 0, None),
    "CONCATENATION": (10, 1, 0),
    "FULLY_CONNECTED": (8, 0, None),
    "MUL": (21, 0, None),
    "SUB": (28, 0, None),
}
_NO_OPTIONS = (0, None, None)
_FEW_BYTES = 64  # constants up to this size are numbers to check, such as where a SLICE begins


@dataclass(frozen=True)
class GraphTensor:
    """One tensor: quantised when `scales` is not empty; `constant_bytes` > 0 for weights.

    integers: the numbers of a short constant of int32, else nothing.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    constant_bytes: int
    integers: tuple[int, ...] = ()


@dataclass(frozen=True)
class GraphOperator:
    """One operator with the indices of its tensors (-1: an optional input left out)."""

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    activation: str = "NONE"
    axis: int = 0


@dataclass(frozen=True)
class GraphSummary:
    """Everything the checks need to know of a .tflite file.

    extras: what else is in it and never in a file of gruard, in words.
    """

    subgraphs: int
    tensors: tuple[GraphTensor, ...]
    operators: tuple[GraphOperator, ...]
    inputs: dict[str, int]  # signature name -> tensor index
    outputs: dict[str, int]
    extras: tuple[str, ...] = ()


NO_GRAPH = GraphSummary(0, (), (), {}, {})  # a linear model: everything is host arithmetic


def read_graph(data: bytes, source: str) -> GraphSummary:
    """Summary of the .tflite file in `data`; GruardError naming `source` if it is not one."""
    if data[4:8] != b"TFL3":
        raise GruardError(f"{source}: not a .tflite file (the identifier TFL3 is missing)")
    try:
        return _Reader(data).summary()
    except DamagedError as error:
        raise GruardError(f"{source}: damaged .tflite file ({error}); convert again") from None


def read_constants(data: bytes) -> dict[int, bytes]:
    """The bytes of every constant tensor of a file that `read_graph` has read, by its index."""
    model = Table(source := Source(data), source.number(0, "I"))
    buffers, tensors = model.tables(4), model.tables(2)[0].tables(0)
    contents = (buffers[tensor.scalar(2, "I")].raw(0) for tensor in tensors)
    return {index: content for index, content in enumerate(contents) if content}


class _Reader:
    """One pass over the file, which notes on its way what is not gruard's."""

    def __init__(self, data: bytes) -> None:
        source = Source(data)
        self._extras: dict[str, None] = {}  # a set that keeps its order
        self._model = self._known("model", Table(source, source.number(0, "I")))
        self._codes = [self._known("operator code", t) for t in self._model.tables(1)]
        self._buffers = [self._known("buffer", t) for t in self._model.tables(4)]

    def summary(self) -> GraphSummary:
        graphs = self._model.tables(2)
        if not graphs:
            raise DamagedError("no subgraph")
        graph = self._known("graph", graphs[0])
        tensors = tuple(self._tensor(i, table) for i, table in enumerate(graph.tables(0)))
        operators = tuple(self._operator(table) for table in graph.tables(3))
        if any(i >= len(tensors) or i < -1 for o in operators for i in (*o.inputs, *o.outputs)):
            raise DamagedError("an operator names a tensor that is not there")
        inputs, outputs = self._signature(len(tensors))
        self._compare("inputs", graph.vector(1, "i"), inputs)
        self._compare("outputs", graph.vector(2, "i"), outputs)
        graph.string(4)
        self._check_rest(operators)
        return GraphSummary(len(graphs), tensors, operators, inputs, outputs, tuple(self._extras))

    def _tensor(self, index: int, table: Table) -> GraphTensor:
        self._known("tensor", table)
        quantization = table.table(4)
        if quantization:
            self._known("quantisation", quantization)
        dtype = TYPE_NAMES.get(code := table.scalar(1, "b"), f"type {code}")
        number = table.scalar(2, "I")
        buffer = self._at(self._buffers, number, "a tensor names a buffer")
        constant = buffer.length(0) if number else 0  # buffer 0 means "no buffer"
        few = dtype == "int32" and 0 < constant <= _FEW_BYTES
        return GraphTensor(
            index=index,
            name=table.string(3),
            dtype=dtype,
            shape=table.vector(0, "i"),
            scales=quantization.vector(2, "f") if quantization else (),
            zero_points=quantization.vector(3, "q") if quantization else (),
            constant_bytes=constant,
            integers=_integers(buffer.content(0, _FEW_BYTES)) if few else (),
        )

    def _operator(self, table: Table) -> GraphOperator:
        code = self._at(self._codes, table.scalar(0, "I"), "an operator names an operator code")
        self._known("operator", table)
        name = _operator_name(code)
        kind, fused, axis = _OPTIONS.get(name, _NO_OPTIONS)
        if table.scalar(3, "B") != kind:
            self._extras[f"options of another operator on {name}"] = None
        options = table.table(4)
        if options:
            self._known(f"options of {name}", options, {fused, axis})
        activation = options.scalar(fused, "b") if options and fused is not None else 0
        return GraphOperator(
            name=name,
            version=code.scalar(2, "i", 1),
            inputs=table.vector(1, "i"),
            outputs=table.vector(2, "i"),
            activation=ACTIVATION_NAMES.get(activation, f"activation {activation}"),
            axis=options.scalar(axis, "i") if options and axis is not None else 0,
        )

    def _signature(self, tensors: int) -> tuple[dict[str, int], dict[str, int]]:
        signatures = self._model.tables(7)
        if not signatures:
            return {}, {}
        if len(signatures) > 1:
            self._extras[f"{len(signatures)} signatures"] = None
        first = self._known("signature", signatures[0])
        if (key := first.string(2)) != SIGNATURE_KEY:
            self._extras[f"a signature of the name {key[:40]!r}"] = None
        return self._entries(first.tables(0), tensors), self._entries(first.tables(1), tensors)

    def _entries(self, tables: Sequence[Table], tensors: int) -> dict[str, int]:
        for table in tables:
            self._known("signature entry", table)
        entries = [(table.string(0), table.scalar(1, "I")) for table in tables]
        if any(index >= tensors for _, index in entries):
            raise DamagedError("the signature names a tensor that is not there")
        if len(entries) > len(dict(entries)):
            raise DamagedError("the signature has a name twice")
        return dict(entries)

    def _compare(self, side: str, found: Sequence[int], signature: dict[str, int]) -> None:
        if sorted(found) != sorted(signature.values()):
            self._extras[f"{side} of the graph that are not the signature's"] = None

    def _check_rest(self, operators: Sequence[GraphOperator]) -> None:
        """What no later check asks for but the interpreter reads."""
        if (version := self._model.scalar(0, "I")) != SCHEMA_VERSION:
            self._extras[f"version {version} of the file format"] = None
        self._model.string(3)
        used = {operator.name for operator in operators}
        for name in map(_operator_name, self._codes):
            if name not in used:
                self._extras[f"an operator code that nothing uses, {name}"] = None
        for table in self._model.tables(6):
            self._known("metadata", table)
            buffer = self._at(self._buffers, table.scalar(1, "I"), "metadata name a buffer")
            name = table.string(0)
            if not is_known_metadata(name, buffer.content(0, MOST_METADATA)):
                self._extras[f"metadata of the name {name[:40]!r} or with odd contents"] = None

    def _known(self, kind: str, table: Table, fields: set[int | None] | None = None) -> Table:
        """`table`, whose fields that gruard does not write are noted."""
        known = _FIELDS[kind] if fields is None else fields
        for field in table.present():
            if field not in known:
                self._extras[f"field {field} of the schema in a table of kind {kind}"] = None
        return table

    @staticmethod
    def _at(tables: Sequence[Table], index: int, what: str) -> Table:
        if index >= len(tables):
            raise DamagedError(f"{what} that is not there")
        return tables[index]


def _integers(content: bytes) -> tuple[int, ...]:
    count = len(content) // 4
    return struct.unpack(f"<{count}i", content[: 4 * count])


def _operator_name(code: Table) -> str:
    # Old files keep the code in a byte (field 0); newer ones in an int (field 3).
    number = max(code.scalar(0, "b"), code.scalar(3, "i"))
    custom = code.string(1)
    return f"CUSTOM {custom[:40]}" if custom else BUILTIN_NAMES.get(number, f"BUILTIN {number}")
