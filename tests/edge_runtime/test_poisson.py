"""The exact Poisson bound: published limits, and what it means."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.calibration import chance_of_at_most, mean_bound, rate_bound


@pytest.mark.parametrize(
    ("events", "limit"),
    # Upper limits of a Poisson mean at 95 % confidence (Garwood 1936; tabulated in Gehrels 1986).
    [(0, 2.996), (1, 4.744), (2, 6.296), (3, 7.754), (4, 9.154), (5, 10.513), (10, 16.962)],
)
def test_the_bound_is_the_published_poisson_limit(events: int, limit: float) -> None:
    assert rate_bound(events, 1.0) == pytest.approx(limit, abs=0.001)
    assert rate_bound(events, 8.0) == pytest.approx(limit / 8, abs=0.001)


def test_no_time_bounds_nothing() -> None:
    assert rate_bound(0, 0.0) == 1e9


@given(events=st.integers(0, 300))
def test_at_the_bound_so_few_events_come_one_time_in_twenty(events: int) -> None:
    mean = mean_bound(events)
    assert chance_of_at_most(events, mean) == pytest.approx(0.05, rel=1e-6)
    assert mean_bound(events + 1) > mean > events


@given(mean=st.floats(0.01, 30), events=st.integers(0, 30))
def test_chances_are_those_of_the_definition(mean: float, events: int) -> None:
    terms = [math.exp(-mean) * mean**k / math.factorial(k) for k in range(events + 1)]
    assert chance_of_at_most(events, mean) == pytest.approx(sum(terms), rel=1e-9)
    assert chance_of_at_most(events, 0) == 1
