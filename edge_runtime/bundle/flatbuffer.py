"""A small, bounds-checked reader of .tflite files: what is in the graph, before anything runs it.

The interpreter aborts the whole process on some damaged files, so the file is read here first,
by plain offsets. Layout: FlatBuffers internals (root offset, vtables) and TensorFlow Lite's
public schema (`schema.fbs`, version 3), of which only the fields below are read.
"""

import struct
from dataclasses import dataclass

from edge_runtime.errors import GruardError

BUILTIN_NAMES = {
    0: "ADD", 2: "CONCATENATION", 6: "DEQUANTIZE", 9: "FULLY_CONNECTED", 14: "LOGISTIC",
    18: "MUL", 19: "RELU", 22: "RESHAPE", 25: "SOFTMAX", 28: "TANH", 32: "CUSTOM", 41: "SUB",
    49: "SPLIT", 65: "SLICE", 114: "QUANTIZE", 117: "HARD_SWISH", 118: "IF", 119: "WHILE",
}  # fmt: skip
TYPE_NAMES = {0: "float32", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}


@dataclass(frozen=True)
class GraphTensor:
    """One tensor: quantised when `scales` is not empty; `constant_bytes` > 0 for weights."""

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    constant_bytes: int


@dataclass(frozen=True)
class GraphOperator:
    """One operator with the indices of its tensors (-1: an optional input left out)."""

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class GraphSummary:
    """Everything the checks need to know of a .tflite file."""

    subgraphs: int
    tensors: tuple[GraphTensor, ...]
    operators: tuple[GraphOperator, ...]
    inputs: dict[str, int]  # signature name -> tensor index
    outputs: dict[str, int]


NO_GRAPH = GraphSummary(0, (), (), {}, {})  # a linear model: everything is host arithmetic


class _Table:
    """A FlatBuffers table at an absolute position of `data`."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position
        self.vtable = position - _unpack("<i", data, position)
        self.entries = (_unpack("<H", data, self.vtable) - 4) // 2

    def _field(self, field: int) -> int:
        if field >= self.entries:
            return 0
        offset = _unpack("<H", self.data, self.vtable + 4 + 2 * field)
        return self.position + offset if offset else 0

    def scalar(self, field: int, form: str, default: int = 0) -> int:
        position = self._field(field)
        return _unpack("<" + form, self.data, position) if position else default

    def _target(self, field: int) -> int:
        position = self._field(field)
        return position + _unpack("<I", self.data, position) if position else 0

    def table(self, field: int) -> "_Table | None":
        target = self._target(field)
        return _Table(self.data, target) if target else None

    def string(self, field: int) -> str:
        target = self._target(field)
        if not target:
            return ""
        length = _unpack("<I", self.data, target)
        return _slice(self.data, target + 4, length).decode("utf-8", "replace")

    def length(self, field: int) -> int:
        target = self._target(field)
        return _unpack("<I", self.data, target) if target else 0

    def vector(self, field: int, form: str) -> tuple:  # type: ignore[type-arg]
        target = self._target(field)
        if not target:
            return ()
        count = _unpack("<I", self.data, target)
        size = struct.calcsize("<" + form)
        return struct.unpack(f"<{count}{form}", _slice(self.data, target + 4, count * size))

    def tables(self, field: int) -> list["_Table"]:
        target = self._target(field)
        if not target:
            return []
        offsets = self.vector(field, "I")
        return [_Table(self.data, target + 4 + 4 * i + o) for i, o in enumerate(offsets)]


def _slice(data: bytes, start: int, length: int) -> bytes:
    if start < 0 or start + length > len(data):
        raise struct.error("offset outside the file")
    return data[start : start + length]


def _unpack(form: str, data: bytes, position: int) -> int:
    if position < 0:
        raise struct.error("offset outside the file")
    value: int = struct.unpack_from(form, data, position)[0]
    return value


def read_graph(data: bytes, source: str) -> GraphSummary:
    """Summary of the .tflite file in `data`; GruardError naming `source` if it is not one."""
    if data[4:8] != b"TFL3":
        raise GruardError(f"{source}: not a .tflite file (the identifier TFL3 is missing)")
    try:
        return _read(data)
    except (struct.error, IndexError, RecursionError, MemoryError) as error:
        raise GruardError(f"{source}: damaged .tflite file ({error}); convert again") from None


def _read(data: bytes) -> GraphSummary:
    model = _Table(data, _unpack("<I", data, 0))
    graphs, codes, buffers = model.tables(2), model.tables(1), model.tables(4)
    if not graphs:
        raise struct.error("no subgraph")
    graph = graphs[0]
    tensors = tuple(_tensor(i, t, buffers) for i, t in enumerate(graph.tables(0)))
    operators = tuple(_operator(table, codes) for table in graph.tables(3))
    if any(i >= len(tensors) or i < -1 for o in operators for i in (*o.inputs, *o.outputs)):
        raise struct.error("an operator names a tensor that is not there")
    signatures = model.tables(7)
    inputs = _signature(signatures[0], 0) if signatures else {}
    outputs = _signature(signatures[0], 1) if signatures else {}
    if any(i >= len(tensors) for i in (*inputs.values(), *outputs.values())):
        raise struct.error("the signature names a tensor that is not there")
    return GraphSummary(len(graphs), tensors, operators, inputs, outputs)


def _tensor(index: int, table: _Table, buffers: list[_Table]) -> GraphTensor:
    code = table.scalar(1, "b")
    quantization = table.table(4)
    return GraphTensor(
        index=index,
        name=table.string(3),
        dtype=TYPE_NAMES.get(code, f"type {code}"),
        shape=table.vector(0, "i"),
        scales=quantization.vector(2, "f") if quantization else (),
        zero_points=quantization.vector(3, "q") if quantization else (),
        constant_bytes=buffers[table.scalar(2, "I")].length(0),
    )


def _operator(table: _Table, codes: list[_Table]) -> GraphOperator:
    code = codes[table.scalar(0, "I")]
    # Old files keep the code in a byte (field 0); newer ones in an int (field 3).
    number = max(code.scalar(0, "b"), code.scalar(3, "i"))
    custom = code.string(1)
    name = f"CUSTOM {custom}" if custom else BUILTIN_NAMES.get(number, f"BUILTIN {number}")
    return GraphOperator(name, code.scalar(2, "i", 1), table.vector(1, "i"), table.vector(2, "i"))


def _signature(table: _Table, field: int) -> dict[str, int]:
    return {entry.string(0): entry.scalar(1, "I") for entry in table.tables(field)}
