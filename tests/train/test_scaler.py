"""The scaler: invertible, unmoved by wild readings, never blind to a dead channel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from train.recording import Recording
from train.scaler import Scaler, fit_scaler


def fit(values: np.ndarray) -> Scaler:
    values = values.astype(np.float32)
    names = tuple(f"c{i}" for i in range(values.shape[1]))
    return fit_scaler([Recording("a.csv", names, None, values, None, None)])


@given(arrays(np.float32, (20, 3), elements=st.floats(-1e6, 1e6, width=32)))
def test_inverse_undoes_transform(values: np.ndarray) -> None:
    scaler = fit(values)
    standardised = scaler.transform(values)
    assert standardised.dtype == scaler.center.dtype == scaler.scale.dtype == np.float32
    assert (scaler.scale > 0).all() and np.isfinite(standardised).all()
    largest = np.abs(values).max(axis=0)
    assert (np.abs(scaler.inverse(standardised) - values) <= 1e-6 * largest + 1e-30).all()


def test_a_normal_channel_becomes_standard_whatever_the_wild_readings() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(50, 2, (5000, 1))
    values[::500] = [[np.nan], [np.inf], [-np.inf], [1e9], [-1e9]] * 2
    scaler = fit(values)
    assert scaler.center[0] == pytest.approx(50, abs=0.2)
    assert scaler.scale[0] == pytest.approx(2, rel=0.1)


def test_a_mostly_resting_channel_is_scaled_by_its_movement() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.001, (1000, 1))
    values[::5] += 10
    assert fit(values).scale[0] == pytest.approx(4, rel=0.1)
    rare = np.zeros((1000, 1))
    rare[500] = 1  # too rare for the central 99 %, and yet not dead
    assert fit(rare).scale[0] == pytest.approx(rare.std(), rel=1e-6)


def test_a_large_offset_does_not_hide_a_small_movement() -> None:
    values = np.random.default_rng(1).normal(101_325, 20, (5000, 1))
    assert fit(values).scale[0] == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("constant", [0.0, 1e-20, -0.5, 101_325.0, 3e38])
def test_a_departure_from_a_constant_is_seen_and_stays_finite(constant: float) -> None:
    scaler = fit(np.full((10, 1), constant))
    departed = np.float32([[constant * 1.01 + 0.001], [1e6]])
    seen = scaler.transform(departed)
    assert np.isfinite(seen).all()
    if constant < 1e30:
        assert (np.abs(seen) > 4).all()


def test_a_channel_without_readings_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no finite reading"):
        fit(np.full((10, 1), np.nan))
