"""From a wished number of false alarms per day to a threshold, and what that promise rests on.

Simple and honest: scores of clean held-out rows are debounced as on the device, peaks above a high
quantile are declustered, and their excesses are taken as exponential (the generalised Pareto
distribution with shape 0). The threshold uses the upper 95 % confidence limit of the mean excess
(2 n mean / chi2_0.05(2 n), exact for exponential excesses), so little data makes it higher, not
lower. Small samples: with fewer than 10 peaks the tail cannot be fitted, and with clean rows for
less than a twentieth of the wished interval it would have to be believed far beyond what was ever
seen; then 1.5 times the largest clean score is used, and the method says so.

The promise is then checked on further clean rows: with k alarms in T days the exact upper 95 %
bound on the rate is chi2_0.95(2 k + 2) / (2 T) (Garwood 1936). Only a bound below the
wish is "assured".
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from edge_runtime.alarm import debounced
from edge_runtime.errors import GruardError
from edge_runtime.manifest import Alarm, Threshold

Float64 = npt.NDArray[np.float64]

TAIL_QUANTILE = 0.9
FEWEST_PEAKS = 10
SHORTEST_SHARE = 0.05  # of the wished interval between two false alarms
CLUSTER_GAP = 30  # samples between two peaks that count as two events
CONFIDENCE = 0.95
SMALL_SAMPLE_FACTOR = 1.5
CLEAR_RATE = 10.0  # the alarm clears below the threshold that ten times the wish would give
SECONDS_PER_DAY = 86400.0


def calibrate_threshold(
    clean: Sequence[npt.ArrayLike],
    held_out: Sequence[npt.ArrayLike],
    wished_per_day: float,
    period: float | None,
    alarm: Alarm,
) -> Threshold:
    """The threshold for at most `wished_per_day` false alarms.

    clean, held_out: settled scores of clean recordings, which must not share rows. period: seconds
    per sample; unknown counts as 1 s, and the statement says so. Raises GruardError when `clean` is
    too short for a single debounced score.
    """
    days_per_row = (period or 1.0) / SECONDS_PER_DAY
    smooth = [debounce(np.asarray(scores, float), alarm) for scores in clean]
    if not any(map(len, smooth)):
        raise GruardError(
            "no clean sample is left to set a threshold from once the model has settled; "
            "record the healthy machine for longer"
        )
    days = sum(map(len, smooth)) * days_per_row
    value, clear, method = _tail(smooth, wished_per_day, days)
    unseen = [debounce(np.asarray(scores, float), alarm) for scores in held_out]
    alarms = sum(_events(scores, value) for scores in unseen)
    unseen_days = sum(map(len, unseen)) * days_per_row
    bound = rate_bound(alarms, unseen_days)
    assured = bound <= wished_per_day
    needed = 0.0 if assured else _days_needed(alarms, wished_per_day) - unseen_days
    return Threshold(
        value=float(np.float32(value)),
        clear=float(np.float32(clear)),
        wished_per_day=wished_per_day,
        method=method,
        clean_days=days,
        held_out_days=unseen_days,
        held_out_alarms=alarms,
        upper_bound_per_day=bound,
        assured=assured,
        days_needed=needed,
        statement=_statement(wished_per_day, days, unseen_days, alarms, bound, needed, period),
    )


def debounce(scores: Float64, alarm: Alarm) -> Float64:
    """The m-th largest of each n scores in a row: above a level exactly when the alarm rises."""
    if len(scores) < alarm.n:
        return np.zeros(0)
    windows = np.lib.stride_tricks.sliding_window_view(scores, alarm.n)
    return np.array([debounced(tuple(window), alarm.m) for window in windows])


def rate_bound(events: int, days: float) -> float:
    """Exact upper 95 % bound on events per day after `events` in `days`; 1e9 for no time at all."""
    return float(chi2.ppf(CONFIDENCE, 2 * events + 2) / (2 * days)) if days > 0 else 1e9


def peaks(scores: Float64, level: float) -> Float64:
    """The largest score of each cluster above `level`."""
    above = np.flatnonzero(scores > level)
    if not len(above):
        return np.zeros(0)
    clusters = np.split(above, np.flatnonzero(np.diff(above) > CLUSTER_GAP) + 1)
    return np.array([scores[cluster].max() for cluster in clusters])


def _tail(smooth: Sequence[Float64], wished: float, days: float) -> tuple[float, float, str]:
    joined = np.concatenate(smooth)
    level = float(np.quantile(joined, TAIL_QUANTILE))
    found = np.concatenate([peaks(scores, level) for scores in smooth])
    if len(found) < FEWEST_PEAKS or wished * days < SHORTEST_SHARE:
        centre, largest = float(np.median(joined)), float(joined.max())
        return (
            centre + SMALL_SAMPLE_FACTOR * (largest - centre),
            largest,
            f"small-sample rule: {SMALL_SAMPLE_FACTOR} times the largest clean score",
        )
    count = len(found)
    mean = float((found - level).mean()) * 2 * count / float(chi2.ppf(1 - CONFIDENCE, 2 * count))

    def threshold(rate: float) -> float:
        # Below the fitted level the tail says nothing.
        return level + mean * max(float(np.log(count / (rate * days))), 0.0)

    return (
        threshold(wished),
        threshold(CLEAR_RATE * wished),
        f"exponential tail over {count} declustered peaks, upper {CONFIDENCE:.0%} limit",
    )


def _events(scores: Float64, level: float) -> int:
    return len(peaks(scores, level))


def _days_needed(alarms: int, wished: float) -> float:
    """Clean days in all with no more than `alarms` alarms that would assure the wish."""
    return float(chi2.ppf(CONFIDENCE, 2 * alarms + 2) / (2 * wished))


def _statement(
    wished: float,
    days: float,
    unseen_days: float,
    alarms: int,
    bound: float,
    needed: float,
    period: float | None,
) -> str:
    wish = f"wish: {wished:g} false alarms a day; threshold from {_duration(days)} of clean data"
    check = f"checked on {_duration(unseen_days)} it never saw: {alarms} alarms"
    verdict = (
        f"assured: at most {bound:.2g} a day with 95 % confidence"
        if needed <= 0
        else f"not assured: {_duration(needed)} more clean data without a further alarm would do"
    )
    unit = "" if period else " (sample period unknown, 1 s assumed)"
    return f"{wish}, {check}; {verdict}{unit}"


def _duration(days: float) -> str:
    seconds = days * SECONDS_PER_DAY
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
