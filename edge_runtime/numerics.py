"""Float32 host arithmetic in one fixed order, so that C on a microcontroller gives the same bits.

Every sum runs from the first element to the last, every product is rounded before it is added, and
the only transcendental function is a table. Do not replace anything here by a BLAS call: its order
of summation and its fused multiply-adds differ between machines.
"""

import math

import numpy as np
import numpy.typing as npt

from edge_runtime.record import Float32

Int8 = npt.NDArray[np.int8]
Scale = np.float32 | Float32

LOG_TABLE_SIZE = 256
_MANTISSA_BITS = 23
_INDEX_SHIFT = _MANTISSA_BITS - 8
_FRACTION = np.float32(2.0**-_INDEX_SHIFT)
_WIDE = 32  # numbers in an element of a batch
_LN2 = np.float32(math.log(2.0))


def quantise(values: Float32, scale: Scale, zero_point: Scale) -> Int8:
    """Return int8 codes of float32 `values` (any shape): round half to even, clip to [-128, 127].

    The only quantise function of the project; `scale` and `zero_point` are float32, one for all or
    one per element. `saturations` counts the clipped values.
    """
    codes = np.rint(values / scale) + zero_point
    clipped: Int8 = np.minimum(np.maximum(codes, np.float32(-128)), np.float32(127)).astype(np.int8)
    return clipped


def dequantise(codes: Int8, scale: Scale, zero_point: Scale) -> Float32:
    """Return float32 values of int8 `codes` (any shape)."""
    values: Float32 = (codes.astype(np.float32) - zero_point) * scale
    return values


def saturations(values: Float32, scale: Scale, zero_point: Scale) -> int:
    """Count the `values` outside the int8 range with this scale."""
    codes = np.rint(values / scale) + zero_point
    return int(np.count_nonzero((codes < -128) | (codes > 127)))


def clip(values: Float32, bound: np.float32) -> Float32:
    """Clip `values` to ±`bound`, in a third of the time of numpy's clip on short vectors."""
    clipped: Float32 = np.minimum(np.maximum(values, -bound), bound)
    return clipped


def ordered_sum(values: Float32) -> np.float32:
    """Sum a vector strictly from first to last (numpy's sum is pairwise)."""
    total: np.float32 = np.add.accumulate(values)[-1]
    return total


def root(value: np.float32) -> np.float32:
    """Return the square root of one number >= 0, correctly rounded.

    numpy's for float32 is not: on 32-bit Arm the last bit of every third result is wrong.
    """
    return np.float32(math.sqrt(value))


def ordered_matvec(matrix: Float32, vector: Float32) -> Float32:
    """Multiply matrix [rows, columns, …] by vector [columns, …], each row summed first to last.

    Column by column gives the same bits, and is faster where an element is a whole batch.
    """
    if vector.ndim > 1 and vector[0].size >= _WIDE:
        total: Float32 = matrix[:, 0] * vector[0]
        for column in range(1, len(vector)):
            total += matrix[:, column] * vector[column]
        return total
    products: Float32 = matrix * vector
    result: Float32 = np.add.accumulate(products, axis=1)[:, -1]
    return result


def log_table() -> Float32:
    """Return the logarithm at 1, 1 + 1/256 … 2: float32 [257], the table behind `table_log`."""
    nodes = 1.0 + np.arange(LOG_TABLE_SIZE + 1, dtype=np.float64) / LOG_TABLE_SIZE
    table: Float32 = np.log(nodes).astype(np.float32)
    return table


def table_log(values: Float32, table: Float32) -> Float32:
    """Return the logarithm of finite `values` >= 1, linear between the 257 nodes of `table`.

    The error is below 2e-6 (half the squared node distance times the curvature at 1).
    """
    bits = values.view(np.int32)
    exponent = (bits >> _MANTISSA_BITS) - 127
    index = (bits >> _INDEX_SHIFT) & (LOG_TABLE_SIZE - 1)
    fraction = (bits & ((1 << _INDEX_SHIFT) - 1)).astype(np.float32) * _FRACTION
    low = table.take(index)
    within: Float32 = low + fraction * (table.take(index + 1) - low)
    return exponent.astype(np.float32) * _LN2 + within


def softplus_table(scale: float, zero_point: int) -> Float32:
    """Return log(1 + exp(-logit)) for each of the 256 codes of an int8 logit, lowest code first."""
    logits = (np.arange(-128, 128, dtype=np.float64) - zero_point) * float(np.float32(scale))
    return np.logaddexp(0.0, -logits).astype(np.float32)
