"""The int8 graph as the C core's program: operators with integer factors, and their constants.

The struct of an operator is `gruard_operator` of the core's parts.h.

All values of the graph share one piece of memory, the arena. `Places` decides where each lies, so
that little is copied: the result of a SLICE is a part of its input's memory, and a CONCATENATION's
inputs are written right where the joined value lies; only what is joined twice has to be copied.

An ADD or SUB with a proven linear form becomes LINEAR, and one whose only reader is a function of
one value, such as TANH, becomes LINEAR_TABLE together with it.
"""

import struct
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np

from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary, GraphTensor
from edge_runtime.detector.kernels import KERNEL_ID
from edge_runtime.errors import GruardError
from edge_runtime.native import multiplier as factors
from edge_runtime.native.layout import ROWS, Layout
from edge_runtime.native.linear import Linear, parts_of
from edge_runtime.native.multiplier import NOTHING, Multiplier

KINDS = (
    "FULLY_CONNECTED", "ADD", "SUB", "MUL", "TABLE", "COPY", "CONSTANT", "LINEAR", "LINEAR_TABLE",
)  # fmt: skip
OPERATOR = struct.Struct("<8I10i")  # `gruard_operator` of the core
END, ABSENT = struct.Struct("<IIff"), 0xFFFFFFFF  # `gruard_end`, and its place where there is none
_LARGEST_SUM, _LARGEST_RESULT = 1 << 30, 1 << 15  # kernels double a sum
ALIGNMENT = 16  # bytes; vector units read rows at once
Scaling = tuple[Multiplier, Multiplier, Multiplier]  # of left, right and result


@dataclass(frozen=True)
class Program:
    """What the core runs. layout: of the weights. places: of each tensor in the arena, in bytes."""

    layout: int
    operators: tuple[bytes, ...] = ()
    places: Mapping[int, int] = field(default_factory=dict)
    arena: int = 0
    integers: tuple[int, ...] = ()  # biases
    constants: bytes = b""  # weights, tables, rows


def build_program(
    graph: GraphSummary, constants: Mapping[int, bytes], layout: Layout = ROWS
) -> Program:
    """Return the program of `graph`; constants: the bytes of each constant tensor.

    Raises GruardError when an operator's integers could overflow in the core.
    """
    return _Builder(graph, constants, layout).program()


class _Builder:
    """Translates the operators in their order."""

    def __init__(self, graph: GraphSummary, constants: Mapping[int, bytes], layout: Layout) -> None:
        self._constants, self._layout = constants, layout
        self._graph, self._tabled = _with_tabled_sums(graph)
        loaded = self._loaded()
        inner = {function.inputs[0] for function in self._tabled.values()}
        self._places = Places(self._graph, loaded, set(constants) - loaded | inner)
        self._bytes, self._integers = bytearray(), list[int]()
        self._operators: list[bytes] = []

    def program(self) -> Program:
        for index in sorted(self._loaded()):
            tensor = self._graph.tensors[index]
            at = self._keep(self._constants[index])
            self._add("CONSTANT", tensor.shape[1], self._places.at(index), constant=at)
        for operator in self._graph.operators:
            self._translate(operator)
        return Program(
            self._layout.number,
            tuple(self._operators),
            self._places.all(),
            self._places.size,
            tuple(self._integers),
            bytes(self._bytes),
        )

    def _loaded(self) -> set[int]:
        """Return constant rows that are operands, such as the zeros behind a short input."""
        used: set[int] = set()
        for operator in self._graph.operators:
            only_first = operator.name in ("FULLY_CONNECTED", "SLICE")
            used |= set(operator.inputs[:1] if only_first else operator.inputs)
        return used & set(self._constants)

    def _keep(self, values: bytes) -> int:
        """Return where `values` begin among the constants; equal ones are stored once."""
        at = self._bytes.find(values)
        if at >= 0 and at % ALIGNMENT == 0:
            return at
        self._bytes += bytes(-len(self._bytes) % ALIGNMENT)
        self._bytes += values
        return len(self._bytes) - len(values)

    def _translate(self, operator: GraphOperator) -> None:
        tensors = [self._graph.tensors[i] for i in operator.inputs if i >= 0]
        output = self._graph.tensors[operator.outputs[0]]
        match operator.name:
            case "FULLY_CONNECTED":
                self._product(operator, tensors, output)
            case "ADD" | "SUB":
                self._sum(operator.name, tensors[0], tensors[1], output)
            case "MUL":
                self._elementwise(tensors[0], tensors[1], output)
            case "CONCATENATION":
                self._concatenation(tensors, output)
            case "SLICE":
                pass
            case name:
                self._function(name, tensors[0], output)

    def _product(
        self, operator: GraphOperator, tensors: list[GraphTensor], output: GraphTensor
    ) -> None:
        row, weights = tensors[:2]
        matrix = np.frombuffer(self._constants[weights.index], np.int8).reshape(weights.shape)
        wide = matrix.astype(np.int64)
        bias = np.zeros(len(matrix), np.int64)
        if len(tensors) > 2:
            bias += np.frombuffer(self._constants[tensors[2].index], "<i4")
        bias -= (row.zero_points[0] + self._layout.offset) * wide.sum(axis=1)
        factor = factors.product_factor(row, weights, output)
        largest = int((np.abs(wide).sum(axis=1) * 255 + np.abs(bias)).max())
        rounding = 1 << max(-factor.shift, 8)  # of the last shift, or the zero point
        if (largest << max(factor.shift, 0)) + rounding >= _LARGEST_SUM:
            self._refuse(operator.name, output, "could overflow 32 bits in the C core")
        sums = int((np.abs(wide).sum(axis=1) * 128 + np.abs(bias)).max())
        if self._layout.refuses(sums, factor.shift):
            self._refuse(operator.name, output, "does not fit into the stream of this kernel")
        at, zero_point = len(self._integers), output.zero_points[0]
        if not self._layout.most:
            self._integers += bias.tolist()
        packed = self._layout.arrange(matrix, bias)
        self._add(
            "FULLY_CONNECTED", len(matrix),
            self._places.at(output.index), self._places.at(row.index),
            inputs=matrix.shape[1], constant=self._keep(packed), bias=at,
            zeros=(0, 0, zero_point), scaling=(NOTHING, NOTHING, factor),
            lowest=zero_point if operator.activation == "RELU" else -128,
        )  # fmt: skip

    def _sum(self, name: str, left: GraphTensor, right: GraphTensor, output: GraphTensor) -> None:
        function = self._tabled.get(output.index)
        total = self._graph.tensors[function.inputs[0]] if function else output
        kind, table = "LINEAR", 0
        if function:
            values = factors.function_table(function.name, total, output, vector=True)
            kind, table = "LINEAR_TABLE", self._keep(values)
        scaling = factors.sum_factors(left, right, total)
        if min(part.shift for part in scaling[:2]) < -factors.LEFT_SHIFT:
            self._refuse(name, total, "has an addend too small for the C core")
        self._check_narrow(name, total, _reach(left) + _reach(right))
        for part in parts_of(name, left, right, total):
            numbers = _packed_form(part.form) if part.form else scaling
            named = kind if part.form else name
            self._two(named, left, right, output, numbers, part.start, part.stop, table)

    def _elementwise(self, left: GraphTensor, right: GraphTensor, output: GraphTensor) -> None:
        factor = factors.elementwise_factor(left, right, output)
        self._check_narrow("MUL", output, _reach(left) * _reach(right))
        self._two("MUL", left, right, output, (NOTHING, NOTHING, factor), 0, output.shape[1])

    def _two(
        self,
        kind: str,
        left: GraphTensor,
        right: GraphTensor,
        output: GraphTensor,
        scaling: Scaling,
        start: int,
        stop: int,
        table: int = 0,
    ) -> None:
        """Add an operator for the values [start, stop) of both rows."""
        rows = left, right, output
        at = [self._places.at(tensor.index) + start for tensor in rows]
        linear = kind.startswith("LINEAR")  # its constant contains the zero points
        zeros = (0, 0, 0) if linear else tuple(tensor.zero_points[0] for tensor in rows)
        self._add(
            kind, stop - start, at[2], at[0], right=at[1], constant=table, zeros=zeros,
            scaling=scaling,
        )  # fmt: skip

    def _concatenation(self, tensors: list[GraphTensor], output: GraphTensor) -> None:
        at = self._places.at(output.index)
        for tensor in tensors:
            source = self._places.at(tensor.index)
            if source != at:
                self._add("COPY", tensor.shape[1], at, source)
            at += tensor.shape[1]

    def _function(self, name: str, source: GraphTensor, output: GraphTensor) -> None:
        if name in ("RELU", "QUANTIZE"):
            self._check_narrow(name, output, _reach(source))
        count = output.shape[1]
        places = self._places.at(output.index), self._places.at(source.index)
        whole = count // factors.VECTOR * factors.VECTOR
        tables = [factors.function_table(name, source, output, vector=v) for v in (True, False)]
        if tables[0] == tables[1]:
            whole = 0
        for table, start, stop in zip(tables, (0, whole), (whole, count), strict=True):
            if start < stop:
                out, left = (place + start for place in places)
                self._add("TABLE", stop - start, out, left, constant=self._keep(table))

    def _check_narrow(self, name: str, output: GraphTensor, largest: float) -> None:
        """Refuse results beyond 16 bits, which overflow in TFLite's vector code."""
        if largest / output.scales[0] + abs(output.zero_points[0]) + 1 >= _LARGEST_RESULT:
            self._refuse(name, output, "could leave 16 bits, where TFLite's own answer is wrong")

    def _refuse(self, name: str, output: GraphTensor, reason: str) -> NoReturn:
        raise GruardError(
            f"{name} to tensor {output.index} ({output.name[:60]}) {reason}; "
            f"run this bundle on {KERNEL_ID}"
        )

    def _add(
        self,
        kind: str,
        count: int,
        out: int,
        left: int = 0,
        right: int = 0,
        inputs: int = 0,
        constant: int = 0,
        bias: int = 0,
        zeros: tuple[int, ...] = (0, 0, 0),
        scaling: Scaling = (NOTHING, NOTHING, NOTHING),
        lowest: int = -128,
    ) -> None:
        values = (part.value for part in scaling)
        shifts = (part.shift for part in scaling)
        self._operators.append(
            OPERATOR.pack(
                KINDS.index(kind), count, out, left, right, inputs, constant, bias,
                *zeros, *values, *shifts, lowest,
            )
        )  # fmt: skip


def _packed_form(form: Linear) -> Scaling:
    return Multiplier(form.left, 0), Multiplier(form.right, 0), Multiplier(form.constant, 0)


def _with_tabled_sums(graph: GraphSummary) -> tuple[GraphSummary, dict[int, GraphOperator]]:
    """Join each ADD or SUB that has a linear form with a function that alone reads its result.

    Return the graph in which these sums give the function's results, and the functions by the
    index of their results.
    """
    readers = Counter(index for operator in graph.operators for index in operator.inputs)
    readers.update(graph.outputs.values())
    makers = {operator.outputs[0]: operator for operator in graph.operators}
    tabled = {
        function.outputs[0]: function
        for function in graph.operators
        if readers[function.inputs[0]] == 1
        and _is_tabled(graph, makers.get(function.inputs[0]), function)
    }
    joined = {function.inputs[0]: index for index, function in tabled.items()}
    operators = (
        replace(operator, outputs=(joined.get(operator.outputs[0], operator.outputs[0]),))
        for operator in graph.operators
        if operator.outputs[0] not in tabled
    )
    return replace(graph, operators=tuple(operators)), tabled


def _is_tabled(graph: GraphSummary, maker: GraphOperator | None, function: GraphOperator) -> bool:
    if maker is None or maker.name not in ("ADD", "SUB") or function.name not in factors.CURVES:
        return False
    left, right, total = (graph.tensors[index] for index in (*maker.inputs, *maker.outputs))
    return all(part.form for part in parts_of(maker.name, left, right, total))


def _reach(tensor: GraphTensor) -> float:
    """Return the largest magnitude that the tensor can hold."""
    zero_point = tensor.zero_points[0]
    return max(127 - zero_point, 128 + zero_point) * tensor.scales[0]


def ends(
    names: Iterable[str], tensors: Mapping[str, int], graph: GraphSummary, program: Program
) -> bytes:
    """Pack `gruard_end` (place, count, scale, zero point) for each of `names`, absent ones too."""
    packed = bytearray()
    for name in names:
        if name not in tensors:
            packed += END.pack(ABSENT, 0, 1.0, 0.0)
            continue
        tensor = graph.tensors[tensors[name]]
        packed += END.pack(
            program.places[tensor.index],
            tensor.shape[1],
            np.float32(tensor.scales[0]),
            tensor.zero_points[0],
        )
    return bytes(packed)


@dataclass(frozen=True)
class TensorLifetime:
    """A value of `size` bytes, from the operator `first` that writes it to its `last` reader."""

    size: int
    first: int
    last: int


def place(lives: Mapping[int, TensorLifetime]) -> tuple[dict[int, int], int]:
    """Return the place of each value, in bytes, and the size of the arena.

    Values that live at the same time never overlap. The largest are placed first, each in the
    lowest gap that is large enough.
    """
    placed: dict[int, int] = {}
    for key in sorted(lives, key=lambda k: (-lives[k].size, lives[k].first, k)):
        life = lives[key]
        others = (k for k in placed if _together(life, lives[k]))
        taken = sorted((placed[k], placed[k] + lives[k].size) for k in others)
        placed[key] = _lowest_gap(taken, life.size)
    size = max((at + lives[key].size for key, at in placed.items()), default=0)
    return placed, _aligned(size)


def _together(one: TensorLifetime, other: TensorLifetime) -> bool:
    return one.first <= other.last and other.first <= one.last


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _lowest_gap(taken: Iterable[tuple[int, int]], size: int) -> int:
    at = 0
    for start, end in taken:
        if at + size <= start:
            break
        at = max(at, _aligned(end))
    return at


class Places:
    """Places of the values of `graph` in the arena, which has `size` bytes.

    loaded: constant rows, which are in the arena from the start. absent: constants outside it.
    """

    def __init__(
        self, graph: GraphSummary, loaded: Collection[int], absent: Collection[int]
    ) -> None:
        self._graph, self._absent = graph, absent
        self._from_start = {*graph.inputs.values(), *loaded}
        # For each value the one whose memory it lies in, and where in it.
        self._home = {t.index: (t.index, 0) for t in graph.tensors}
        for operator in graph.operators:
            if operator.name == "SLICE":
                begin = graph.tensors[operator.inputs[1]].integers[1]
                self._home[operator.outputs[0]] = (operator.inputs[0], begin)
        for operator in graph.operators:
            if operator.name == "CONCATENATION":
                self._join(operator)
        self._placed, self.size = place(self._lives())

    def at(self, index: int) -> int:
        """Return where the value of tensor `index` begins, in bytes."""
        whole, offset = self._whole(index)
        return self._placed[whole] + offset

    def all(self) -> dict[int, int]:
        """Return where every value in the arena begins."""
        return {index: self.at(index) for index in self._home if index not in self._absent}

    def _join(self, operator: GraphOperator) -> None:
        offset, joined = 0, operator.outputs[0]
        for index in operator.inputs:
            if self._home[index] == (index, 0):  # it has no other place yet
                self._home[index] = (joined, offset)
            offset += self._graph.tensors[index].shape[1]

    def _whole(self, index: int) -> tuple[int, int]:
        """Return the value with its own place that contains `index`, and where in it."""
        home, offset = self._home[index]
        if home == index:
            return index, 0
        whole, further = self._whole(home)
        return whole, offset + further

    def _lives(self) -> dict[int, TensorLifetime]:
        lives: dict[int, TensorLifetime] = {}
        for index in (index for index in self._home if index not in self._absent):
            whole, _ = self._whole(index)
            size = self._graph.tensors[whole].shape[1]
            first = self._written(index)
            last = max(first, self._last_use(index))
            life = lives.get(whole, TensorLifetime(size, first, last))
            lives[whole] = TensorLifetime(size, min(life.first, first), max(life.last, last))
        return lives

    def _written(self, index: int) -> int:
        if index in self._from_start:
            return 0
        return next((i for i, o in enumerate(self._graph.operators) if index in o.outputs), 0)

    def _last_use(self, index: int) -> int:
        """Return the last operator that reads it; the host reads the outputs after all of them."""
        if index in self._graph.outputs.values():
            return len(self._graph.operators)
        return max((i for i, o in enumerate(self._graph.operators) if index in o.inputs), default=0)
