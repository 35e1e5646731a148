"""Fit the diagnosis's constants from clean rows only.

Clean behaviour is measured first (`learning.diagnosis.clean_behaviour`). Then faults are injected
into the same rows (`learning.diagnosis.fault_examples`), always into a part that the covariance in
use has not seen. Two ridge-regularised logistic regressions learn from what the runtime notices of
them; a fifth of the events is held out for their temperatures.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime import diagnosis
from edge_runtime.bundle.manifest import Channel
from edge_runtime.diagnosis import (
    KINDS,
    MACHINE,
    SENSOR_KINDS,
    DiagnosisConstants,
)
from edge_runtime.learning.diagnosis.clean_behaviour import (
    PERSISTENCE,
    Stretch,
    clean_behaviour,
    sampled,
    stretch,
)
from edge_runtime.learning.diagnosis.fault_examples import TURNS, Example, gather
from edge_runtime.symptoms import MOST_CHANNELS, SymptomConstants

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
EVENTS, ROWS_PER_EVENT = 1350, 2  # fewer events in short recordings
FEWEST_ROWS = 600
SHORTEST = 2 * PERSISTENCE  # rows of a recording; a shorter one has no persistence
# Enough rows to measure covariances and to place faults; more would only take time.
MOST_ROWS, MOST_DAMAGED_ROWS = 24000, 6000
FEWEST_EXAMPLES = 5  # of each kind; fewer do not define its shape
RIDGE = 0.003
MOST_NEWTON_STEPS, SMALLEST_GRADIENT, SMALLEST_STEP = 50, 1e-10, 1e-9
LOG_TEMPERATURES, BISECTIONS = (-2.0, 3.0), 50
CALIBRATION_SHARE = 5  # every fifth round of events
Labels = npt.NDArray[np.int64]


def fit_diagnosis(
    recordings: Sequence[Float32],
    channels: tuple[Channel, ...],
    seed: int,
    events: int | None = None,
) -> DiagnosisConstants | None:
    """Fit all constants from clean raw `recordings` [n, channels].

    events: number of faults to inject. Returns None with fewer than two watched channels, more than
    `MOST_CHANNELS` channels, too few rows in recordings of at least `SHORTEST` rows, or too few
    examples of a kind of fault whose channel was found.
    """
    exogenous = np.array([c.exogenous for c in channels])
    recordings = [rows for rows in recordings if len(rows) >= SHORTEST]
    rows = sum(map(len, recordings))
    enough = rows >= FEWEST_ROWS and np.count_nonzero(~exogenous) >= 2
    if not enough or len(channels) > MOST_CHANNELS:
        return None
    whole = sampled([stretch(rows, channels) for rows in recordings], MOST_ROWS)
    final, parts = clean_behaviour(whole, exogenous)
    damaged = [(clean, sampled(fold, MOST_DAMAGED_ROWS // len(parts))) for clean, fold in parts]
    count = min(EVENTS, rows // ROWS_PER_EVENT) if events is None else events
    examples = injected(damaged, np.random.default_rng(seed), count)
    blamed = Counter(e.kind for e in examples if e.blamed)
    if min(blamed[kind] for kind in range(len(KINDS))) < FEWEST_EXAMPLES:
        return None
    return fit_classifiers(final, examples)


def injected(
    damaged: Sequence[tuple[SymptomConstants, Sequence[Stretch]]],
    rng: np.random.Generator,
    events: int,
) -> list[Example]:
    """Return examples of about `events` events, distributed by the number of rows."""
    rows = sum(len(piece.reading) for _, pieces in damaged for piece in pieces)
    examples: list[Example] = []
    placed = 0
    for constants, pieces in damaged:
        for piece in pieces:
            count = round(events * len(piece.reading) / rows)
            examples += gather(piece, constants, rng, count, placed)
            placed += count
    return examples


def fit_classifiers(clean: SymptomConstants, examples: Sequence[Example]) -> DiagnosisConstants:
    """Fit both regressions to examples with the right channel, calibrated on every fifth event."""
    used = [e for e in examples if e.blamed]
    features = np.array([e.features for e in used], np.float64)
    kinds = np.array([e.kind for e in used])
    kept = np.array([e.event // TURNS % CALIBRATION_SHARE == 0 for e in used])
    center, scale = features.mean(axis=0), features.std(axis=0) + 1e-3
    bound = float(diagnosis.FEATURE_CLIP)
    scaled = np.clip((features - center) / scale, -bound, bound)
    ones = np.ones((len(used), 1))
    machine = np.hstack([ones, scaled[:, diagnosis.MACHINE_FEATURES]])
    shapes = scaled[:, diagnosis.KIND_FEATURES]
    shape = np.hstack([ones, shapes, shapes**2])
    is_machine = (kinds == KINDS.index(MACHINE)).astype(np.int64)
    sensor = is_machine == 0
    machine_weights = _calibrated(machine, is_machine, kept, 2)
    kind_weights = _calibrated(shape[sensor], kinds[sensor], kept[sensor], len(SENSOR_KINDS))
    return DiagnosisConstants(
        symptoms=clean,
        center=center.astype(np.float32),
        scale=scale.astype(np.float32),
        machine=(machine_weights[1] - machine_weights[0]).astype(np.float32),
        kinds=kind_weights.astype(np.float32),
    )


def _calibrated(
    features: Float64, labels: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_], classes: int
) -> Float64:
    """Return weights [classes, columns], divided by the temperature of the held-out examples."""
    weights = fit_logistic(features[~kept], labels[~kept], classes, RIDGE)
    return weights / fit_temperature(features[kept] @ weights.T, labels[kept])


def fit_logistic(features: Float64, labels: Labels, classes: int, ridge: float) -> Float64:
    """Fit weights [classes, columns] of a multinomial logistic regression on features [n, columns].

    The first column is constant and not shrunk. All classes have the same total weight; a class
    that never occurs gets a probability near 0. Newton's method, with steps halved until the loss
    falls.
    """
    share = balanced(labels, classes)
    right = np.eye(classes)[labels]
    shrunk = np.full((classes, features.shape[1]), ridge)
    shrunk[:, 0] = 0

    def loss(weights: Float64) -> float:
        log_chance = log_softmax(features @ weights.T)
        return float(
            (shrunk * weights**2).sum() / 2 - (share * (right * log_chance).sum(axis=1)).sum()
        )

    weights = np.zeros_like(shrunk)
    for _ in range(MOST_NEWTON_STEPS):
        chance = np.exp(log_softmax(features @ weights.T))
        gradient = ((chance - right) * share[:, np.newaxis]).T @ features + shrunk * weights
        if np.abs(gradient).max() < SMALLEST_GRADIENT:
            break
        curvature = _curvature(features, chance, share) + np.diag(shrunk.ravel())
        step = np.linalg.solve(curvature, gradient.ravel()).reshape(weights.shape)
        before = loss(weights)
        while loss(weights - step) > before and np.abs(step).max() > SMALLEST_STEP:
            step = step / 2
        weights = weights - step
    return weights


def _curvature(features: Float64, chance: Float64, share: Float64) -> Float64:
    """Return the Hessian [classes * columns] of the log loss, regular in the intercepts.

    Adding the same number to all intercepts changes no probability, so the Hessian is singular in
    that direction. The gradient has no part in it, so any curvature there gives the same step.
    """
    classes, columns = chance.shape[1], features.shape[1]
    curvature = np.zeros((classes, columns, classes, columns))
    for a in range(classes):
        for b in range(a, classes):
            weight = share * chance[:, a] * (float(a == b) - chance[:, b])
            block = (features * weight[:, np.newaxis]).T @ features
            curvature[a, :, b], curvature[b, :, a] = block, block
    curvature[:, 0, :, 0] += 1 / classes
    return curvature.reshape(classes * columns, classes * columns)


def fit_temperature(logits: Float64, labels: Labels) -> float:
    """Return the T for which softmax(logits / T) has the smallest log loss (Guo et al., ICML 2017).

    logits: [n, classes] of examples that the weights were not fitted to. The loss is convex in
    1 / T, so its slope is bisected over the logarithms of T in `LOG_TEMPERATURES`.
    """
    share = balanced(labels, logits.shape[1])
    own = logits[np.arange(len(labels)), labels]
    low, high = LOG_TEMPERATURES
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        chance = np.exp(log_softmax(logits / np.exp(middle)))
        # The slope along 1 / T: negative where a smaller T fits better.
        if (share * ((chance * logits).sum(axis=1) - own)).sum() < 0:
            high = middle
        else:
            low = middle
    return float(np.exp((low + high) / 2))


def log_softmax(logits: Float64) -> Float64:
    """Return the logarithms of the probabilities along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logs: Float64 = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs


def balanced(labels: Labels, classes: int) -> Float64:
    """Return weights [n] that sum to one, with the same total for every class that occurs."""
    counts = np.bincount(labels, minlength=classes)
    weights: Float64 = 1.0 / (counts[labels] * np.count_nonzero(counts))
    return weights


def calibration_error(chances: Float64, labels: Labels, bins: int = 10) -> float:
    """Return the expected calibration error of the most probable class; chances: [n, classes]."""
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float((confidence[index == b] - right[index == b]).sum())) for b in np.unique(index)
    ]
    return sum(gaps) / len(labels)
