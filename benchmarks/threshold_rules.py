"""Ways from clean scores to a threshold for a wished rate: gruard's, and the usual ones.

Each takes the scores [n] of one clean recording, one a second, and gives a threshold.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import AlarmRule
from edge_runtime.calibration import LEVELS, SECONDS_PER_DAY, calibrate, debounce, peaks

Float64 = npt.NDArray[np.float64]
Rule = Callable[[Float64], float]

WISH = 1.0  # false alarms a day
ALARM = AlarmRule(m=2, n=3, clear_after=10)
PLAIN_LEVEL = 0.98  # quantile over which a plain peaks-over-threshold fit is usually made
RESAMPLES, UPPER_LIMIT = 200, 0.95
LARGEST_SHAPE = 0.25


def gruard(scores: Float64) -> float:
    """What `gruard calibrate` and the conversion do."""
    return calibrate([scores], [], WISH, 1.0, ALARM).threshold.value


def fitted_shape(scores: Float64) -> float:
    """Debounced and declustered as gruard does, but with the shape fitted too.

    The shape is bounded; the threshold is the upper 95 % value of a parametric bootstrap.
    """
    smooth = debounce(scores, ALARM)
    days = len(smooth) / SECONDS_PER_DAY
    level = float(np.quantile(smooth, LEVELS[0]))
    excesses = peaks(smooth, level, ALARM) - level
    scale, shape = _moments(excesses)
    rng, levels = np.random.default_rng(1), []
    for _ in range(RESAMPLES):
        count = max(int(rng.poisson(len(excesses))), 2)
        again = _moments(_excess(1 / rng.random(count), scale, shape))
        levels.append(level + float(_excess(np.array(count / (WISH * days)), *again)))
    return float(np.quantile(levels, UPPER_LIMIT))


def plain_tail(scores: Float64) -> float:
    """Peaks over threshold as it is usually done: every excess is a peak, the best fit is taken."""
    days = len(scores) / SECONDS_PER_DAY
    level = float(np.quantile(scores, PLAIN_LEVEL))
    excesses = scores[scores > level] - level
    ratio = np.array(len(excesses) / (WISH * days))
    return level + float(_excess(ratio, *_moments(excesses)))


def quantile(scores: Float64) -> float:
    """The score that is exceeded as often as wished; the largest where there is less than a day."""
    return float(np.quantile(scores, 1 - WISH / SECONDS_PER_DAY))


def three_sigma(scores: Float64) -> float:
    """Mean and three standard deviations."""
    return float(scores.mean() + 3 * scores.std())


RULES: dict[str, Rule] = {
    "gruard": gruard,
    "shape fitted, upper 95 %": fitted_shape,
    "plain POT": plain_tail,
    "plain quantile": quantile,
    "mean + 3σ": three_sigma,
}


def _moments(excesses: Float64) -> tuple[float, float]:
    """Scale and bounded shape from probability-weighted moments (Hosking and Wallis 1987)."""
    ordered, count = np.sort(excesses), len(excesses)
    mean = float(ordered.mean())
    smaller = np.arange(count - 1, -1, -1) / max(count - 1, 1)
    weighted = float((ordered * smaller).mean())
    shape = 2 - mean / max(mean - 2 * weighted, 1e-12)
    shape = float(np.clip(shape, -LARGEST_SHAPE, LARGEST_SHAPE))
    return mean * (1 - shape), shape


def _excess(ratio: Float64, scale: float, shape: float) -> Float64:
    """What a generalised Pareto variable exceeds once in `ratio` times; 0 up to a ratio of 1."""
    logs = np.log(np.maximum(ratio, 1.0))
    return scale * (np.expm1(shape * logs) / shape if shape else logs)
