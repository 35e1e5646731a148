"""The linear forecasts against sums by hand, and what they make of a machine that stands still."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.bundle.manifest import Forecast
from edge_runtime.detector.linear import (
    FORECAST_CLIP,
    LinearForecasts,
    at_rest,
    lines_of,
    one_ahead,
    others,
)

ORDER, CHANNELS, HORIZON = 2, 3, 4
DEPTH = ORDER + HORIZON - 1
SMALL = st.floats(-1, 1, width=32)
lags = hnp.arrays(np.float32, (ORDER, CHANNELS), elements=SMALL)
wide = hnp.arrays(np.float32, (CHANNELS, ORDER * CHANNELS), elements=SMALL)
pasts = hnp.arrays(np.float32, (DEPTH, CHANNELS), elements=SMALL)
places = hnp.arrays(np.float32, CHANNELS, elements=SMALL)
NOTHING = np.zeros((0, 0), np.float32)


@given(highway=lags, cross=wide, own=lags, ahead=wide, past=pasts, start=places)
def test_each_forecast_is_its_sum(
    highway: np.ndarray,
    cross: np.ndarray,
    own: np.ndarray,
    ahead: np.ndarray,
    past: np.ndarray,
    start: np.ndarray,
) -> None:
    lines = LinearForecasts(highway, cross, own, ahead, HORIZON)
    assert lines.depth == DEPTH
    recent, early = past[:ORDER].astype(float), past[HORIZON - 1 :].astype(float)
    first = start + (highway * recent).sum(axis=0) + cross @ recent.ravel()
    alone, from_afar = (own * recent).sum(axis=0), ahead @ early.ravel()
    found = (one_ahead(lines, past, start), *others(lines, past))
    for one, other in zip(found, (first, alone, from_afar), strict=True):
        expected = np.clip(other, -FORECAST_CLIP, FORECAST_CLIP)
        np.testing.assert_allclose(one, expected, atol=1e-5)
        assert one.dtype == np.float32


@given(highway=lags, cross=wide, own=lags, ahead=wide, place=places)
def test_the_error_at_rest_is_that_of_readings_that_never_move(
    highway: np.ndarray, cross: np.ndarray, own: np.ndarray, ahead: np.ndarray, place: np.ndarray
) -> None:
    lines = LinearForecasts(highway, cross, own, ahead, HORIZON)
    still, zero = np.repeat(place[np.newaxis], DEPTH, axis=0), np.zeros(CHANNELS, np.float32)
    forecasts = np.stack([one_ahead(lines, still, zero), *others(lines, still)])
    np.testing.assert_allclose(at_rest(lines, place), place - forecasts, atol=1e-5)


@pytest.mark.parametrize("horizon", [1, 5])
def test_what_is_not_there_forecasts_nothing_and_needs_no_past(horizon: int) -> None:
    forecast = Forecast(((1.0, 1.0),), (), (1.0, 1.0), (), (), 0)
    lines, past = lines_of(forecast), np.ones((horizon, 2), np.float32)
    assert lines.depth == 1
    own, ahead = others(lines, past)
    assert not own.any() and not ahead.any()
    np.testing.assert_array_equal(at_rest(lines, past[0])[1:], np.ones((2, 2)))
    far = Forecast(((1.0, 1.0),), (), (1.0, 1.0), (), ((1.0, 0.0), (0.0, 1.0)), horizon)
    assert lines_of(far).depth == horizon
