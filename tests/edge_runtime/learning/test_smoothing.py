"""Exponential averages and neighbourhoods, each against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.learning.smoothing import filtered, smoothed
from edge_runtime.learning.split import near

RATES = st.floats(0.001, 1.0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 4), RATES)
def test_each_row_is_the_formula(seed: int, rows: int, channels: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    series, before = rng.normal(size=(rows, channels)), rng.normal(size=channels)
    found = smoothed(series, rate, before)
    for row in range(rows):
        before = (1 - rate) * before + rate * series[row]
        np.testing.assert_array_equal(found[row], before)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), RATES, RATES)
def test_a_single_series_starts_at_zero(seed: int, rows: int, gain: float, keep: float) -> None:
    series = np.random.default_rng(seed).normal(size=rows).astype(np.float32)
    column = filtered(series[:, np.newaxis], gain, keep)[:, 0]
    found = filtered(series, gain, keep)
    np.testing.assert_array_equal(found, column)
    assert found.shape == (rows,) and found.dtype == np.float64
    assert found[0] == gain * np.float64(series[0])


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 70))
@pytest.mark.parametrize("kind", [bool, np.int8])
def test_near_is_within_the_margin(kind: type, flags: list[bool], margin: int) -> None:
    there = [i for i, flag in enumerate(flags) if flag]
    wanted = [any(abs(i - j) <= margin for j in there) for i in range(len(flags))]
    assert near(np.array(flags, kind), margin).tolist() == wanted
