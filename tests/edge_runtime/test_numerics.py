"""The host's arithmetic: one rounding rule, one order of summation, one table for the logarithm."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import numerics

ZERO = np.float32(0)
TABLE = numerics.log_table()
floats = st.floats(-1e6, 1e6, width=32)
scales = st.floats(2.0**-10, 2.0, width=32)
zero_points = st.integers(-128, 127)


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_quantise_rounds_halves_to_the_even_code() -> None:
    codes = numerics.quantise(array(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5), np.float32(1), ZERO)
    assert codes.tolist() == [-2, -2, 0, 0, 2, 2]
    assert codes.dtype == np.int8


def test_quantise_clips_instead_of_changing_the_sign() -> None:
    values = array(-1e30, -129, -128, 127, 128, 1e30)
    codes = numerics.quantise(values, np.float32(1), ZERO)
    assert codes.tolist() == [-128, -128, -128, 127, 127, 127]
    assert numerics.saturations(values, np.float32(1), ZERO) == 4


@given(values=st.lists(floats, min_size=1), scale=scales, zero_point=zero_points)
def test_saturations_are_the_values_that_quantise_had_to_clip(
    values: list[float], scale: float, zero_point: int
) -> None:
    wanted = [round(float(np.float32(v) / np.float32(scale))) + zero_point for v in values]
    clipped = sum(not -128 <= code <= 127 for code in wanted)
    found = numerics.saturations(array(*values), np.float32(scale), np.float32(zero_point))
    assert found == clipped
    codes = numerics.quantise(array(*values), np.float32(scale), np.float32(zero_point))
    assert codes.tolist() == [min(max(code, -128), 127) for code in wanted]


@given(part=st.floats(-1, 1), scale=scales, zero_point=zero_points)
def test_a_round_trip_errs_by_at_most_half_a_scale(
    part: float, scale: float, zero_point: int
) -> None:
    s, z = np.float32(scale), np.float32(zero_point)
    value = array((127 - zero_point if part > 0 else 128 + zero_point) * part * scale)
    back = numerics.dequantise(numerics.quantise(value, s, z), s, z)
    assert abs(float(back[0]) - float(value[0])) <= 0.5 * scale * (1 + 1e-4)


@given(codes=st.lists(st.integers(-128, 127), min_size=1), scale=scales, zero_point=zero_points)
def test_codes_survive_a_round_trip(codes: list[int], scale: float, zero_point: int) -> None:
    s, z = np.float32(scale), np.float32(zero_point)
    values = numerics.dequantise(np.array(codes, np.int8), s, z)
    assert numerics.quantise(values, s, z).tolist() == codes


def sum_by_loop(values: np.ndarray) -> np.float32:
    total = values[0]
    for value in values[1:]:
        total = np.float32(total + value)
    return total


@given(st.lists(floats, min_size=1, max_size=300))
def test_ordered_sum_runs_from_first_to_last(values: list[float]) -> None:
    vector = array(*values)
    assert numerics.ordered_sum(vector) == sum_by_loop(vector)


def test_ordered_sum_is_not_numpys_pairwise_sum() -> None:
    vector = np.full(100_000, 0.1, np.float32)
    assert numerics.ordered_sum(vector) == sum_by_loop(vector) != vector.sum()


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_ordered_matvec_sums_each_row_in_order(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = (rng.normal(size=(rows, columns)) * 10 ** rng.uniform(-4, 4)).astype(np.float32)
    vector = rng.normal(size=columns).astype(np.float32)
    expected = [sum_by_loop(row * vector) for row in matrix]
    assert numerics.ordered_matvec(matrix, vector).tolist() == expected


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_ordered_matvec_of_a_batch_is_that_of_each_sample(
    rows: int, columns: int, samples: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix = (rng.normal(size=(rows, columns)) * 10 ** rng.uniform(-4, 4)).astype(np.float32)
    batch = rng.normal(size=(columns, samples)).astype(np.float32)
    found = numerics.ordered_matvec(matrix[..., np.newaxis], batch)
    for sample in range(samples):
        expected = numerics.ordered_matvec(matrix, np.ascontiguousarray(batch[:, sample]))
        assert found[:, sample].tolist() == expected.tolist()


@given(st.floats(1, 1e6, width=32))
def test_table_log_is_the_logarithm_to_two_millionths(value: float) -> None:
    found = float(numerics.table_log(array(value), TABLE)[0])
    # Beside the table's own error there is the rounding of a float32 of this size.
    assert abs(found - math.log(value)) <= 2e-6 + np.spacing(np.float32(math.log(value) + 1e-6))


def test_table_log_is_exact_at_the_nodes() -> None:
    nodes = (1 + np.arange(256) / 256).astype(np.float32)
    np.testing.assert_array_equal(
        numerics.table_log(nodes, TABLE), np.log(nodes.astype(float)).astype(np.float32)
    )


def test_table_log_never_falls() -> None:
    # All values around every node of the first octaves, where a wrong index would show.
    nodes = np.outer(2.0 ** np.arange(20), 1 + np.arange(256) / 256).ravel().astype(np.float32)
    values = np.concatenate(
        [nodes, np.nextafter(nodes, np.float32(0))[1:], nodes * np.float32(1.001)]
    )
    logs = numerics.table_log(np.sort(values), TABLE)
    assert (np.diff(logs) >= 0).all()


@pytest.mark.parametrize(("scale", "zero_point"), [(0.0625, 0), (0.11, -17), (0.5, 90)])
def test_softplus_table_has_one_entry_for_each_code(scale: float, zero_point: int) -> None:
    table = numerics.softplus_table(scale, zero_point)
    assert table.dtype == np.float32 and len(table) == 256
    for code in (-128, -1, 0, 127):
        logit = (code - zero_point) * float(np.float32(scale))
        expected = math.log1p(math.exp(-abs(logit))) + max(-logit, 0.0)
        assert table[code + 128] == pytest.approx(expected, rel=1e-6)
