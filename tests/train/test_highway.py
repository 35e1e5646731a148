"""The linear highway: finds a known process, knows when it knows nothing, never blows up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.highway import LARGEST_ROOT, SMALLEST_SCALE, fit_highway, innovation_scale

PROCESSES = [(0.8,), (1.2, -0.5), (0.4, 0.3, -0.2)]


def process(coefficients: tuple[float, ...], rows: int = 6000, seed: int = 0) -> np.ndarray:
    """An autoregressive process [rows, 1] driven by noise of 0.3."""
    noise = 0.3 * np.random.default_rng(seed).standard_normal(rows)
    x = np.zeros(rows)
    for t in range(len(coefficients), rows):
        x[t] = sum(a * x[t - k] for k, a in enumerate(coefficients, 1)) + noise[t]
    return x[:, np.newaxis].astype(np.float32)


def radius(coefficients: np.ndarray) -> float:
    return float(np.abs(np.roots([1.0, *-coefficients.astype(float)])).max(initial=0.0))


@pytest.mark.parametrize("coefficients", PROCESSES)
def test_a_known_process_is_recovered(coefficients: tuple[float, ...]) -> None:
    x = process(coefficients)
    order = len(coefficients) + 1
    found = fit_highway([x], [np.ones_like(x)], order)
    assert found.shape == (order, 1) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], [*coefficients, 0.0], atol=0.04)


@pytest.mark.parametrize("coefficients", PROCESSES)
def test_the_innovation_scale_is_that_of_the_driving_noise(coefficients: tuple[float, ...]) -> None:
    x = process(coefficients)
    highway = fit_highway([x], [np.ones_like(x)], len(coefficients))
    np.testing.assert_allclose(innovation_scale([x], [np.ones_like(x)], highway), 0.3, rtol=0.05)


def test_each_channel_has_its_own_process() -> None:
    x = np.hstack([process((0.9,), seed=1), process((-0.6,), seed=2)])
    np.testing.assert_allclose(fit_highway([x], [np.ones_like(x)], 1)[0], [0.9, -0.6], atol=0.03)


def test_masked_readings_take_no_part() -> None:
    x = process((1.2, -0.5))
    mask = np.ones_like(x)
    mask[np.random.default_rng(3).random(len(x)) < 0.1] = 0
    wild = np.where(mask > 0, x, np.float32(50.0))
    highway = fit_highway([wild], [mask], 2)
    np.testing.assert_allclose(highway[:, 0], [1.2, -0.5], atol=0.05)
    np.testing.assert_allclose(innovation_scale([wild], [mask], highway), 0.3, rtol=0.05)
    spoiled = fit_highway([wild], [np.ones_like(x)], 2)
    assert np.abs(spoiled[:, 0] - [1.2, -0.5]).max() > 0.3


def test_no_lag_reaches_into_another_recording() -> None:
    pieces = [np.tile([1.0, -1.0], 20)[i : i + 20, np.newaxis] for i in (0, 1)] * 20
    rows = [piece.astype(np.float32) for piece in pieces]
    masks = [np.ones_like(piece) for piece in rows]
    # Within a recording the sign always changes; across the seams it sometimes would not.
    assert fit_highway(rows, masks, 1)[0, 0] == pytest.approx(-LARGEST_ROOT, abs=0.003)
    errors = innovation_scale(rows, masks, np.full((1, 1), -1.0, np.float32))
    assert errors[0] == pytest.approx(SMALLEST_SCALE)


@pytest.mark.parametrize("order", [1, 3])
def test_persistence_where_nothing_can_be_learned(order: int) -> None:
    rng = np.random.default_rng(0)
    constant, empty, moving = np.full(100, 2.0), np.zeros(100), rng.standard_normal(100)
    x = np.stack([constant, empty, moving], axis=1).astype(np.float32)
    mask = np.ones_like(x)
    mask[:, 1] = 0
    highway = fit_highway([x], [mask], order)
    expected = np.eye(order)[0] * LARGEST_ROOT
    for channel in (0, 1):
        np.testing.assert_allclose(highway[:, channel], expected, atol=0.0011)
    assert abs(highway[0, 2]) < 0.5
    scale = innovation_scale([x], [mask], highway)
    assert scale[0] == pytest.approx(SMALLEST_SCALE) and scale[1] == 1.0 and scale[2] > 0.5


def test_recordings_too_short_for_a_single_lag_give_persistence() -> None:
    short = [np.ones((3, 2), np.float32)] * 5
    np.testing.assert_allclose(fit_highway(short, short, 4)[0], 1.0, atol=0.0011)
    assert not fit_highway(short, short, 4)[1:].any()


def test_a_signal_that_mostly_rests_has_no_vanishing_scale() -> None:
    x = np.zeros((1000, 1), np.float32)
    x[::20] = 3.0
    scale = innovation_scale([x], [np.ones_like(x)], np.zeros((1, 1), np.float32))
    assert scale[0] == pytest.approx(x[1:].std() / 3, rel=1e-5)


@given(
    growth=st.floats(0.5, 1.2),
    order=st.integers(1, 8),
    power=st.integers(0, 4),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_no_free_run_blows_up(growth: float, order: int, power: int, seed: int) -> None:
    t = np.arange(120.0)
    x = growth ** (t - 100) * (t / 100) ** power
    x += 1e-3 * np.random.default_rng(seed).standard_normal(len(t))
    x = np.clip(x, -100, 100)[:, np.newaxis].astype(np.float32)
    highway = fit_highway([x], [np.ones_like(x)], order)
    assert np.isfinite(highway).all()
    assert radius(highway[:, 0]) <= LARGEST_ROOT + 1e-3


def test_an_explosive_process_would_be_outside_without_the_bound() -> None:
    x = (1.05 ** np.arange(100.0))[:, np.newaxis].astype(np.float32)
    past, present = x[:-1, 0], x[1:, 0]
    assert past @ present / (past @ past) > 1.04
    assert fit_highway([x], [np.ones_like(x)], 1)[0, 0] == pytest.approx(LARGEST_ROOT, abs=1e-6)
