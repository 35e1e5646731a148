"""The rules for a graph that may run: a closed list of int8 operators, one step, no control flow.

The same rules refuse a conversion on the workstation and a foreign file on the device. They check,
in this order, the kind of graph, each tensor, the order of the operators, and how each operator is
used: version, number of inputs, fused activation, operands that fit together. The interpreter
checks part of this and aborts the process on another part. The rules allow what train's models
become on the workstation, measured over models of many shapes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary, GraphTensor

# The largest step that train can make has 130 tensors, 70 operators and rows of 800.
MOST_TENSORS, MOST_OPERATORS, WIDEST = 512, 512, 8192
# Scales of activations and weights, far beyond what a range in float32 comes to.
SMALLEST_SCALE, LARGEST_SCALE = 1e-12, 1e6
_WIDTHS = {"int8": 1, "int32": 4}  # bytes
_RANKS = {"int8": 2, "int32": 1}
_LEFT_OUT = -1  # index of an input that is left out
_SHOWN = 60  # characters of a name that go into a message
# One unit of an addend in units of the sum or difference. TFLite aborts from 2^19 on.
LARGEST_GAIN = 2.0**18
# Relative; both are rounded to float32. TFLite tolerates a fiftieth of the output's scale.
BIAS_SCALE_ERROR = 1e-6
_TABLE_SCALES = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}  # their whole range
# TFLite rounds a FULLY_CONNECTED of at least so many outputs and inputs in the same way on every
# processor. In a smaller one an exact half is rounded up on x86-64, away from zero on Arm.
FEWEST_OUTPUTS, FEWEST_INPUTS = 4, 8
# Inputs and outputs of the parts of a step, which has a gate, a GRU or both.
GATE_INPUTS = ("evidence", "magnitude", "difference", "mask", "guarded", "gate")
GATE_OUTPUTS = ("logit", "gate_next")
GRU_INPUTS = ("innovation", "forecast", "evidence", "mask")
GRU_OUTPUTS = ("correction",)
MOST_LAYERS = 16  # recurrent; train makes at most 3
_REASONS = {
    "WHILE": "the GRU became a loop: export one step, not a sequence layer",
    "IF": "control flow: export one step without branches",
    "DEQUANTIZE": "a float island: quantise the whole graph to int8",
}

Operands = Sequence[GraphTensor]


@dataclass(frozen=True)
class Usage:
    """How gruard uses an operator. misfit: returns what is expected of operands that do not fit."""

    versions: tuple[int, ...]
    fewest: int  # inputs
    most: int
    misfit: Callable[[Operands, GraphTensor], str]
    activations: tuple[str, ...] = ("NONE",)
    axis: int = 0


def graph_faults(graph: GraphSummary) -> list[str]:
    """Return reasons why `graph` is not a valid gruard step; empty if it is one.

    Coarse rules come first: operands are only checked in a graph of the right kind.
    """
    for rules in (_kind_faults, tensor_faults, order_faults, operator_faults):
        if faults := rules(graph):
            return faults
    return []


def _kind_faults(graph: GraphSummary) -> list[str]:
    """Return reasons why it is no int8 step at all."""
    faults = []
    if graph.subgraphs != 1:
        faults.append(f"{graph.subgraphs} subgraphs instead of 1: {_REASONS['WHILE']}")
    for operator in sorted({o.name for o in graph.operators} - ALLOWED_OPERATORS):
        faults.append(f"operator {operator} is not allowed: {_reason(operator)}")
    if floats := [t.name for t in graph.tensors if t.dtype not in ("int8", "int32")]:
        faults.append(
            f"{len(floats)} tensors are not int8 (first: {floats[0][:60]}): "
            "convert with full-integer quantisation"
        )
    faults += [f"{extra}: nothing that gruard writes; convert again" for extra in graph.extras]
    return faults + _rounding_faults(graph) + _signature_faults(graph)


def _reason(operator: str) -> str:
    if operator.startswith(("CUSTOM", "BUILTIN")):
        return "only TFLite's built-in " + ", ".join(sorted(ALLOWED_OPERATORS))
    return _REASONS.get(operator, "only " + ", ".join(sorted(ALLOWED_OPERATORS)))


def _rounding_faults(graph: GraphSummary) -> list[str]:
    """Find products whose last bit depends on the processor."""
    products = [o for o in graph.operators if o.name == "FULLY_CONNECTED"]
    weights = [o.inputs[1] if len(o.inputs) > 1 else -1 for o in products]
    shapes = [graph.tensors[index].shape if index >= 0 else () for index in weights]
    least = (FEWEST_OUTPUTS, FEWEST_INPUTS)
    small = [s for s in shapes if len(s) != 2 or s[0] < least[0] or s[1] < least[1]]
    if not small:
        return []
    return [
        f"{len(small)} FULLY_CONNECTED have less than {FEWEST_OUTPUTS} outputs or "
        f"{FEWEST_INPUTS} inputs (first: {list(small[0][:4])}), and x86-64 and Arm round these "
        "differently: pad their weights with zeros"
    ]


def _signature_faults(graph: GraphSummary) -> list[str]:
    layers = min(layer_count(graph.inputs), MOST_LAYERS)
    inputs, outputs = signature(layers, "logit" in graph.outputs)
    faults = []
    if not outputs:
        faults.append("neither a gate nor a GRU: not a gruard step")
    for side, wanted, names in (
        ("inputs", inputs, set(graph.inputs)),
        ("outputs", outputs, set(graph.outputs)),
    ):
        if wanted != names:
            faults.append(
                f"signature {side} differ: missing {_listed(wanted - names)}, "
                f"unknown {_listed(names - wanted)}: not a gruard step"
            )
    for name, index in {**graph.inputs, **graph.outputs}.items():
        tensor = graph.tensors[index]
        one_scale = len(tensor.scales) == len(tensor.zero_points) == 1
        if not one_scale or not is_row(tensor):
            faults.append(f"tensor {name[:60]} is not a [1, n] int8 tensor with one scale")
    return faults


def _listed(names: set[str]) -> list[str]:
    """Return the first of them; a foreign file may have thousands."""
    return [name[:60] for name in sorted(names)[:20]]


def signature(gru_layers: int, gated: bool) -> tuple[set[str], set[str]]:
    """Return the names of the inputs and outputs of a step with so many recurrent layers."""
    inputs, outputs = set[str](), set[str]()
    if gated:
        inputs, outputs = inputs.union(GATE_INPUTS), outputs.union(GATE_OUTPUTS)
    if gru_layers:
        inputs, outputs = inputs.union(GRU_INPUTS), outputs.union(GRU_OUTPUTS)
    layers = range(gru_layers)
    inputs |= {f"state_{i}" for i in layers}
    return inputs, outputs | {f"{part}_{i}" for part in ("update", "candidate") for i in layers}


def layer_count(inputs: dict[str, int]) -> int:
    """Return the number of recurrent layers, from the names of the state inputs."""
    return sum(name.startswith("state_") for name in inputs)


def tensor_faults(graph: GraphSummary) -> list[str]:
    """Return why tensors are not those of a gruard step, one reason for each that is not.

    Allowed are an int8 row, int8 weights and a short int32 constant. A constant's bytes must fit
    its shape, because the interpreter computes with the shape.
    """
    tensors, operators = len(graph.tensors), len(graph.operators)
    if tensors > MOST_TENSORS or operators > MOST_OPERATORS:
        return [
            f"{tensors} tensors and {operators} operators, more than any gruard step "
            f"({MOST_TENSORS} and {MOST_OPERATORS}): export one step"
        ]
    first = (next(_faults(tensor), None) for tensor in graph.tensors)
    return [fault for fault in first if fault]


def shown(tensor: GraphTensor) -> str:
    """Return the tensor's name for messages."""
    return f"tensor {tensor.index} ({tensor.name[:_SHOWN]})"


def is_row(tensor: GraphTensor) -> bool:
    """Whether `tensor` is [1, n] of int8: an activation, or a constant used as one."""
    return (
        tensor.dtype == "int8"
        and len(tensor.shape) == 2
        and tensor.shape[0] == 1 <= tensor.shape[1]
    )


def _faults(tensor: GraphTensor) -> Iterator[str]:
    name, shape = shown(tensor), tensor.shape
    if len(shape) != _RANKS[tensor.dtype] or not all(1 <= size <= WIDEST for size in shape):
        yield (
            f"{name} has the shape {list(shape[:4])}: {_RANKS[tensor.dtype]} dimensions of 1 to "
            f"{WIDEST} are expected; export one step"
        )
    wanted = math.prod(shape) * _WIDTHS[tensor.dtype]
    if tensor.constant_bytes not in (0, wanted):
        yield (
            f"{name} has {tensor.constant_bytes} bytes, its shape {list(shape)} needs {wanted}: "
            "truncated or edited; convert again"
        )
    if not tensor.constant_bytes and not is_row(tensor):
        yield f"{name} is neither constant nor a [1, n] row of int8: export one step for one sample"
    yield from _quantisation_faults(tensor, name)


def _quantisation_faults(tensor: GraphTensor, name: str) -> Iterator[str]:
    scales, zero_points = tensor.scales, tensor.zero_points
    int8 = tensor.dtype == "int8"
    if len(scales) != len(zero_points) or len(scales) > 1 or (int8 and not scales):
        yield (
            f"{name} has {len(scales)} scales and {len(zero_points)} zero points instead of one: "
            "quantise per tensor, not per channel"
        )
    # A bias has the product of two scales.
    smallest, largest = SMALLEST_SCALE, LARGEST_SCALE
    if not int8:
        smallest, largest = smallest**2, largest**2
    if not all(smallest <= scale <= largest for scale in scales):  # also false for NaN
        yield f"{name} has the scale {scales[0]:g}, which is no range of values: convert again"
    low, high = (-128, 127) if int8 else (0, 0)
    if not all(low <= zero_point <= high for zero_point in zero_points):
        yield f"{name} has the zero point {zero_points[0]}, not {low} to {high}: convert again"


def order_faults(graph: GraphSummary) -> list[str]:
    """Return why operators cannot run in the file's order, each after what it reads is written."""
    return [*_end_faults(graph), *_order_faults(graph)]


def _end_faults(graph: GraphSummary) -> Iterator[str]:
    for side, indices in (("input", graph.inputs), ("output", graph.outputs)):
        if len(set(indices.values())) < len(indices):
            yield f"one tensor is two {side}s of the graph: every name needs its own"
    written = {index for operator in graph.operators for index in operator.outputs}
    for name, index in graph.inputs.items():
        if graph.tensors[index].constant_bytes:
            yield f"input {name} is a constant: the host could not feed it"
    for name, index in graph.outputs.items():
        if index not in written:
            yield f"output {name} is written by no operator: convert again"


def _order_faults(graph: GraphSummary) -> Iterator[str]:
    constants = {tensor.index for tensor in graph.tensors if tensor.constant_bytes}
    ready = {_LEFT_OUT, *constants, *graph.inputs.values()}
    for number, operator in enumerate(graph.operators):
        for index in operator.inputs:
            if index not in ready:
                yield (
                    f"operator {number} {operator.name} reads {shown(graph.tensors[index])} before "
                    "it is written: put the operators into their order"
                )
        for index in operator.outputs:
            if index in ready:
                what = "nothing" if index == _LEFT_OUT else shown(graph.tensors[index])
                yield (
                    f"operator {number} {operator.name} writes {what}, which is an input, a "
                    "constant or already written: give every result a tensor of its own"
                )
            ready.add(index)


def operator_faults(graph: GraphSummary) -> list[str]:
    """Return the first reason for each operator that is not used as gruard uses it."""
    return [
        f"operator {number} {operator.name}{_writes(graph, operator)}: {reason}"
        for number, operator in enumerate(graph.operators)
        if (reason := _misuse(graph, operator))
    ]


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
    written = [graph.tensors[index] for index in operator.outputs[:1] if index >= 0]
    return f" to {shown(written[0])}" if written else ""


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
    # Version 3: one unit of the product is more than one unit of the result.
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

ALLOWED_OPERATORS = frozenset(USAGES)
