"""A small, bounds-checked reader of .tflite files: what is in the graph, before anything runs it.

The interpreter aborts the whole process on some damaged files, so the file is read here first.
`read_graph` summarises the file by TensorFlow Lite's public schema (`schema.fbs`, version 3). What
gruard never writes is not read but named (`GraphSummary.extras`), because the interpreter would
read it. The notes of TensorFlow's converter are checked, too.

`FlatTable` reads FlatBuffers (root offset, vtables) and checks every offset before following it,
as FlatBuffers' own verifier does; without that the interpreter trusts every offset. Anything
impossible raises MalformedError, which `read_graph` turns into a GruardError.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_runtime.errors import GruardError

# A gruard step has some 2,000 entries. A small file can refer to one table, or one long vector, a
# million times, so the entries that are read are bounded, not only the file.
MOST_ENTRIES = 1 << 16
_VTABLE_HEAD = 4  # bytes: its own size, then the table's
MOST_METADATA = 1024  # bytes
_VERSION_CHARACTERS = b"0123456789.\0"
_WIDTHS = {form: struct.calcsize("<" + form) for form in "bBhHiIqQf"}


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
    """One tensor: quantised if `scales` is not empty; `constant_bytes` > 0 for weights.

    integers: the numbers of a short int32 constant, else empty.
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
    """What the checks need of a .tflite file. extras: what gruard never writes, in words."""

    subgraphs: int
    tensors: tuple[GraphTensor, ...]
    operators: tuple[GraphOperator, ...]
    inputs: dict[str, int]  # signature name -> tensor index
    outputs: dict[str, int]
    extras: tuple[str, ...] = ()


NO_GRAPH = GraphSummary(0, (), (), {}, {})  # of a linear model, which is host arithmetic only


def read_graph(data: bytes, source: str) -> GraphSummary:
    """Summarise the .tflite file in `data`; GruardError naming `source` if it is none."""
    if data[4:8] != b"TFL3":
        raise GruardError(f"{source}: not a .tflite file (the identifier TFL3 is missing)")
    try:
        return _Reader(data).summary()
    except MalformedError as error:
        raise GruardError(f"{source}: damaged .tflite file ({error}); convert again") from None


def read_constants(data: bytes) -> dict[int, bytes]:
    """Return the bytes of every constant tensor, by index, of a file that `read_graph` accepted."""
    model = FlatTable(source := BoundedBytes(data), source.number(0, "I"))
    buffers, tensors = model.tables(4), model.tables(2)[0].tables(0)
    contents = (buffers[tensor.scalar(2, "I")].content(0) for tensor in tensors)
    return {index: content for index, content in enumerate(contents) if content}


class MalformedError(Exception):
    """The file is not what it claims to be; the text says why."""


class BoundedBytes:
    """The bytes of a file, and a limit on the entries that may be read."""

    def __init__(self, data: bytes) -> None:
        self.data, self._left = data, MOST_ENTRIES

    def numbers(self, position: int, form: str, count: int = 1) -> tuple[int, ...]:
        """Return `count` aligned little-endian numbers of the struct format `form`."""
        width = _WIDTHS[form]
        if position < 0 or position + count * width > len(self.data):
            raise MalformedError("offset outside the file")
        if position % width:
            raise MalformedError("a number that is not aligned")
        return struct.unpack_from(f"<{count}{form}", self.data, position)

    def number(self, position: int, form: str) -> int:
        """Return one number, as `numbers` does."""
        return self.numbers(position, form)[0]

    def spend(self, count: int) -> None:
        """Count entries about to be read."""
        self._left -= count
        if self._left < 0:
            raise MalformedError(f"more than {MOST_ENTRIES} entries, larger than any gruard step")


class FlatTable:
    """A table at an absolute position of `source`; an absent field reads as its default.

    Every method raises MalformedError when an offset leads out of the file.
    """

    def __init__(self, source: BoundedBytes, position: int) -> None:
        source.spend(1)
        self._source, self._position = source, position
        self._vtable = position - source.number(position, "i")
        size = source.number(self._vtable, "H")
        if size < _VTABLE_HEAD or size % 2:
            raise MalformedError("a vtable of impossible size")
        count = (size - _VTABLE_HEAD) // 2
        source.spend(count)
        self._offsets = source.numbers(self._vtable + _VTABLE_HEAD, "H", count)

    def present(self) -> Iterator[int]:
        """Return the numbers of the fields that are present."""
        return (field for field, offset in enumerate(self._offsets) if offset)

    def scalar(self, field: int, form: str, default: int = 0) -> int:
        """Return the number of the struct format `form`."""
        position = self._field(field)
        return self._source.number(position, form) if position else default

    def table(self, field: int) -> "FlatTable | None":
        """Return the table that the field refers to, or None if it is absent."""
        target = self._target(field)
        return FlatTable(self._source, target) if target else None

    def string(self, field: int) -> str:
        """Return the text, with unprintable characters replaced."""
        target = self._target(field)
        if not target:
            return ""
        data, length = self._source.data, self._source.number(target, "I")
        start, end = target + 4, target + 4 + length
        if data[end : end + 1] != b"\0":  # the interpreter reads C strings
            raise MalformedError("a text without its end, or an offset outside the file")
        self._source.spend(length // 8)
        try:
            text = data[start:end].decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedError("a text that is not UTF-8") from None
        return "".join(c if c.isprintable() else "\ufffd" for c in text)

    def length(self, field: int, form: str = "B") -> int:
        """Return the number of entries of the vector, all of them within the file."""
        target = self._target(field)
        if not target:
            return 0
        count = self._source.number(target, "I")
        if target + 4 + count * _WIDTHS[form] > len(self._source.data):
            raise MalformedError("offset outside the file")
        return count

    def vector(self, field: int, form: str, at_most: int | None = None) -> tuple[int, ...]:
        """Return the numbers of the vector; none if there are more than `at_most`."""
        count = self.length(field, form)
        if at_most is not None and count > at_most:
            return ()
        self._source.spend(count)
        return self._source.numbers(self._target(field) + 4, form, count) if count else ()

    def content(self, field: int, at_most: int | None = None) -> bytes:
        """Return the vector of bytes; empty if there are more than `at_most`."""
        target, count = self._target(field), self.length(field)
        if at_most is not None and count > at_most:
            return b""
        return self._source.data[target + 4 : target + 4 + count]

    def tables(self, field: int) -> list["FlatTable"]:
        """Return the tables of the vector."""
        offsets, start = self.vector(field, "I"), self._target(field) + 4
        return [FlatTable(self._source, start + 4 * i + offset) for i, offset in enumerate(offsets)]

    def _field(self, field: int) -> int:
        offset = self._offsets[field] if field < len(self._offsets) else 0
        return self._position + offset if offset else 0

    def _target(self, field: int) -> int:
        position = self._field(field)
        if not position:
            return 0
        offset = self._source.number(position, "I")
        if not offset:
            raise MalformedError("an offset that leads nowhere")
        return position + offset


def is_known_metadata(name: str, content: bytes) -> bool:
    """Whether gruard writes such a note, which the interpreter can read safely.

    Raises MalformedError when it is a table that leads out of its bytes.
    """
    if name == "min_runtime_version":
        return bool(content) and set(content) <= set(_VERSION_CHARACTERS)
    return name == "CONVERSION_METADATA" and bool(content) and _is_conversion(content)


def _is_conversion(content: bytes) -> bool:
    """Check a file within the file, of TensorFlow's `conversion_metadata.fbs`."""
    source = BoundedBytes(content)
    note = FlatTable(source, source.number(0, "I"))
    environment, options = note.table(0), note.table(1)
    if environment is None or options is None:
        return False
    environment.string(0)  # TensorFlow's version
    environment.scalar(1, "I")  # version of the converter's interface
    environment.scalar(2, "i")  # type of the model
    environment.scalar(3, "Q")  # hash of the model
    options.vector(0, "i")  # ways of optimising
    tables = (note, 2), (environment, 4), (options, 1)
    return all(set(table.present()) <= set(range(fields)) for table, fields in tables)


class _Reader:
    """Reads the file in one pass and notes what gruard never writes."""

    def __init__(self, data: bytes) -> None:
        source = BoundedBytes(data)
        self._extras: dict[str, None] = {}  # a set that keeps its order
        self._model = self._known("model", FlatTable(source, source.number(0, "I")))
        self._codes = [self._known("operator code", t) for t in self._model.tables(1)]
        self._buffers = [self._known("buffer", t) for t in self._model.tables(4)]

    def summary(self) -> GraphSummary:
        graphs = self._model.tables(2)
        if not graphs:
            raise MalformedError("no subgraph")
        graph = self._known("graph", graphs[0])
        tensors = tuple(self._tensor(i, table) for i, table in enumerate(graph.tables(0)))
        operators = tuple(self._operator(table) for table in graph.tables(3))
        if any(i >= len(tensors) or i < -1 for o in operators for i in (*o.inputs, *o.outputs)):
            raise MalformedError("an operator names a tensor that is not there")
        inputs, outputs = self._signature(len(tensors))
        self._compare("inputs", graph.vector(1, "i"), inputs)
        self._compare("outputs", graph.vector(2, "i"), outputs)
        graph.string(4)
        self._check_rest(operators)
        return GraphSummary(len(graphs), tensors, operators, inputs, outputs, tuple(self._extras))

    def _tensor(self, index: int, table: FlatTable) -> GraphTensor:
        self._known("tensor", table)
        quantization = table.table(4)
        if quantization:
            self._known("quantisation", quantization)
        dtype = TYPE_NAMES.get(code := table.scalar(1, "b"), f"type {code}")
        number = table.scalar(2, "I")
        buffer = self._at(self._buffers, number, "a tensor names a buffer")
        constant = buffer.length(0) if number else 0  # buffer 0 means "no buffer"
        few = buffer.content(0, _FEW_BYTES) if dtype == "int32" and constant else b""
        return GraphTensor(
            index=index,
            name=table.string(3),
            dtype=dtype,
            shape=table.vector(0, "i"),
            scales=quantization.vector(2, "f") if quantization else (),
            zero_points=quantization.vector(3, "q") if quantization else (),
            constant_bytes=constant,
            integers=struct.unpack(f"<{len(few) // 4}i", few[: len(few) // 4 * 4]),
        )

    def _operator(self, table: FlatTable) -> GraphOperator:
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

    def _entries(self, tables: Sequence[FlatTable], tensors: int) -> dict[str, int]:
        for table in tables:
            self._known("signature entry", table)
        entries = [(table.string(0), table.scalar(1, "I")) for table in tables]
        if any(index >= tensors for _, index in entries):
            raise MalformedError("the signature names a tensor that is not there")
        if len(entries) > len(dict(entries)):
            raise MalformedError("the signature has a name twice")
        return dict(entries)

    def _compare(self, side: str, indices: Sequence[int], signature: dict[str, int]) -> None:
        if sorted(indices) != sorted(signature.values()):
            self._extras[f"{side} of the graph that are not the signature's"] = None

    def _check_rest(self, operators: Sequence[GraphOperator]) -> None:
        """Check what the interpreter reads but no later check needs."""
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

    def _known(
        self, kind: str, table: FlatTable, fields: set[int | None] | None = None
    ) -> FlatTable:
        """Return `table` after noting the fields that gruard does not write."""
        for field in table.present():
            if field not in (_FIELDS[kind] if fields is None else fields):
                self._extras[f"field {field} of the schema in a table of kind {kind}"] = None
        return table

    @staticmethod
    def _at(tables: Sequence[FlatTable], index: int, what: str) -> FlatTable:
        if index >= len(tables):
            raise MalformedError(f"{what} that is not there")
        return tables[index]


def _operator_name(code: FlatTable) -> str:
    # Old files keep the code in a byte (field 0); newer ones in an int (field 3).
    number = max(code.scalar(0, "b"), code.scalar(3, "i"))
    custom = code.string(1)
    return f"CUSTOM {custom[:40]}" if custom else BUILTIN_NAMES.get(number, f"BUILTIN {number}")
