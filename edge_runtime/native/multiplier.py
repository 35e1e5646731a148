"""TFLite's integer factors and tables, computed in the same order of float operations.

Formulas: tensorflow/lite/kernels (`fully_connected`, `add`, `sub`, `mul`, `quantize`,
`activations`) and `QuantizeMultiplier` of kernels/internal/quantization_util of TensorFlow 2.14.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_runtime.bundle.flatbuffer import GraphTensor

LEFT_SHIFT = 20  # bits by which both addends are shifted to the left
VECTOR = 16  # size of a group in TFLite's vector code; the rest is rounded differently
CURVES = ("LOGISTIC", "TANH")
"""Functions whose table is the same for every value of a row."""
_CODES = range(-128, 128)


@dataclass(frozen=True)
class Multiplier:
    """`value * 2^(shift - 31)`: value in [2^30, 2^31), or 0."""

    value: int
    shift: int


NOTHING = Multiplier(0, 0)


def multiplier(factor: float) -> Multiplier:
    """Return the integer form of a factor >= 0."""
    if factor == 0:
        return NOTHING
    fraction, shift = math.frexp(factor)
    value = math.floor(fraction * (1 << 31) + 0.5)
    if value == 1 << 31:
        value, shift = value // 2, shift + 1
    return NOTHING if shift < -31 else Multiplier(value, shift)


def product_factor(row: GraphTensor, weights: GraphTensor, output: GraphTensor) -> Multiplier:
    """Return the factor of FULLY_CONNECTED: input times weights, in units of the output."""
    product = float(_scale(row) * _scale(weights))
    return multiplier(product / float(_scale(output)))


def sum_factors(
    left: GraphTensor, right: GraphTensor, output: GraphTensor
) -> tuple[Multiplier, Multiplier, Multiplier]:
    """Return the factors of ADD and SUB: left, right, and the sum."""
    largest = 2 * float(max(_scale(left), _scale(right)))
    total = largest / ((1 << LEFT_SHIFT) * float(_scale(output)))
    return (
        multiplier(float(_scale(left)) / largest),
        multiplier(float(_scale(right)) / largest),
        multiplier(total),
    )


def elementwise_factor(left: GraphTensor, right: GraphTensor, output: GraphTensor) -> Multiplier:
    """Return the factor of MUL, computed in float32."""
    return multiplier(float(_scale(left) * _scale(right) / _scale(output)))


@functools.lru_cache(maxsize=64)  # a process packs one bundle for its model and its fallback
def function_table(name: str, source: GraphTensor, output: GraphTensor, vector: bool) -> bytes:
    """Return the 256 int8 results of a unary operator, lowest code first.

    vector: for whole groups (`VECTOR`), where QUANTIZE rounds ties upward.
    """
    results = {
        "LOGISTIC": lambda: _transformed(_logistic, source, output),
        "TANH": lambda: _transformed(np.tanh, source, output),
        "RELU": lambda: _rescaled(
            float(_scale(source) / _scale(output)), source, output, relu=True
        ),
        "QUANTIZE": lambda: _rescaled(
            float(_scale(source)) / float(_scale(output)), source, output, upward=vector
        ),
    }[name]()
    return np.array(results, np.int8).tobytes()


def _transformed(
    function: Callable[[np.float32], np.float32], source: GraphTensor, output: GraphTensor
) -> list[int]:
    inverse = np.float32(1) / _scale(output)
    results = []
    for code in _CODES:
        value = function(_scale(source) * np.float32(code - source.zero_points[0]))
        scaled = float(np.float32(value) * inverse)
        rounded = math.floor(abs(scaled) + 0.5) * (1 if scaled >= 0 else -1)
        results.append(_narrow(rounded + output.zero_points[0], -128))
    return results


def _logistic(value: np.float32) -> np.float32:
    # Correctly rounded, whatever the library's float32 exp does; beyond 88 the result is 0 anyway.
    power = np.float32(math.exp(-float(value)) if value > -88 else np.inf)
    return np.float32(1) / (np.float32(1) + power)


def _rescaled(
    factor: float,
    source: GraphTensor,
    output: GraphTensor,
    relu: bool = False,
    upward: bool = False,
) -> list[int]:
    scale, zero_point = multiplier(factor), output.zero_points[0]
    lowest = zero_point if relu else -128
    values = (scaled(code - source.zero_points[0], scale, upward) for code in _CODES)
    return [_narrow(value + zero_point, lowest) for value in values]


def scaled(value: int, factor: Multiplier, upward: bool) -> int:
    """Compute `MultiplyByQuantizedMultiplier`: two roundings, the last with ties away from zero.

    upward: ties go upward instead, as in the vector code.
    """
    left, right = max(factor.shift, 0), max(-factor.shift, 0)
    high = ((value << left) * factor.value + (1 << 30)) >> 31
    if right == 0:
        return high
    return (high - (high < 0 and not upward) + (1 << (right - 1))) >> right


def _narrow(code: int, lowest: int) -> int:
    return max(lowest, min(127, code))


def _scale(tensor: GraphTensor) -> np.float32:
    return np.float32(tensor.scales[0])
