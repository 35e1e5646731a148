"""ADD and SUB as one linear form: a form that is found is right for every pair of codes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary, GraphTensor
from edge_runtime.native.linear import (
    LINEAR_LIMIT,
    LINEAR_SHIFT,
    exact_codes,
    linear_form,
    parts_of,
)
from edge_runtime.native.multiplier import LEFT_SHIFT, Multiplier, scaled, sum_factors
from edge_runtime.native.program import KINDS, OPERATOR, build_program

CODES = np.arange(-128, 128)
ZEROS = st.integers(-128, 127)


def tensor(index: int, scale: float, zero: int = 0, width: int = 16) -> GraphTensor:
    return GraphTensor(
        index, f"t{index}", "int8", (1, width), (float(np.float32(scale)),), (zero,), 0
    )


@st.composite
def sums(draw: st.DrawFn) -> tuple[GraphTensor, GraphTensor, GraphTensor]:
    """Operands and a result at scales that are not far apart."""
    left, right = (10.0 ** draw(st.floats(-4, 0)) for _ in range(2))
    out = max(left, right) * 2.0 ** draw(st.floats(-4, 2))
    return tensor(0, left, draw(ZEROS)), tensor(1, right, draw(ZEROS)), tensor(2, out, draw(ZEROS))


def one_code(name: str, codes: tuple[int, int], rows: tuple[GraphTensor, ...], once: bool) -> int:
    """TFLite's answer for one pair, in whole numbers."""
    *factors, total = sum_factors(*rows)

    def addend(code: int, row: GraphTensor, factor: Multiplier) -> int:
        value, shift = code - row.zero_points[0], LEFT_SHIFT + (factor.shift if once else 0)
        return scaled(value << shift, Multiplier(factor.value, 0 if once else factor.shift), False)

    left, right = (addend(*each) for each in zip(codes, rows[:2], factors, strict=True))
    answer = scaled(left + right if name == "ADD" else left - right, total, False)
    return min(max(answer + rows[2].zero_points[0], -128), 127)


@pytest.mark.parametrize("name", ["ADD", "SUB"])
@given(rows=sums(), once=st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_form_gives_the_code_of_every_pair(
    name: str, rows: tuple[GraphTensor, GraphTensor, GraphTensor], once: bool
) -> None:
    form = linear_form(name, *rows, once)
    assume(form)
    sums = form.left * CODES[:, None] + form.right * CODES + form.constant
    assert np.abs(sums).max() < LINEAR_LIMIT
    codes = exact_codes(1 if name == "ADD" else -1, *rows, once)
    np.testing.assert_array_equal(np.clip(sums >> LINEAR_SHIFT, -128, 127), codes)


@pytest.mark.parametrize("name", ["ADD", "SUB"])
@given(rows=sums(), once=st.booleans(), left=ZEROS, right=ZEROS)
@settings(max_examples=200, deadline=None)
def test_the_codes_to_prove_are_those_of_one_pair_at_a_time(
    name: str, rows: tuple[GraphTensor, ...], once: bool, left: int, right: int
) -> None:
    assume(min(factor.shift for factor in sum_factors(*rows)[:2]) >= -LEFT_SHIFT)
    codes = exact_codes(1 if name == "ADD" else -1, *rows, once)
    assert codes[left + 128, right + 128] == one_code(name, (left, right), rows, once)


def test_almost_every_sum_has_a_form() -> None:
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(40):
        left, right = 10.0 ** rng.uniform(-3, -1, 2)
        zeros = rng.integers(-128, 128, 3)
        rows = (tensor(0, left, zeros[0]), tensor(1, right, zeros[1]))
        out = tensor(2, (left + right) * rng.uniform(0.4, 1), zeros[2])
        found += linear_form("ADD", *rows, out, True) is not None
    assert found >= 38


@pytest.mark.parametrize(
    "rows",
    [
        (tensor(0, 1 / 128, -81), tensor(1, 1 / 8, -99), tensor(2, 1 / 2, -95)),  # exact halves
        (tensor(0, 1.0), tensor(1, 1.0), tensor(2, 0.2)),  # sums beyond 32 bits
        (tensor(0, 1.0), tensor(1, 1.0), tensor(2, 1e-4)),  # even the factors
        (tensor(0, 1.0), tensor(1, 1e-9), tensor(2, 1.0)),  # an addend too small for the core
    ],
)
def test_a_sum_without_a_form_is_left_to_the_exact_code(
    rows: tuple[GraphTensor, GraphTensor, GraphTensor],
) -> None:
    assert linear_form("SUB", *rows, False) is None
    assert [part.form for part in parts_of("SUB", *rows)] == [None]


def test_a_row_is_split_only_where_its_parts_differ() -> None:
    usual = tensor(0, 0.0131, 3, 40), tensor(1, 0.0077, -5, 40), tensor(2, 0.0213, 1, 40)
    assert [(part.start, part.stop) for part in parts_of("ADD", *usual)] == [(0, 40)]
    # An exact half of an addend: see test_native_operators.py.
    tied = (
        tensor(0, 0.05408336, 0, 40),
        tensor(1, 0.06407927, 0, 40),
        tensor(2, 0.0010547781, 0, 40),
    )
    assert [(part.start, part.stop) for part in parts_of("ADD", *tied)] == [(0, 32), (32, 40)]
    assert [(part.start, part.stop) for part in parts_of("SUB", *tied)] == [(0, 40)]


def kinds(graph: GraphSummary) -> list[str]:
    return [KINDS[OPERATOR.unpack(packed)[0]] for packed in build_program(graph, {}).operators]


def test_a_curve_joins_the_sum_that_it_alone_reads() -> None:
    rows = tensor(0, 0.0131), tensor(1, 0.0077), tensor(2, 0.0213), tensor(3, 1 / 128)
    add = GraphOperator("ADD", 2, (0, 1), (2,))
    tanh = GraphOperator("TANH", 2, (2,), (3,))
    graph = GraphSummary(1, rows, (add, tanh), {"x0": 0, "x1": 1}, {"y": 3})
    assert kinds(graph) == ["LINEAR_TABLE"]
    assert kinds(replace(graph, outputs={"y": 3, "sum": 2})) == ["LINEAR", "TABLE"]
    more = (*rows, tensor(4, 0.02))
    copied = GraphOperator("MUL", 2, (2, 3), (4,))
    read_twice = replace(graph, tensors=more, operators=(add, tanh, copied), outputs={"y": 4})
    assert kinds(read_twice) == ["LINEAR", "TABLE", "MUL"]
    coarse = replace(graph, tensors=(*rows[:2], tensor(2, 0.001), rows[3]))  # no form
    assert kinds(coarse) == ["ADD", "TABLE"]
