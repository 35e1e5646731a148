"""The int8 graph as the C core's program: operators with integer factors, and their constants.

The struct of an operator is `gruard_operator` of the core's parts.h.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary, GraphTensor
from edge_runtime.errors import GruardError
from edge_runtime.native import multiplier as factors
from edge_runtime.native.arena import ALIGNMENT, Life, place
from edge_runtime.native.layout import ROWS, Layout
from edge_runtime.native.multiplier import NOTHING, Multiplier

KINDS = ("FULLY_CONNECTED", "ADD", "SUB", "MUL", "TABLE", "COPY", "CONSTANT")
_OPERATOR = struct.Struct("<8I10i")
_LARGEST = 1 << 31


@dataclass(frozen=True)
class Program:
    """What the core runs. places: of each tensor in the arena, in bytes."""

    operators: tuple[bytes, ...]
    places: Mapping[int, int]
    arena: int
    integers: tuple[int, ...]  # biases
    constants: bytes  # weights, tables, rows


def build_program(
    graph: GraphSummary, constants: Mapping[int, bytes], layout: Layout = ROWS
) -> Program:
    """The program of `graph`; constants: the bytes of each constant tensor; layout: of weights.

    Raises GruardError when an operator's integers could overflow, which the core does not allow.
    """
    return _Builder(graph, constants, layout).program()


class _Builder:
    """One pass over the operators in their order."""

    def __init__(self, graph: GraphSummary, constants: Mapping[int, bytes], layout: Layout) -> None:
        self._graph, self._constants, self._layout = graph, constants, layout
        self._owner = {t.index: t.index for t in graph.tensors}
        self._offset = dict.fromkeys(self._owner, 0)
        for operator in graph.operators:
            if operator.name == "SLICE":  # a part of what it is cut from, not a copy
                whole, part = operator.inputs[0], operator.outputs[0]
                self._owner[part] = self._owner[whole]
                self._offset[part] = self._offset[whole] + self._begin(operator)
        self._places, self._arena = self._placed()
        self._bytes, self._integers = bytearray(), list[int]()
        self._operators: list[bytes] = []

    def program(self) -> Program:
        for index in sorted(self._loaded()):
            tensor = self._graph.tensors[index]
            at = self._keep(self._constants[index])
            self._add("CONSTANT", tensor.shape[1], self._at(index), constant=at)
        for operator in self._graph.operators:
            self._translate(operator)
        return Program(
            tuple(self._operators),
            {t.index: self._at(t.index) for t in self._graph.tensors if self._lives(t)},
            self._arena,
            tuple(self._integers),
            bytes(self._bytes),
        )

    def _begin(self, operator: GraphOperator) -> int:
        return self._graph.tensors[operator.inputs[1]].integers[1]

    def _loaded(self) -> set[int]:
        """Constant rows that are operands, such as the zeros behind a short input."""
        used: set[int] = set()
        for operator in self._graph.operators:
            if operator.name in ("FULLY_CONNECTED", "SLICE"):
                used |= {operator.inputs[0]} & set(self._constants)
            else:
                used |= set(operator.inputs) & set(self._constants)
        return used

    def _lives(self, tensor: GraphTensor) -> bool:
        return tensor.index not in self._constants or tensor.index in self._loaded()

    def _placed(self) -> tuple[dict[int, int], int]:
        """The place of each value, and how large the arena is."""
        lives: dict[int, Life] = {}
        from_start = {*self._graph.inputs.values(), *self._loaded()}
        for index in filter(self._owns, self._owner):
            first = 0 if index in from_start else self._written(index)
            parts = [part for part, owner in self._owner.items() if owner == index]
            last = max(first, *map(self._last_use, parts))
            lives[index] = Life(self._graph.tensors[index].shape[1], first, last)
        return place(lives)

    def _owns(self, index: int) -> bool:
        return self._owner[index] == index and self._lives(self._graph.tensors[index])

    def _last_use(self, index: int) -> int:
        """The operator that reads it last; the host reads the graph's outputs after all of them."""
        if index in self._graph.outputs.values():
            return len(self._graph.operators)
        return max((i for i, o in enumerate(self._graph.operators) if index in o.inputs), default=0)

    def _written(self, index: int) -> int:
        return next((i for i, o in enumerate(self._graph.operators) if index in o.outputs), 0)

    def _at(self, index: int) -> int:
        return self._places[self._owner[index]] + self._offset[index]

    def _keep(self, values: bytes) -> int:
        """Where `values` begin among the constants; equal ones are kept once."""
        found = self._bytes.find(values)
        if found >= 0 and found % ALIGNMENT == 0:
            return found
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
        self._check(operator.name, output, largest << max(factor.shift, 0))
        at, zero_point = len(self._integers), output.zero_points[0]
        self._integers += bias.tolist()
        self._add(
            "FULLY_CONNECTED", len(matrix), self._at(output.index), self._at(row.index),
            inputs=matrix.shape[1], constant=self._keep(self._layout.arrange(matrix)), bias=at,
            zeros=(0, 0, zero_point), scaling=(NOTHING, NOTHING, factor),
            lowest=zero_point if operator.activation == "RELU" else -128,
        )  # fmt: skip

    def _sum(self, name: str, left: GraphTensor, right: GraphTensor, output: GraphTensor) -> None:
        scaling = factors.sum_factors(left, right, output)
        self._check(name, output, (255 << factors.LEFT_SHIFT) << max(scaling[2].shift, 0))
        self._two(name, left, right, output, scaling)

    def _elementwise(self, left: GraphTensor, right: GraphTensor, output: GraphTensor) -> None:
        factor = factors.elementwise_factor(left, right, output)
        self._check("MUL", output, 255 * 255 << max(factor.shift, 0))
        self._two("MUL", left, right, output, (NOTHING, NOTHING, factor))

    def _two(
        self,
        name: str,
        left: GraphTensor,
        right: GraphTensor,
        output: GraphTensor,
        scaling: tuple[Multiplier, Multiplier, Multiplier],
    ) -> None:
        zeros = tuple(tensor.zero_points[0] for tensor in (left, right, output))
        self._add(
            name, output.shape[1], self._at(output.index), self._at(left.index),
            right=self._at(right.index), zeros=zeros, scaling=scaling,
        )  # fmt: skip

    def _concatenation(self, tensors: list[GraphTensor], output: GraphTensor) -> None:
        at = self._at(output.index)
        for tensor in tensors:
            self._add("COPY", tensor.shape[1], at, self._at(tensor.index))
            at += tensor.shape[1]

    def _function(self, name: str, source: GraphTensor, output: GraphTensor) -> None:
        table = self._keep(factors.function_table(name, source, output))
        place = self._at(output.index)
        self._add("TABLE", output.shape[1], place, self._at(source.index), constant=table)

    def _check(self, name: str, output: GraphTensor, largest: int) -> None:
        if largest >= _LARGEST:
            raise GruardError(
                f"{name} to tensor {output.index} ({output.name[:60]}) could overflow 32 bits in "
                "the C core; run this bundle on tflite-builtin"
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
        scaling: tuple[Multiplier, Multiplier, Multiplier] = (NOTHING, NOTHING, NOTHING),
        lowest: int = -128,
    ) -> None:
        values = (part.value for part in scaling)
        shifts = (part.shift for part in scaling)
        self._operators.append(
            _OPERATOR.pack(
                KINDS.index(kind), count, out, left, right, inputs, constant, bias,
                *zeros, *values, *shifts, lowest,
            )
        )  # fmt: skip


def ends(
    names: Iterable[str], tensors: Mapping[str, int], graph: GraphSummary, program: Program
) -> bytes:
    """`gruard_end` for each of `names`: place, count, scale and zero point; absent ones too."""
    packed = bytearray()
    for name in names:
        if name not in tensors:
            packed += struct.pack("<IIff", 0xFFFFFFFF, 0, 1.0, 0.0)
            continue
        tensor = graph.tensors[tensors[name]]
        packed += struct.pack(
            "<IIff",
            program.places[tensor.index],
            tensor.shape[1],
            np.float32(tensor.scales[0]),
            tensor.zero_points[0],
        )
    return bytes(packed)
