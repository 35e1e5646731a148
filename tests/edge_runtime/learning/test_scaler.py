"""The scaler: invertible, unmoved by wild readings, never blind to a dead channel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_runtime.learning.prepare import FittedScaler, fit_scaler
from edge_runtime.learning.recording import Recording


def fit(values: np.ndarray) -> FittedScaler:
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


@pytest.mark.parametrize("shape", ["normal", "two states", "ramp"])
def test_the_scale_is_the_deviation_of_the_central_99_percent(shape: str) -> None:
    rng = np.random.default_rng(2)
    values = {
        "normal": rng.normal(3, 2, 4000),
        "two states": rng.choice([-10.0, 10.0], 4000) + rng.normal(0, 0.1, 4000),
        "ramp": np.linspace(-5, 5, 4000),
    }[shape].astype(np.float32)
    low, high = np.quantile(values.astype(float), (0.005, 0.995))
    central = np.clip(values.astype(float), low, high)
    assert fit(values[:, np.newaxis]).scale[0] == pytest.approx(central.std(), rel=1e-6)
    spoiled = np.concatenate([values, [1e6] * 15, [-1e6] * 15])[:, np.newaxis]
    assert fit(spoiled).scale[0] == pytest.approx(values.std(), rel=0.05)


@pytest.mark.parametrize(("constant", "scale"), [(200.0, 2.0), (-0.5, 0.005), (0.0, 1e-6)])
def test_one_percent_of_a_dead_channel_counts_as_its_deviation(
    constant: float, scale: float
) -> None:
    values = np.full((50, 1), constant)
    values[::2] *= 1 + 1e-7  # below the resolution of float32
    assert fit(values).scale[0] == pytest.approx(scale, rel=1e-5)
    moving = np.full((50, 1), 200.0)
    moving[::2] += 0.01
    assert fit(moving).scale[0] == pytest.approx(0.005, rel=0.01)


def test_a_large_offset_does_not_hide_a_small_movement() -> None:
    values = np.random.default_rng(1).normal(101_325, 20, (5000, 1))
    assert fit(values).scale[0] == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("constant", [0.0, 1e-20, -0.5, 101_325.0, 3e38])
def test_a_departure_from_a_constant_is_seen_and_stays_finite(constant: float) -> None:
    scaler = fit(np.full((10, 1), constant))
    departed = np.float32([[constant * 1.05 + 0.001], [1e6]])
    seen = scaler.transform(departed)
    assert np.isfinite(seen).all()
    if constant < 1e30:
        assert (np.abs(seen) > 4).all()


def test_a_channel_without_readings_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no finite reading"):
        fit(np.full((10, 1), np.nan))
