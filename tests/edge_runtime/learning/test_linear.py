"""Fitting the linear detector: on all rows, and for each fold on all rows but its own."""

import numpy as np
import pytest

from edge_runtime.learning.highway import Kind, fit_highway, innovation_scale
from edge_runtime.learning.linear import FOLDS, cut_folds, fit_linear, fold_weights, highway_arrays
from edge_runtime.learning.prepare import Rows

ORDER = 2
LENGTHS = (400, 90, 510)


def rows(seed: int = 0) -> Rows:
    """Three recordings of two channels, the second driven by the first, with some holes."""
    rng = np.random.default_rng(seed)
    values, masks = [], []
    for length in LENGTHS:
        x = rng.standard_normal((length, 2))
        for t in range(1, length):
            x[t] = [0.7 * x[t - 1, 0] + 0.5 * x[t, 0], 0.6 * x[t - 1, 0] + 0.2 * x[t, 1]]
        mask = (rng.random((length, 2)) > 0.02).astype(np.float32)
        values.append((x * mask).astype(np.float32))
        masks.append(mask)
    return Rows(tuple(values), tuple(masks))


@pytest.fixture(scope="module")
def fitted() -> dict[str, np.ndarray]:
    return fit_linear(rows(), ORDER)


def test_what_ships_is_fitted_on_all_rows(fitted: dict[str, np.ndarray]) -> None:
    whole = fit_highway(rows().values, rows().masks, ORDER)
    np.testing.assert_array_equal(fitted["highway"], whole.own)
    np.testing.assert_array_equal(fitted["cross"], whole.cross)
    scale = innovation_scale(rows().values, rows().masks, whole)
    np.testing.assert_array_equal(fitted["innovation_scale"], scale)
    assert fitted["cross"].shape == (2, 2 * ORDER)


def test_every_fold_has_its_own_highway_under_plain_names(fitted: dict[str, np.ndarray]) -> None:
    named = {f"fold-{i}/{name}" for i in range(FOLDS) for name in ("highway", "cross")}
    assert set(fitted) == {"highway", "cross", "innovation_scale", *named}
    for fold in range(FOLDS):
        weights = fold_weights(fitted, fold)
        assert set(weights) == {"highway", "cross"}
        np.testing.assert_array_equal(weights["highway"], fitted[f"fold-{fold}/highway"])
        assert not np.array_equal(weights["highway"], fitted["highway"])


def test_fold_1_is_not_mistaken_for_a_fold_that_begins_like_it() -> None:
    arrays = {f"fold-{i}/highway": np.full(1, i) for i in (1, 10, 11)}
    assert fold_weights(arrays, 1) == {"highway": np.ones(1)}


def test_a_fold_is_fitted_on_the_pieces_of_all_others(fitted: dict[str, np.ndarray]) -> None:
    for fold in (0, 4, 9):
        values, masks = (
            [p for i, pieces in enumerate(cut_folds(side)) if i != fold for p in pieces]
            for side in (rows().values, rows().masks)
        )
        expected = highway_arrays(fit_highway(values, masks, ORDER))
        for name, array in fold_weights(fitted, fold).items():
            np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize("fold", [0, 3, 4, FOLDS - 1])
def test_no_fold_ever_saw_its_rows(fitted: dict[str, np.ndarray], fold: int) -> None:
    data = rows()
    first, last = (sum(LENGTHS) * i // FOLDS for i in (fold, fold + 1))
    joined = np.concatenate(data.values)
    joined[first:last] *= -3
    joined[first:last] += 1
    edges = np.cumsum(LENGTHS)[:-1]
    changed = fit_linear(Rows(tuple(np.split(joined, edges)), data.masks), ORDER)
    for other in range(FOLDS):
        same = [
            np.array_equal(array, fold_weights(fitted, other)[name])
            for name, array in fold_weights(changed, other).items()
        ]
        assert all(same) if other == fold else not any(same)
    assert not np.array_equal(changed["highway"], fitted["highway"])


@pytest.mark.parametrize(("kind", "crossed"), [("full", 2), ("channel", 0), ("none", 0)])
def test_the_kind_is_that_of_every_fold(kind: Kind, crossed: int) -> None:
    found = fit_linear(rows(), ORDER, kind)
    assert [len(v) for k, v in found.items() if "cross" in k] == [crossed] * (FOLDS + 1)
    own = [v for k, v in found.items() if "highway" in k]
    assert all(v.any() == (kind != "none") for v in own)


def test_all_arrays_are_float32_and_the_same_each_time(fitted: dict[str, np.ndarray]) -> None:
    again = fit_linear(rows(), ORDER)
    assert {array.dtype for array in fitted.values()} == {np.dtype(np.float32)}
    for name, array in again.items():
        np.testing.assert_array_equal(array, fitted[name])
