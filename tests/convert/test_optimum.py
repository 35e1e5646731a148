"""The regressions of the diagnosis against scipy, which the device does not have."""

from collections.abc import Callable

import numpy as np
import pytest
from made_diagnosis import CHANNELS, made_rows
from scipy.optimize import minimize, minimize_scalar

from edge_runtime.learning.diagnosis import fit
from edge_runtime.learning.diagnosis.fit import (
    LOG_TEMPERATURES,
    balanced,
    fit_logistic,
    fit_temperature,
    log_softmax,
)

Fit = tuple[np.ndarray, np.ndarray, int, float]
TIGHT = {"ftol": 1e-16, "gtol": 1e-11, "maxiter": 100_000, "maxfun": 100_000}
NEARLY = 1e-4  # of a probability


@pytest.fixture(scope="module")
def fits() -> list[Fit]:
    """Features, labels, classes and ridge of both regressions of a made machine."""
    seen: list[Fit] = []

    def spy(*arguments: object) -> np.ndarray:
        seen.append(arguments)  # type: ignore[arg-type]
        return fit_logistic(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "fit_logistic", spy)
        assert fit.fit_diagnosis([made_rows(1200, 1)], CHANNELS, 0) is not None
    assert [classes for _, _, classes, _ in seen] == [2, 7]
    return seen


def loss_of(given: Fit) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The loss of flat weights, and its gradient."""
    features, labels, classes, ridge = given
    share, rows = balanced(labels, classes), np.arange(len(labels))

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        matrix = flat.reshape(classes, -1)
        logs = log_softmax(features @ matrix.T)
        wrong = np.exp(logs)
        wrong[rows, labels] -= 1
        gradient = (wrong * share[:, np.newaxis]).T @ features
        gradient[:, 1:] += ridge * matrix[:, 1:]
        value = ridge / 2 * (matrix[:, 1:] ** 2).sum() - (share * logs[rows, labels]).sum()
        return float(value), gradient.ravel()

    return loss


@pytest.mark.long
def test_scipy_finds_the_same_optimum_where_it_is_told_to_go_on(fits: list[Fit]) -> None:
    for given in fits:
        features, _, classes, _ = given
        weights, loss = fit_logistic(*given), loss_of(given)
        start = np.zeros(weights.size)
        found, early = (
            minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
            for options in (TIGHT, {})
        )
        chances = [
            np.exp(log_softmax(features @ each.reshape(classes, -1).T))
            for each in (weights, found.x)
        ]
        np.testing.assert_allclose(*chances, atol=NEARLY)
        assert loss(weights.ravel())[0] <= found.fun + 1e-12 < early.fun


def test_scipy_finds_the_same_temperature(fits: list[Fit]) -> None:
    for given in fits:
        features, labels, classes, _ = given
        logits = 3 * features @ fit_logistic(*given).T
        share, rows = balanced(labels, classes), np.arange(len(labels))

        def loss(log_t: float, logits: np.ndarray = logits) -> float:
            logs = log_softmax(logits / np.exp(log_t))
            return float(-(share * logs[rows, labels]).sum())  # noqa: B023

        found = minimize_scalar(
            loss, bounds=LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-9}
        )
        assert fit_temperature(logits, labels) == pytest.approx(np.exp(found.x), rel=1e-5)
