"""The linear highway: finds a known process, knows when it knows nothing, never blows up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.detector.linear import FORECAST_CLIP, LinearForecasts, one_ahead
from edge_runtime.learning.highway import (
    FEWEST_COMPLETE,
    LARGEST_ROOT,
    MOST_COMPLETE,
    MOST_CROSS,
    SMALLEST_SCALE,
    Highway,
    Kind,
    fit_ahead,
    fit_highway,
    fit_own,
    innovation_scale,
)

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


def alone(own: np.ndarray) -> Highway:
    """A highway without a cross part."""
    return Highway(own.astype(np.float32), np.zeros((0, 0), np.float32))


def whole(x: np.ndarray, order: int, kind: Kind = "full") -> Highway:
    """The highway of one recording without a hole."""
    return fit_highway([x], [np.ones_like(x)], order, kind)


@pytest.mark.parametrize("coefficients", PROCESSES)
def test_a_known_process_is_recovered(coefficients: tuple[float, ...]) -> None:
    x = process(coefficients)
    order = len(coefficients) + 1
    for kind in ("full", "channel"):
        found = whole(x, order, kind)
        assert found.own.shape == (order, 1) and found.own.dtype == np.float32
        np.testing.assert_allclose(found.matrix()[:, 0], [*coefficients, 0.0], atol=0.04)


@pytest.mark.parametrize("coefficients", PROCESSES)
def test_the_innovation_scale_is_that_of_the_driving_noise(coefficients: tuple[float, ...]) -> None:
    x = process(coefficients)
    highway = fit_highway([x], [np.ones_like(x)], len(coefficients))
    np.testing.assert_allclose(innovation_scale([x], [np.ones_like(x)], highway), 0.3, rtol=0.05)


def test_each_channel_has_its_own_process() -> None:
    x = np.hstack([process((0.9,), seed=1), process((-0.6,), seed=2)])
    np.testing.assert_allclose(whole(x, 1).own[0], [0.9, -0.6], atol=0.03)


def test_masked_readings_take_no_part() -> None:
    x = process((1.2, -0.5))
    mask = np.ones_like(x)
    mask[np.random.default_rng(3).random(len(x)) < 0.1] = 0
    wild = np.where(mask > 0, x, np.float32(50.0))
    highway = fit_highway([wild], [mask], 2)
    np.testing.assert_allclose(highway.matrix()[:, 0], [1.2, -0.5], atol=0.05)
    np.testing.assert_allclose(innovation_scale([wild], [mask], highway), 0.3, rtol=0.05)
    spoiled = fit_highway([wild], [np.ones_like(x)], 2)
    assert np.abs(spoiled.matrix()[:, 0] - [1.2, -0.5]).max() > 0.3


def test_no_lag_reaches_into_another_recording() -> None:
    pieces = [np.tile([1.0, -1.0], 20)[i : i + 20, np.newaxis] for i in (0, 1)] * 20
    rows = [piece.astype(np.float32) for piece in pieces]
    masks = [np.ones_like(piece) for piece in rows]
    # Within a recording the sign always changes; across the seams it sometimes would not.
    for kind in ("full", "channel"):
        found = fit_highway(rows, masks, 1, kind).matrix()[0, 0]
        assert found == pytest.approx(-LARGEST_ROOT, abs=0.003)
    errors = innovation_scale(rows, masks, alone(np.full((1, 1), -1.0)))
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
    assert not len(highway.cross)  # channel 1 is never read: no row is complete
    for channel in (0, 1):
        np.testing.assert_allclose(highway.own[:, channel], expected, atol=0.0011)
    assert abs(highway.own[0, 2]) < 0.5
    scale = innovation_scale([x], [mask], highway)
    assert scale[0] == pytest.approx(SMALLEST_SCALE) and scale[1] == 1.0 and scale[2] > 0.5


def test_recordings_too_short_for_a_single_lag_give_persistence() -> None:
    short = [np.ones((3, 2), np.float32)] * 5
    found = fit_highway(short, short, 4)
    np.testing.assert_allclose(found.own[0], 1.0, atol=0.0011)
    assert not found.own[1:].any() and found.cross.shape == (0, 0)


def test_a_signal_that_mostly_rests_has_no_vanishing_scale() -> None:
    x = np.zeros((1000, 1), np.float32)
    x[::20] = 3.0
    scale = innovation_scale([x], [np.ones_like(x)], alone(np.zeros((1, 1))))
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
    highway = whole(x, order)
    assert np.isfinite(highway.matrix()).all()
    assert radius(highway.matrix()[:, 0]) <= LARGEST_ROOT + 1e-3
    assert radius(whole(x, order, "channel").own[:, 0]) <= LARGEST_ROOT + 1e-3


@pytest.mark.parametrize("kind", ["full", "channel"])
def test_a_machine_that_never_moves_is_forecast_to_stay(kind: Kind) -> None:
    still = np.zeros((300, 3), np.float32)
    found = fit_highway([still], [np.ones_like(still)], 3, kind)
    assert np.isfinite(found.matrix()).all()
    np.testing.assert_array_equal(still[:1] @ found.matrix()[:3], np.zeros((1, 3)))


def test_an_explosive_process_would_be_outside_without_the_bound() -> None:
    x = (1.05 ** np.arange(100.0))[:, np.newaxis].astype(np.float32)
    past, present = x[:-1, 0], x[1:, 0]
    assert past @ present / (past @ past) > 1.04
    for kind in ("full", "channel"):
        assert whole(x, 1, kind).matrix()[0, 0] == pytest.approx(LARGEST_ROOT, abs=1e-6)


# The cross part: what the past of all channels adds.

COUPLED = np.array([[0.5, 0.0, 0.0], [0.6, 0.3, 0.0], [0.0, 0.5, 0.4]])  # 0 drives 1 drives 2
SIZES = st.integers(1, 4)


def coupled(matrix: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """A vector autoregression of order 1 driven by noise of 0.3."""
    noise = 0.3 * np.random.default_rng(seed).standard_normal((rows, len(matrix)))
    x = np.zeros((rows, len(matrix)))
    for t in range(1, rows):
        x[t] = matrix @ x[t - 1] + noise[t]
    return x.astype(np.float32)


def errors_of(highway: Highway, x: np.ndarray) -> np.ndarray:
    """One-step errors [n, channels] over a recording without a hole, in double precision."""
    order = len(highway.own)
    lags = [x[order - 1 - k : len(x) - 1 - k] for k in range(order)]
    return np.asarray(x[order:] - np.hstack(lags).astype(float) @ highway.matrix().astype(float))


def spectral_radius(highway: Highway) -> float:
    """Growth per step of the worst free run: largest eigenvalue of the companion matrix."""
    matrix, (order, channels) = highway.matrix().astype(float), highway.own.shape
    companion = np.zeros((order * channels, order * channels))
    companion[:channels] = matrix.T
    companion[channels:, :-channels] = np.eye((order - 1) * channels)
    return float(np.abs(np.linalg.eigvals(companion)).max())


@given(order=SIZES, channels=SIZES, crossed=st.booleans(), seed=st.integers(0, 2**16))
@settings(max_examples=60)
def test_the_matrix_is_the_forecast_of_the_device(
    order: int, channels: int, crossed: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    size = (channels, order * channels) if crossed else (0, 0)
    own = 0.3 * rng.standard_normal((order, channels))
    highway = Highway(own.astype(np.float32), (0.3 * rng.standard_normal(size)).astype(np.float32))
    history = rng.standard_normal((order, channels)).astype(np.float32)
    zero = np.zeros(channels, np.float32)
    nothing = np.zeros((0, 0), np.float32)
    lines = LinearForecasts(highway.own, highway.cross, nothing, nothing, 0)
    expected = history.ravel() @ highway.matrix()
    assert highway.matrix().shape == (order * channels, channels)
    np.testing.assert_allclose(
        one_ahead(lines, history, zero),
        np.clip(expected, -FORECAST_CLIP, FORECAST_CLIP), rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def test_the_matrix_by_hand() -> None:
    highway = Highway(np.float32([[1, 2], [3, 4]]), np.float32([[0, 5, 0, 6], [7, 0, 8, 0]]))
    assert highway.matrix().tolist() == [[1, 7], [5, 2], [3, 8], [6, 4]]
    assert alone(highway.own).matrix().tolist() == [[1, 0], [0, 2], [3, 0], [0, 4]]


def test_a_coupled_process_is_recovered() -> None:
    x = coupled(COUPLED, 8000, seed=1)
    highway = whole(x, 1)
    np.testing.assert_allclose(highway.matrix(), COUPLED.T, atol=0.04)
    scale = innovation_scale([x], [np.ones_like(x)], highway)
    np.testing.assert_allclose(scale, 0.3, rtol=0.05)
    single = innovation_scale([x], [np.ones_like(x)], alone(highway.own))
    assert single[1] > 1.1 * scale[1]  # what the cross part explains is not noise


@pytest.mark.parametrize("order", [1, 3])
def test_a_coupled_process_is_forecast_better_than_channel_by_channel(order: int) -> None:
    x, unseen = coupled(COUPLED, 2000, seed=1), coupled(COUPLED, 2000, seed=2)
    full, single = (errors_of(whole(x, order, kind), unseen).std(0) for kind in ("full", "channel"))
    np.testing.assert_allclose(full, 0.3, rtol=0.05)
    assert (full[1:] < 0.93 * single[1:]).all()
    assert full[0] == pytest.approx(single[0], rel=0.01)  # nothing drives the first


@pytest.mark.parametrize("order", [1, 4])
def test_independent_channels_get_a_negligible_cross_part(order: int) -> None:
    x, unseen = (
        np.hstack([process(c, 4000, seed=10 * s + i) for i, c in enumerate(PROCESSES)])
        for s in (1, 2)
    )
    full, single = whole(x, order), whole(x, order, "channel")
    assert full.cross.shape == (3, 3 * order) and not len(single.cross)
    blocks = full.cross.reshape(3, order, 3).transpose(1, 0, 2)
    assert max(np.abs(block - np.diag(np.diag(block))).max() for block in blocks) < 0.08
    full_errors, single_errors = errors_of(full, unseen), errors_of(single, unseen)
    np.testing.assert_allclose(full_errors.std(0), single_errors.std(0), rtol=0.01)


@pytest.mark.parametrize("kind", ["full", "channel", "none"])
def test_the_kinds(kind: Kind) -> None:
    x = coupled(COUPLED, 500, seed=3)
    found, full = whole(x, 2, kind), whole(x, 2)
    assert found.cross.shape == ((3, 6) if kind == "full" else (0, 0))
    assert found.own.dtype == found.cross.dtype == np.float32
    if kind == "none":
        assert not found.own.any() and not found.matrix().any()
        scale = innovation_scale([x], [np.ones_like(x)], found)
        np.testing.assert_allclose(scale, x[2:].std(axis=0), rtol=0.15)
    elif kind == "channel":
        for i in range(3):
            np.testing.assert_array_equal(
                found.own[:, i], whole(x[:, i : i + 1], 2, kind).own[:, 0]
            )
    else:
        # What a channel's own past says is all in the own part.
        by_lag = full.cross.reshape(3, 2, 3)
        assert not any(by_lag[i, :, i].any() for i in range(3)) and full.own.all()


@pytest.mark.parametrize(("complete", "crossed"), [(FEWEST_COMPLETE - 1, 0), (FEWEST_COMPLETE, 3)])
def test_too_few_complete_rows_leave_the_channels_to_themselves(
    complete: int, crossed: int
) -> None:
    order = 2
    x = coupled(COUPLED, 400, seed=4)
    mask = np.ones_like(x)
    mask[complete + order :, 2] = 0
    found = fit_highway([x], [mask], order)
    assert len(found.cross) == crossed
    if not crossed:
        single = fit_highway([x], [mask], order, "channel")
        np.testing.assert_array_equal(found.own, single.own)


def test_rows_that_are_not_complete_do_not_touch_the_cross_part() -> None:
    x = coupled(COUPLED, 1500, seed=5)
    mask = np.ones_like(x)
    holes = np.random.default_rng(6).random(len(x)) < 0.05
    mask[holes, 1] = 0
    found = fit_highway([x], [mask], 2)
    wild = x.copy()
    wild[holes, 1] = 1e3
    np.testing.assert_array_equal(fit_highway([wild], [mask], 2).cross, found.cross)
    assert np.abs(whole(wild, 2).matrix() - found.matrix()).max() > 0.1
    np.testing.assert_allclose(found.matrix()[:3], COUPLED.T, atol=0.15)


def test_no_cross_lag_reaches_into_another_recording() -> None:
    x = coupled(COUPLED, 1200, seed=7)
    rows = [x[i : i + 40] for i in range(0, 1200, 40)]
    masks = [np.ones_like(piece) for piece in rows]
    # In another order the seams would join other rows.
    found, turned = fit_highway(rows, masks, 2), fit_highway(rows[::-1], masks, 2)
    np.testing.assert_allclose(found.matrix(), turned.matrix(), atol=1e-5)
    assert np.abs(whole(x, 2).matrix() - found.matrix()).max() > 1e-5


def test_a_long_recording_is_thinned_evenly() -> None:
    rows = 2 * MOST_COMPLETE + 2
    x = np.random.default_rng(0).standard_normal((rows, 2)).astype(np.float32)
    x[1:, 1] = 0.5 * x[:-1, 0] + 0.1 * x[1:, 1]
    found = whole(x, 1)
    assert found.cross[1, 0] == pytest.approx(0.5, abs=0.01)
    changed = x.copy()
    changed[2 * MOST_COMPLETE - 400 :, 1] *= -1  # its end counts too
    assert np.abs(whole(changed, 1).cross - found.cross).max() > 1e-3


@given(
    scale=st.floats(0.5, 3), order=st.integers(1, 4), channels=st.integers(2, 4),
    seed=st.integers(0, 2**16),
)  # fmt: skip
@settings(max_examples=60)
def test_no_free_run_across_channels_blows_up(
    scale: float, order: int, channels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((channels, channels))
    matrix *= scale / np.abs(np.linalg.eigvals(matrix)).max()
    pieces = []
    for _ in range(30):
        x = [rng.standard_normal(channels)]
        for _ in range(11):
            x.append(matrix @ x[-1] + 0.1 * rng.standard_normal(channels))
        pieces.append(np.array(x, np.float32))
    highway = fit_highway(pieces, [np.ones_like(p) for p in pieces], order)
    assert len(highway.cross) == channels and np.isfinite(highway.matrix()).all()
    assert spectral_radius(highway) <= LARGEST_ROOT + 1e-3
    if scale > 1.2 and order == 1:
        assert spectral_radius(highway) > 0.9  # it was bounded, not forgotten


@pytest.mark.parametrize("horizon", [1, 4, 16])
def test_a_forecast_from_afar_is_what_repeating_the_process_gives(horizon: int) -> None:
    rows = process((0.9,), rows=15000)
    found = fit_ahead([rows], [np.ones_like(rows)], 2, horizon, "channel")
    np.testing.assert_allclose(found, [[0.9**horizon, 0.0]], atol=0.05)


def test_a_forecast_from_afar_knows_what_leads_by_so_many_rows() -> None:
    lead = np.random.default_rng(0).standard_normal(6000)
    rows = np.stack([lead, np.concatenate([np.zeros(7), lead[:-7]])], axis=1).astype(np.float32)
    found = fit_ahead([rows], [np.ones_like(rows)], 2, 6)
    # The second channel is what the first one was seven rows before: the older of the two lags.
    np.testing.assert_allclose(found[1], [0, 0, 1, 0], atol=0.05)
    np.testing.assert_allclose(found[0], 0, atol=0.05)


def test_the_horizon_of_a_forecast_from_afar_reaches_into_no_other_recording() -> None:
    rows = process((0.9,), rows=4000)
    pieces = [rows[:2000], rows[2000:]]
    alone = fit_ahead([rows[:2000]], [np.ones((2000, 1), np.float32)], 2, 8)
    silent = [pieces[0], np.full((9, 1), 1e3, np.float32)]
    masks = [np.ones_like(piece) for piece in silent]
    np.testing.assert_array_equal(fit_ahead(silent, masks, 2, 8), alone)
    broken = np.ones_like(rows)
    broken[1000] = 0
    wild = rows.copy()
    wild[1000] = 1e6
    harmed = fit_ahead([wild], [broken], 2, 8)
    np.testing.assert_allclose(harmed, fit_ahead([rows], [broken], 2, 8))


def test_too_few_complete_rows_give_no_forecast_from_afar() -> None:
    rows = process((0.9,), rows=FEWEST_COMPLETE + 9)
    mask = np.ones_like(rows)
    assert fit_ahead([rows], [mask], 2, 8).shape == (1, 2)
    assert fit_ahead([rows[:-1]], [mask[:-1]], 2, 8).shape == (0, 0)


def test_the_own_forecast_is_the_highway_of_each_channel_alone() -> None:
    rows = np.concatenate([process((0.8,)), process((1.2, -0.5), seed=1)], axis=1)
    masks = [np.ones_like(rows)]
    np.testing.assert_array_equal(
        fit_own([rows], masks, 2), fit_highway([rows], masks, 2, "channel").own
    )


def test_many_channels_are_forecast_from_their_own_past() -> None:
    rows = np.random.default_rng(0).normal(size=(150, MOST_CROSS + 1)).astype(np.float32)
    for width, crossed in ((MOST_CROSS + 1, 0), (MOST_CROSS, MOST_CROSS)):
        arrays = [rows[:, :width]], [np.ones((150, width), np.float32)]
        assert len(fit_highway(*arrays, order=1).cross) == crossed
        assert len(fit_ahead(*arrays, order=1, horizon=2)) == crossed
