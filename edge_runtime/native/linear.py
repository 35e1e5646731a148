"""ADD and SUB as one linear form of both codes, proven for every pair of them.

TFLite scales and rounds both addends and then their sum. For most scales integers exist that give
the same codes by `clip((left * a + right * b + constant) >> SHIFT)`. A form is returned only if all
65,536 pairs of codes agree; without one the core computes the operator as TFLite does.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.flatbuffer import GraphTensor
from edge_runtime.native.multiplier import LEFT_SHIFT, VECTOR, Multiplier, sum_factors

LINEAR_SHIFT = 21  # bits of the fraction; more would overflow, fewer find a form less often
LINEAR_LIMIT = (1 << 31) - (1 << LINEAR_SHIFT)
"""Magnitude that no sum reaches: kernels may add a rounding of up to half a code."""
_NEIGHBOURS = 2  # factors are tried so many units around the rounded ones
_CODES = np.arange(-128, 128, dtype=np.int64)
Wide = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Linear:
    """The integers of the form; `left` and `right` are factors of the codes."""

    left: int
    right: int
    constant: int


@dataclass(frozen=True)
class SumPart:
    """Values [start, stop) of a row, and their form; None: as TFLite computes them."""

    start: int
    stop: int
    form: Linear | None


def parts_of(
    name: str, left: GraphTensor, right: GraphTensor, output: GraphTensor
) -> tuple[SumPart, ...]:
    """Return the parts of the row that ADD or SUB computes in different ways.

    TFLite's ADD rounds an addend once in whole groups (`VECTOR`), else twice; SUB always twice.
    """
    count = output.shape[1]
    whole = count // VECTOR * VECTOR if name == "ADD" else 0
    spans = ((0, whole, True), (whole, count, False))
    parts = tuple(
        SumPart(start, stop, linear_form(name, left, right, output, once))
        for start, stop, once in spans
        if start < stop
    )
    form = parts[0].form
    same = form is not None and all(part.form == form for part in parts)
    return (SumPart(0, count, form),) if same else parts


@functools.lru_cache(maxsize=256)  # a process packs one bundle for its model and its fallback
def linear_form(
    name: str, left: GraphTensor, right: GraphTensor, output: GraphTensor, once: bool
) -> Linear | None:
    """Return the form of ADD or SUB, or None where none was found.

    once: an addend is rounded once.
    """
    sign = 1 if name == "ADD" else -1
    ratios = left.scales[0] / output.scales[0], sign * right.scales[0] / output.scales[0]
    shifts = (factor.shift for factor in sum_factors(left, right, output)[:2])
    if max(map(abs, ratios)) >= LINEAR_LIMIT >> LINEAR_SHIFT or min(shifts) < -LEFT_SHIFT:
        return None
    codes = exact_codes(sign, left, right, output, once)
    zeros = left.zero_points[0], right.zero_points[0]
    middle = output.zero_points[0] + 0.5 - ratios[0] * zeros[0] - ratios[1] * zeros[1]
    for factors in _near(*(round(ratio * (1 << LINEAR_SHIFT)) for ratio in ratios)):
        form = _completed(factors, round(middle * (1 << LINEAR_SHIFT)), codes)
        if form:
            return form
    return None


def exact_codes(
    sign: int, left: GraphTensor, right: GraphTensor, output: GraphTensor, once: bool
) -> Wide:
    """Return TFLite's results [256, 256] of all left and right codes; arguments as above."""
    *addends, total = sum_factors(left, right, output)
    a, b = (
        _addend(_CODES - tensor.zero_points[0], factor, once)
        for tensor, factor in zip((left, right), addends, strict=True)
    )
    sums = (a[:, None] + sign * b) << max(total.shift, 0)
    rounded = _halved(_high(sums, total.value), max(-total.shift, 0))
    return np.clip(rounded + output.zero_points[0], -128, 127)


def _addend(values: Wide, factor: Multiplier, once: bool) -> Wide:
    if once:
        return _high(values << (LEFT_SHIFT + factor.shift), factor.value)
    return _halved(_high(values << LEFT_SHIFT, factor.value), -factor.shift)


def _high(values: Wide, factor: int) -> Wide:
    """Multiply by `factor` / 2^31, rounded."""
    return (values * factor + (1 << 30)) >> 31


def _halved(values: Wide, shift: int) -> Wide:
    """Divide by 2^shift, ties away from zero."""
    return (values + (values >> 63) + (1 << (shift - 1))) >> shift if shift else values


def _near(left: int, right: int) -> Iterator[tuple[int, int]]:
    """Yield factors around these, the nearest first."""
    steps = range(-_NEIGHBOURS, _NEIGHBOURS + 1)
    pairs = ((abs(i) + abs(k), i, k) for i in steps for k in steps)
    return ((left + i, right + k) for _, i, k in sorted(pairs))


def _completed(factors: tuple[int, int], wished: int, codes: Wide) -> Linear | None:
    """Return the form with these factors and the constant nearest to `wished`, if there is one.

    Each pair of codes bounds the constant: from below unless the result is the lowest code, from
    above unless it is the highest.
    """
    left, right = factors
    rest = (codes << LINEAR_SHIFT) - (left * _CODES[:, None] + right * _CODES)
    low = rest.max(where=codes > -128, initial=-LINEAR_LIMIT)
    high = rest.min(where=codes < 127, initial=LINEAR_LIMIT) + (1 << LINEAR_SHIFT) - 1
    constant = int(min(max(wished, low), high))
    if low > high or 128 * (abs(left) + abs(right)) + abs(constant) >= LINEAR_LIMIT:
        return None
    return Linear(left, right, constant)
