"""Logistic regression with a ridge, and the temperature that calibrates it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def fit_logistic(features: Float64, labels: Labels, classes: int, ridge: float) -> Float64:
    """Weights [classes, columns] of a multinomial logistic regression on features [n, columns].

    The first column is the constant one, which is not shrunk. All classes weigh the same however
    often they occur; a class that never occurs gets no probability worth mentioning.
    """
    weights = balanced(labels, classes)
    rows = np.arange(len(labels))

    def loss(flat: Float64) -> tuple[float, Float64]:
        matrix = flat.reshape(classes, -1)
        log_chance = log_softmax(features @ matrix.T)
        wrong = np.exp(log_chance)
        wrong[rows, labels] -= 1
        gradient = (wrong * weights[:, np.newaxis]).T @ features
        gradient[:, 1:] += ridge * matrix[:, 1:]
        value = -(weights * log_chance[rows, labels]).sum() + ridge / 2 * (matrix[:, 1:] ** 2).sum()
        return float(value), gradient.ravel()

    start = np.zeros(classes * features.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B").x.reshape(classes, -1)


def fit_temperature(logits: Float64, labels: Labels) -> float:
    """T for which softmax(logits / T) has the smallest log loss (Guo et al., ICML 2017).

    logits: [n, classes] of examples that the weights were not fitted to.
    """
    rows, weights = np.arange(len(labels)), balanced(labels, logits.shape[1])
    loss: Callable[[float], float] = lambda log_t: float(  # noqa: E731
        -(weights * log_softmax(logits / np.exp(log_t))[rows, labels]).sum()
    )
    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 3.0), method="bounded").x))


def log_softmax(logits: Float64) -> Float64:
    """Logarithms of the probabilities along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def balanced(labels: Labels, classes: int) -> Float64:
    """Weights [n] that sum to one, with the same total for every class that occurs."""
    counts = np.bincount(labels, minlength=classes)
    return 1.0 / (counts[labels] * np.count_nonzero(counts))


def calibration_error(chances: Float64, labels: Labels, bins: int = 10) -> float:
    """Expected calibration error of the most probable class, chances [n, classes]."""
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float((confidence[index == b] - right[index == b]).sum())) for b in np.unique(index)
    ]
    return sum(gaps) / len(labels)
