"""How gruard uses each operator: version, arity, fused activation, and operands that fit together.

The interpreter checks part of this and ends the process on another part. What is allowed is what
train's models become on the workstation, measured over models of shapes from all over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary, GraphTensor
from edge_runtime.bundle.tensor_rules import is_row, shown

# One unit of an addend in units of the sum or difference. TFLite ends the process from 2^19 on.
LARGEST_GAIN = 2.0**18
# Relative; both are rounded to float32. TFLite itself tolerates a fiftieth of the output's scale.
BIAS_SCALE_ERROR = 1e-6
_TABLE_SCALES = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}  # all of their range

Operands = Sequence[GraphTensor]


@dataclass(frozen=True)
class Usage:
    """How one operator is used. `misfit` says what is expected of its operands, if they fail."""

    versions: tuple[int, ...]
    fewest: int  # inputs
    most: int
    misfit: Callable[[Operands, GraphTensor], str]
    activations: tuple[str, ...] = ("NONE",)
    axis: int = 0


def operator_faults(graph: GraphSummary) -> list[str]:
    """Reasons why operators are not used as gruard uses them, the first of each."""
    found = []
    for number, operator in enumerate(graph.operators):
        reason = _misuse(graph, operator)
        if reason:
            found.append(f"operator {number} {operator.name}{_writes(graph, operator)}: {reason}")
    return found


def _misuse(graph: GraphSummary, operator: GraphOperator) -> str:
    usage = USAGES[operator.name]
    if operator.version not in usage.versions:
        allowed = " or ".join(map(str, usage.versions))
        return (
            f"version {operator.version} instead of {allowed}; "
            "convert with the TensorFlow of constraints.txt"
        )
    if not usage.fewest <= len(operator.inputs) <= usage.most or len(operator.outputs) != 1:
        return (
            f"{len(operator.inputs)} inputs and {len(operator.outputs)} outputs instead of "
            f"{usage.fewest} to {usage.most} and 1; convert again"
        )
    if operator.activation not in usage.activations:
        allowed = " or ".join(usage.activations)
        return f"fused activation {operator.activation} instead of {allowed}; convert again"
    if operator.axis != usage.axis:
        return f"axis {operator.axis} instead of {usage.axis}; convert again"
    # Only a bias may be left out.
    present = operator.inputs[:2] if operator.name == "FULLY_CONNECTED" else operator.inputs
    if min(present) < 0:
        return "an input is left out; convert again"
    inputs = [graph.tensors[index] for index in operator.inputs if index >= 0]
    expected = usage.misfit(inputs, graph.tensors[operator.outputs[0]])
    return f"{expected} expected; convert again" if expected else ""


def _writes(graph: GraphSummary, operator: GraphOperator) -> str:
    known = [graph.tensors[index] for index in operator.outputs[:1] if index >= 0]
    return f" to {shown(known[0])}" if known else ""


def _elementwise(inputs: Operands, output: GraphTensor) -> str:
    if not all(map(is_row, (*inputs, output))) or {t.shape for t in inputs} != {output.shape}:
        return "int8 rows [1, n] of one shape"
    return ""


def _sum(inputs: Operands, output: GraphTensor) -> str:
    if misfit := _elementwise(inputs, output):
        return misfit
    finest = max(tensor.scales[0] for tensor in inputs) / LARGEST_GAIN
    return f"a sum of a scale above {finest:g}" if output.scales[0] <= finest else ""


def _product(inputs: Operands, output: GraphTensor) -> str:
    if misfit := _elementwise(inputs, output):
        return misfit
    finest = inputs[0].scales[0] * inputs[1].scales[0] / LARGEST_GAIN
    return f"a product of a scale above {finest:g}" if output.scales[0] <= finest else ""


def _table(name: str) -> Callable[[Operands, GraphTensor], str]:
    scale, zero_point = _TABLE_SCALES[name]

    def misfit(inputs: Operands, output: GraphTensor) -> str:
        if (output.scales[0], output.zero_points[0]) != (scale, zero_point):
            return f"an output of scale {scale} and zero point {zero_point}"
        return _elementwise(inputs, output)

    return misfit


def _concatenation(inputs: Operands, output: GraphTensor) -> str:
    if not all(map(is_row, (*inputs, output))):
        return "int8 rows [1, n]"
    if sum(tensor.shape[1] for tensor in inputs) != output.shape[1]:
        return "an output as long as its inputs together"
    return _one_scale([*inputs, output])


def _slice(inputs: Operands, output: GraphTensor) -> str:
    row, begin, size = inputs
    if not is_row(row) or not is_row(output) or (len(begin.integers), len(size.integers)) != (2, 2):
        return "an int8 row [1, n], a constant begin and a constant size"
    first, width = begin.integers[1], size.integers[1]
    if begin.integers[0] != 0 or size.integers != output.shape:
        return "a begin of [0, i] and the output's shape as the size"
    if first < 0 or first + width > row.shape[1]:
        return "a part within its input"
    return _one_scale([row, output])


def _fully_connected(inputs: Operands, output: GraphTensor) -> str:
    row, weights = inputs[:2]
    if not is_row(row) or weights.dtype != "int8" or not weights.constant_bytes:
        return "an int8 row [1, n] and constant int8 weights"
    if row.shape[1] != weights.shape[1] or output.shape != (1, weights.shape[0]):
        return f"an input of {weights.shape[1]} and an output of {weights.shape[0]} for its weights"
    if weights.zero_points[0] != 0:
        return "weights of zero point 0"
    return _bias(inputs[2:], row, weights)


def _bias(bias: Operands, row: GraphTensor, weights: GraphTensor) -> str:
    scale = row.scales[0] * weights.scales[0]
    for tensor in bias:
        if tensor.dtype != "int32" or tensor.shape != weights.shape[:1] or not tensor.scales:
            return f"a constant int32 bias of {weights.shape[0]}"
        if abs(tensor.scales[0] - scale) > BIAS_SCALE_ERROR * scale:
            return f"a bias of the scale {scale:g}, input times weights,"
    return ""


def _one_scale(tensors: Operands) -> str:
    scalings = {(tensor.scales[0], tensor.zero_points[0]) for tensor in tensors}
    return "" if len(scalings) == 1 else "one scale and zero point for inputs and output"


USAGES = {
    "ADD": Usage((2,), 2, 2, _sum),
    "SUB": Usage((2,), 2, 2, _sum),
    # Version 3 is a product of which one unit is more than one of the result's.
    "MUL": Usage((2, 3), 2, 2, _product),
    "FULLY_CONNECTED": Usage((4,), 3, 3, _fully_connected, activations=("NONE", "RELU")),
    "CONCATENATION": Usage((2,), 2, 16, _concatenation, axis=1),
    "LOGISTIC": Usage((2,), 1, 1, _table("LOGISTIC")),
    "TANH": Usage((2,), 1, 1, _table("TANH")),
    "RELU": Usage((2,), 1, 1, _elementwise),
    "QUANTIZE": Usage((1,), 1, 1, _elementwise),
    "SLICE": Usage((2,), 3, 3, _slice),
}
"""How each of the allowed operators is used."""
