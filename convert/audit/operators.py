"""List the contents of a .tflite file by operator, and the memory it needs. No file is run."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary, GraphTensor

ITEM_BYTES = {"int8": 1, "uint8": 1, "bool": 1, "int16": 2, "int32": 4, "float32": 4, "int64": 8}
ALIGNMENT = 16  # of tensors in an arena, as TensorFlow Lite Micro places them


@dataclass(frozen=True)
class TensorFacts:
    """One operand or result. scaling: none, per tensor, per channel. constant: bytes, or 0."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scaling: str
    scale: float | None  # of the first channel
    zero_point: int | None
    constant: int


@dataclass(frozen=True)
class OperatorFacts:
    """One operator. macs: multiplications and additions of FULLY_CONNECTED, 0 for all others."""

    name: str
    version: int
    activation: str  # fused into it
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    macs: int


@dataclass(frozen=True)
class Totals:
    """parameters: numbers in constant tensors. arena: estimated bytes of all other tensors."""

    file_bytes: int
    parameters: int
    parameter_bytes: int
    macs: int
    arena_bytes: int


@dataclass(frozen=True)
class Audit:
    """The facts of one file."""

    subgraphs: int
    operators: tuple[OperatorFacts, ...]
    totals: Totals

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON."""
        return asdict(self)


def audit(model: bytes, graph: GraphSummary) -> Audit:
    """Collect the facts of the file `model`, whose first subgraph is `graph`."""
    activations = _activations(model)
    operators = tuple(
        _operator(operator, graph.tensors, activation)
        for operator, activation in zip(graph.operators, activations, strict=True)
    )
    constants = [tensor for tensor in graph.tensors if tensor.constant_bytes]
    totals = Totals(
        file_bytes=len(model),
        parameters=sum(_size(tensor) for tensor in constants),
        parameter_bytes=sum(tensor.constant_bytes for tensor in constants),
        macs=sum(operator.macs for operator in operators),
        arena_bytes=arena_bytes(graph),
    )
    return Audit(graph.subgraphs, operators, totals)


def arena_bytes(graph: GraphSummary) -> int:
    """Estimate the memory of the tensors that are not constant, in bytes.

    A tensor is in use from the operator that writes it to the last one that reads it. The largest
    is placed first, at the lowest address that is free during its whole use, as TensorFlow Lite
    Micro's greedy planner does. The interpreter's own memory is not included.
    """
    lives = _lives(graph)
    placed: list[tuple[int, int, int, int]] = []  # start, end, first, last
    for index in sorted(lives, key=lambda i: (-_bytes(graph.tensors[i]), i)):
        first, last = lives[index]
        size = -(-_bytes(graph.tensors[index]) // ALIGNMENT) * ALIGNMENT
        start = 0
        for other, end, begins, ends in sorted(placed):
            if begins <= last and first <= ends and other < start + size:
                start = max(start, end)
        placed.append((start, start + size, first, last))
    return max((end for _, end, _, _ in placed), default=0)


def _lives(graph: GraphSummary) -> dict[int, tuple[int, int]]:
    """Return first and last operator of each tensor that is not constant; outputs stay in use."""
    end = len(graph.operators)
    lives: dict[int, tuple[int, int]] = dict.fromkeys(graph.inputs.values(), (0, 0))
    for number, operator in enumerate(graph.operators):
        for index in (*operator.outputs, *operator.inputs):
            if index >= 0 and not graph.tensors[index].constant_bytes:
                first, _ = lives.get(index, (number, number))
                lives[index] = (first, number)
    for index in graph.outputs.values():
        if index in lives:
            lives[index] = (lives[index][0], end)
    return lives


def _operator(
    operator: GraphOperator, tensors: Sequence[GraphTensor], activation: str
) -> OperatorFacts:
    macs = 0
    if operator.name == "FULLY_CONNECTED" and len(operator.inputs) > 1:
        rows = _size(tensors[operator.inputs[0]]) // max(tensors[operator.inputs[1]].shape[-1], 1)
        macs = rows * _size(tensors[operator.inputs[1]])
    return OperatorFacts(
        operator.name,
        operator.version,
        activation,
        _tensors(operator.inputs, tensors),
        _tensors(operator.outputs, tensors),
        macs,
    )


def _tensors(indices: Iterable[int], tensors: Sequence[GraphTensor]) -> tuple[TensorFacts, ...]:
    return tuple(_tensor(tensors[index]) for index in indices if index >= 0)


def _tensor(tensor: GraphTensor) -> TensorFacts:
    scaling = {0: "none", 1: "per tensor"}.get(len(tensor.scales), "per channel")
    return TensorFacts(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        scaling=scaling,
        scale=tensor.scales[0] if tensor.scales else None,
        zero_point=tensor.zero_points[0] if tensor.zero_points else None,
        constant=tensor.constant_bytes,
    )


def _activations(model: bytes) -> list[str]:
    """Return the name of the activation fused into each operator of the first subgraph."""
    from tensorflow.lite.python import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.ActivationFunctionType).items()}
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    activations = []
    for operator in parsed.subgraphs[0].operators or ():
        code = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        activations.append(str(names.get(code, code)))
    return activations


def _size(tensor: GraphTensor) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64))


def _bytes(tensor: GraphTensor) -> int:
    return _size(tensor) * ITEM_BYTES.get(tensor.dtype, 4)
