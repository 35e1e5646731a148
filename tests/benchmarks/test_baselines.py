"""Baselines on a small plant whose faults are easy: each must earn its place, and none may peek."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from benchmarks.baselines import all_lags, baselines, fit_sum, own_lags, with_threshold
from benchmarks.detection_metrics import auc_pr
from benchmarks.fitting import Fitted, ewma, fit_standardiser, split_rows

LIBRARIES = {"isolation-forest": "sklearn", "half-space-trees": "river"}
USEFUL = [name for name in baselines() if name not in ("flag-all", "random")]
SCORED = np.ones(4, bool)


def plant(rows: int, seed: int) -> np.ndarray:
    """Four channels: one slow signal, two that follow it, and one that never moves."""
    rng = np.random.default_rng(seed)
    slow = np.zeros(rows)
    for i in range(1, rows):
        slow[i] = 0.95 * slow[i - 1] + 0.3 * rng.normal()
    noise = 0.1 * rng.normal(size=(rows, 2))
    channels = [slow, 2 * slow + noise[:, 0], 5 - slow + noise[:, 1], np.full(rows, 7.0)]
    return np.stack(channels, axis=1).astype(np.float32)


def faulty_plant(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The plant and its labels: a jump, a dead channel that moves, and one that stands still."""
    values, labels = plant(rows, seed), np.zeros(rows, bool)
    for number, start in enumerate((rows // 4, rows // 2, 3 * rows // 4)):
        here = slice(start, start + 40)
        labels[here] = True
        if number == 0:
            values[here, 0] += 8
        elif number == 1:
            values[here, 3] += 1
        else:
            values[here, 1] = 10
    return values, labels


def fitted(name: str, train: Sequence[np.ndarray], seed: int = 0) -> Fitted:
    """The named baseline, fitted; the test is skipped where its library is not there."""
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name])
    return baselines()[name].fit(train, SCORED, seed)


@pytest.mark.parametrize("name", USEFUL)
def test_each_beats_random(name: str) -> None:
    values, labels = faulty_plant(1200, seed=1)
    train = [plant(600, seed=2), plant(600, seed=3)]
    chance = auc_pr(labels, fitted("random", train).score(values))
    assert auc_pr(labels, fitted(name, train).score(values)) > 2 * chance


@pytest.mark.parametrize("name", [name for name in baselines() if name != "random"])
def test_none_looks_ahead(name: str) -> None:
    values, _ = faulty_plant(400, seed=4)
    detector = fitted(name, [plant(500, seed=5)])
    whole = detector.score(values)
    assert whole.shape == (400,) and whole.dtype == np.float64
    np.testing.assert_allclose(detector.score(values[:170]), whole[:170], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", list(baselines()))
def test_the_seed_decides_and_is_declared(name: str) -> None:
    values, _ = faulty_plant(300, seed=6)
    train = [plant(400, seed=7)]
    first, again, other = (fitted(name, train, seed).score(values) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert baselines()[name].seeded == (not np.array_equal(first, other))


@pytest.mark.parametrize("name", USEFUL)
def test_missing_readings_give_finite_scores(name: str) -> None:
    values, _ = faulty_plant(300, seed=8)
    values[:5] = np.nan
    values[100:120, 2] = np.nan
    train = plant(400, seed=9)
    train[50:60, 1] = np.nan
    assert np.isfinite(fitted(name, [train]).score(values)).all()


# A forest has no place to cut a constant channel, and so is blind to it.
@pytest.mark.parametrize("name", [name for name in USEFUL if name != "isolation-forest"])
def test_a_channel_that_never_moved_is_watched(name: str) -> None:
    detector, clean = fitted(name, [plant(500, seed=10)]), plant(200, seed=11)
    moved = clean.copy()
    moved[150:, 3] += 1
    assert detector.score(moved)[150:].max() > detector.score(clean)[150:].max()


def test_inputs_of_the_machine_are_not_scored() -> None:
    scored, clean = np.array([False, True, True, True]), plant(200, seed=12)
    moved = clean.copy()
    moved[:, 0] += 100
    for name in ("static-z", "ewma-z", "t2-ewma", "pca-q", "ar-t2", "ar-sum"):
        detector = baselines()[name].fit([plant(500, seed=13)], scored, 0)
        np.testing.assert_allclose(detector.score(moved), detector.score(clean))


@pytest.mark.parametrize("regression", [own_lags, all_lags])
def test_residual_statistics_come_from_rows_that_were_not_fitted(regression) -> None:  # type: ignore[no-untyped-def]
    """Pure noise and nearly as many weights as rows: in-sample errors would be far too small."""
    rng = np.random.default_rng(14)
    noise = rng.normal(size=(160, 20)).astype(np.float32)
    fit = partial(fit_sum, regression)
    score = fit([noise], np.ones(20, bool), 0).score
    fresh = score(rng.normal(size=(2000, 20)).astype(np.float32))
    seen = score(noise)
    # Mean 0 and deviation 2 are what the sum of two standardised parts promises for new rows.
    assert abs(np.median(fresh)) < 3
    if regression is all_lags:
        assert np.median(seen) < np.median(fresh) - 3


def test_the_threshold_comes_from_rows_that_were_not_fitted() -> None:
    rows = np.arange(100, dtype=np.float32)[:, None]
    given: list[np.ndarray] = []

    def fit(train: Sequence[np.ndarray], scored: np.ndarray, seed: int) -> Fitted:
        given.extend(train)
        return Fitted(lambda values: values[:, 0].astype(np.float64), 0)

    alarmed = with_threshold(fit, [rows[:70], rows[70:]], np.ones(1, bool), 0)
    np.testing.assert_array_equal(np.concatenate(given), rows[:80])
    middle, largest = 89.5, 99.0
    assert alarmed.threshold == middle + 1.5 * (largest - middle)
    assert alarmed.alarms(np.array([[103.0], [104.0]], np.float32)).tolist() == [False, True]


def test_flag_all_alarms_always_and_random_never() -> None:
    train, clean = [plant(300, seed=15)], plant(100, seed=16)
    assert with_threshold(baselines()["flag-all"].fit, train, SCORED, 0).alarms(clean).all()
    assert not with_threshold(baselines()["random"].fit, train, SCORED, 0).alarms(clean).any()


def test_sizes_by_hand() -> None:
    train = [plant(400, seed=17)]
    scaler, root = 8, 10
    assert fitted("static-z", train).parameters == scaler
    assert fitted("t2-ewma", train).parameters == scaler + root
    # The dead channel's own lags say nothing and need no weight.
    assert fitted("ar-t2", train).parameters == scaler + 3 * 5 + root
    assert fitted("ar-sum", train).parameters == scaler + 3 * 5 + root + 4 + 4
    assert fitted("ar-t2", train).bytes == 4 * fitted("ar-t2", train).parameters


def test_standardised_rows_by_hand() -> None:
    rows = np.array([[1, 200], [3, 200]], np.float32)
    standardise = fit_standardiser([rows])
    np.testing.assert_allclose(standardise(rows), [[-1, 0], [1, 0]])
    gaps = np.array([[np.nan, 202], [3, np.nan], [np.inf, 1e9]], np.float32)
    np.testing.assert_allclose(standardise(gaps), [[0, 1], [1, 1], [1, 50]])


def test_ewma_by_hand() -> None:
    np.testing.assert_allclose(ewma(np.array([1.0, 1, 2, 2]), 0.5), [1, 1, 1.5, 1.75])


def test_rows_are_split_across_recordings() -> None:
    rows = np.arange(10)
    inside, outside = split_rows([rows[:4], rows[4:]], 3, 6)
    assert [piece.tolist() for piece in inside] == [[3], [4, 5]]
    assert [piece.tolist() for piece in outside] == [[0, 1, 2], [6, 7, 8, 9]]
