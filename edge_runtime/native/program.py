"""The int8 graph as the C core's program: operators with integer factors, and their constants.

The struct of an operator is `gruard_operator` of the core's parts.h.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary, GraphTensor
from edge_runtime.detector.kernels import KERNEL_ID
from edge_runtime.errors import GruardError
from edge_runtime.native import multiplier as factors
from edge_runtime.native.arena import ALIGNMENT
from edge_runtime.native.layout import ROWS, Layout
from edge_runtime.native.multiplier import NOTHING, Multiplier
from edge_runtime.native.places import Places

KINDS = ("FULLY_CONNECTED", "ADD", "SUB", "MUL", "TABLE", "COPY", "CONSTANT")
OPERATOR = struct.Struct("<8I10i")  # `gruard_operator` of the core
END, ABSENT = struct.Struct("<IIff"), 0xFFFFFFFF  # `gruard_end`, and its place where there is none
_LARGEST, _LARGEST_RESULT = 1 << 31, 1 << 15


@dataclass(frozen=True)
class Program:
    """What the core runs.

    layout: number of the weights' layout. places: of each tensor in the arena, in bytes.
    """

    layout: int
    operators: tuple[bytes, ...] = ()
    places: Mapping[int, int] = field(default_factory=dict)
    arena: int = 0
    integers: tuple[int, ...] = ()  # biases
    constants: bytes = b""  # weights, tables, rows


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
        loaded = self._loaded()
        self._places = Places(graph, loaded, set(constants) - loaded)
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
        """Constant rows that are operands, such as the zeros behind a short input."""
        used: set[int] = set()
        for operator in self._graph.operators:
            if operator.name in ("FULLY_CONNECTED", "SLICE"):
                used |= {operator.inputs[0]} & set(self._constants)
            else:
                used |= set(operator.inputs) & set(self._constants)
        return used

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
        rounding = 1 << max(-factor.shift, 8)  # of the last shift, or the zero point
        if (largest << max(factor.shift, 0)) + rounding >= _LARGEST:
            self._refuse(operator.name, output, "could overflow 32 bits in the C core")
        at, zero_point = len(self._integers), output.zero_points[0]
        self._integers += bias.tolist()
        self._add(
            "FULLY_CONNECTED", len(matrix),
            self._places.at(output.index), self._places.at(row.index),
            inputs=matrix.shape[1], constant=self._keep(self._layout.arrange(matrix)), bias=at,
            zeros=(0, 0, zero_point), scaling=(NOTHING, NOTHING, factor),
            lowest=zero_point if operator.activation == "RELU" else -128,
        )  # fmt: skip

    def _sum(self, name: str, left: GraphTensor, right: GraphTensor, output: GraphTensor) -> None:
        scaling = factors.sum_factors(left, right, output)
        if min(part.shift for part in scaling[:2]) < -factors.LEFT_SHIFT:
            self._refuse(name, output, "has an addend too small for the C core")
        self._check_narrow(name, output, _reach(left) + _reach(right))
        self._two(name, left, right, output, scaling)

    def _elementwise(self, left: GraphTensor, right: GraphTensor, output: GraphTensor) -> None:
        factor = factors.elementwise_factor(left, right, output)
        self._check_narrow("MUL", output, _reach(left) * _reach(right))
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
            name, output.shape[1], self._places.at(output.index), self._places.at(left.index),
            right=self._places.at(right.index), zeros=zeros, scaling=scaling,
        )  # fmt: skip

    def _concatenation(self, tensors: list[GraphTensor], output: GraphTensor) -> None:
        at = self._places.at(output.index)
        for tensor in tensors:
            found = self._places.at(tensor.index)
            if found != at:
                self._add("COPY", tensor.shape[1], at, found)
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
        """TFLite's vector code has 16 bits for a result, and beyond them another sign."""
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
        scaling: tuple[Multiplier, Multiplier, Multiplier] = (NOTHING, NOTHING, NOTHING),
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


def _reach(tensor: GraphTensor) -> float:
    """The largest value that it can hold, of either sign."""
    zero_point = tensor.zero_points[0]
    return max(127 - zero_point, 128 + zero_point) * tensor.scales[0]


def ends(
    names: Iterable[str], tensors: Mapping[str, int], graph: GraphSummary, program: Program
) -> bytes:
    """`gruard_end` for each of `names`: place, count, scale and zero point; absent ones too."""
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
