"""The far tail of clean scores: how high do they reach once a day?

Peaks over a high level, one for each alarm that it would give, come at some rate, and their
excesses are taken as exponential: the generalised Pareto distribution (Pickands 1975) with its
shape held at 0. A free or shrunk shape was measured and costs more than it brings with hours or
days of scores (docs/calibration.md). How far off rate and mean excess may be together is found by
drawing both from what n peaks leave open: the true rate over the measured one, and the measured
mean over the true one, are gamma variables of shape n and mean 1, the second exactly.

A machine that does the same thing now and then (a load that is switched) has peaks that are all
alike, far above a low level. No exponential begins there, and its tail would be far too heavy: so
the level is the lowest of three over which the excesses vary as much as an exponential's do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.alarm_course import PAUSE, alarm_stretches
from edge_runtime.bundle.manifest import Alarm

Float64 = npt.NDArray[np.float64]

LEVELS = (0.95, 0.98, 0.99)  # quantiles of the scores
FEWEST_PEAKS = 10
VARYING = 0.75  # deviation over mean of excesses; 1 for an exponential, .2 less by chance in 20
UPPER_LIMIT = 0.75
DRAWS = 4000
SEED = 1


@dataclass(frozen=True)
class Tail:
    """`count` peaks above `level` in `days`, whose mean excess is `scale`."""

    level: float
    count: int
    days: float
    scale: float

    def reached(self, per_day: float) -> float:
        """The level that peaks exceed `per_day` times a day; never below the fitted one."""
        ratio = self.count / (self.days * per_day)
        return self.level + self.scale * float(np.log(max(ratio, 1.0)))

    def upper(self, per_day: float) -> float:
        """Upper 75 % confidence limit of `reached`."""
        rng = np.random.default_rng(SEED)
        ratios = rng.gamma(self.count, 1 / self.days, DRAWS) / per_day
        scales = self.scale * self.count / rng.gamma(self.count, 1, DRAWS)
        levels = scales * np.log(np.maximum(ratios, 1.0))
        return self.level + float(np.quantile(levels, UPPER_LIMIT))


def peaks(scores: Float64, level: float, alarm: Alarm) -> Float64:
    """The largest debounced score of each alarm that a threshold at `level` would give.

    scores: [n], debounced. The alarm stays on for `clear_after` samples after the last of them.
    """
    stretches = alarm_stretches(scores > level, PAUSE + alarm.clear_after - 1)
    if not stretches:
        return np.zeros(0)
    return np.maximum.reduceat(scores, [start for start, _ in stretches])


def tail_of(scores: Sequence[Float64], days: float, alarm: Alarm) -> tuple[Tail | None, Float64]:
    """The tail of debounced clean scores, each recording [n], which last `days`; and its peaks.

    None, and the peaks over the lowest level, where there are fewer than `FEWEST_PEAKS` of them.
    """
    joined = np.concatenate(scores)
    tail, found = None, np.zeros(0)
    for number, quantile in enumerate(LEVELS):
        level = float(np.quantile(joined, quantile))
        above = np.concatenate([peaks(each, level, alarm) for each in scores])
        if number == 0:
            found = above
        if len(above) < FEWEST_PEAKS:
            break
        tail, found = fit_tail(above, level, days), above
        if (above - level).std() >= VARYING * tail.scale:
            break
    return tail, found


def fit_tail(found: Float64, level: float, days: float) -> Tail:
    """The tail of the peaks `found` above `level` in `days`; there must be one at least."""
    return Tail(level, len(found), days, float((found - level).mean()))
