"""What each tensor of a gruard step is: an int8 row, int8 weights, or a short int32 constant.

The bytes of a constant are counted against its shape, because the interpreter computes with the
shape, and a scale must be one that integer arithmetic can be made of.
"""

import math
from collections.abc import Iterator

from edge_runtime.bundle.flatbuffer import GraphSummary, GraphTensor

# The largest step that train can make has 130 tensors, 70 operators and rows of 800.
MOST_TENSORS, MOST_OPERATORS, WIDEST = 512, 512, 8192
# Scales of activations and weights, far beyond what a range in float32 comes to.
SMALLEST_SCALE, LARGEST_SCALE = 1e-12, 1e6
_WIDTHS = {"int8": 1, "int32": 4}  # bytes
_RANKS = {"int8": 2, "int32": 1}
_SHOWN = 60  # characters of a name that go into a message


def tensor_faults(graph: GraphSummary) -> list[str]:
    """Reasons why the tensors are not those of a gruard step, one for each that is not."""
    sizes = (len(graph.tensors), MOST_TENSORS), (len(graph.operators), MOST_OPERATORS)
    if any(found > most for found, most in sizes):
        return [
            f"{sizes[0][0]} tensors and {sizes[1][0]} operators, more than any gruard step "
            f"({MOST_TENSORS} and {MOST_OPERATORS}): export one step"
        ]
    first = (next(_faults(tensor), None) for tensor in graph.tensors)
    return [fault for fault in first if fault]


def shown(tensor: GraphTensor) -> str:
    """The tensor as messages name it."""
    return f"tensor {tensor.index} ({tensor.name[:_SHOWN]})"


def is_row(tensor: GraphTensor) -> bool:
    """Whether it is [1, n] of int8: an activation, or a constant that is used as one."""
    return tensor.dtype == "int8" and len(tensor.shape) == 2 and tensor.shape[0] == 1


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
    smallest, largest = (SMALLEST_SCALE, LARGEST_SCALE)
    if not int8:
        smallest, largest = smallest**2, largest**2
    if not all(smallest <= scale <= largest for scale in scales):  # also false for NaN
        yield f"{name} has the scale {scales[0]:g}, which is no range of values: convert again"
    low, high = (-128, 127) if int8 else (0, 0)
    if not all(low <= zero_point <= high for zero_point in zero_points):
        yield f"{name} has the zero point {zero_points[0]}, not {low} to {high}: convert again"
