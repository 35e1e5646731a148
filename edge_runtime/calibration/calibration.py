"""From a wished number of false alarms per day to a threshold, and what that promise rests on.

Scores of clean rows that the model never saw are debounced as on the device; their tail
(`calibration.tail`) gives the level that is reached as often as wished, and its upper confidence
limit is the threshold, so that little data makes it higher, not lower. A machine that is restless
for hours at a time has not shown all of that in a day: with w the deviation of the medians of eight
blocks in time order over the spread of all scores (84 % quantile less median), the threshold is
1 + 0.8 w times as far from the median (docs/calibration.md). With fewer than 10 peaks
there is no tail to fit, and with clean rows for less than a fiftieth of the wished interval it
would have to be believed far beyond what was ever seen: then 1.5 times the largest clean score
(from their median) is used, and the method says so. What was fitted to few rows errs more on
others: with fewer than 350 scores the factor grows by 350 over their number, to 3 at most
(docs/changes.md).

The promise is then checked on further clean rows: only when the exact upper bound on the rate of
alarms (`calibration.poisson`) is below the wish is it "assured".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Alarm, Manifest, Threshold
from edge_runtime.bundle.manifest_rules import UNLIMITED
from edge_runtime.calibration.poisson import mean_bound, rate_bound
from edge_runtime.calibration.tail import UPPER_LIMIT, Tail, peaks, tail_of
from edge_runtime.errors import UnfitError

Float64 = npt.NDArray[np.float64]

WANDER_BLOCKS, WANDER = 8, 0.8
SHORTEST_SHARE = 0.02  # of the wished interval between two false alarms
SMALL_SAMPLE_FACTOR = 1.5
# Ceilings bound what a fault can score, too. With many scores their largest has come close to what
# a healthy machine will ever show, and further up little would be found (docs/calibration.md).
MANY_SCORES, BOUNDED_FACTOR = 5000, 1.2
ENOUGH_SCORES, LARGEST_RAISE = 350, 2.0
ALONE = (1.0, 1.0)  # factor and raise: one channel has few ways to be strange
BLOCKS, LARGEST_STANDOUT = 10, 12.0
CAPPED_STANDOUT = 7.0  # where ceilings bound the score: nothing stands out further than they let it
CLEAR_RATE = 10.0  # the alarm clears below the threshold that ten times the wish would give
SECONDS_PER_DAY = 86400.0
# Scores that set the threshold where about 1,000 clean rows were recorded; a network's rest on the
# fifth of them that it never saw.
FEWEST_SCORES, FEWEST_UNSEEN = 900, 180


@dataclass(frozen=True)
class Calibration:
    """A threshold, and for the picture what it was drawn from.

    peaks: [n] above the tail's level, also where no tail was fitted (tail is None). standout: how
    far the strangest clean score stands out from the usual ones; row: which it is of the `rows`
    settled ones. limit: how far it may.
    """

    threshold: Threshold
    tail: Tail | None
    peaks: Float64
    standout: float
    row: int
    rows: int
    limit: float

    @property
    def dirty(self) -> bool:
        """Whether the clean scores hold one that is none."""
        return self.standout > self.limit


@dataclass(frozen=True)
class Margins:
    """What is expected of clean scores. standout: how far one may stand out from the others.

    small_sample: the threshold over the largest of them, where they are too few for a tail; and how
    many times that at most, where they are few indeed. bounded: whether ceilings bound them.
    """

    standout: float = LARGEST_STANDOUT
    small_sample: float = SMALL_SAMPLE_FACTOR
    largest_raise: float = LARGEST_RAISE
    bounded: bool = False


def margins_of(source: Manifest) -> Margins:
    """Those of the detector of `source`."""
    capped = any(min(memory.ceiling) < UNLIMITED for memory in source.score.memories)
    alone = sum(not channel.exogenous for channel in source.channels) == 1
    if alone:
        return Margins(CAPPED_STANDOUT if capped else LARGEST_STANDOUT, *ALONE)
    if capped:
        return Margins(CAPPED_STANDOUT, bounded=True)
    return Margins()


def trial_of(source: Manifest) -> str:
    """What to say of a bundle that has seen little of its machine; empty where it has seen more."""
    threshold = next(iter(source.thresholds.values()))
    rows = round(threshold.clean_days * SECONDS_PER_DAY / (source.period or 1.0))
    if rows >= (FEWEST_SCORES if source.linear else FEWEST_UNSEEN):
        return ""
    return f"trial: threshold from {rows} clean rows; learn again with more"


def calibrate(
    clean: Sequence[npt.ArrayLike],
    held_out: Sequence[npt.ArrayLike],
    wished_per_day: float,
    period: float | None,
    alarm: Alarm,
    margins: Margins = Margins(),
    left_out: int = 0,
) -> Calibration:
    """The threshold for at most `wished_per_day` false alarms.

    clean, held_out: settled scores of clean recordings, which must not share rows. period: seconds
    per sample; unknown counts as 1 s, and the statement says so. margins: of the detector.
    left_out: clean rows that are not among the scores because they are like no others. Raises
    UnfitError when `clean` is too short for a single debounced score.
    """
    days = SECONDS_PER_DAY / (period or 1.0)  # in rows
    smooth = [debounce(np.asarray(scores, float), alarm) for scores in clean]
    if not any(map(len, smooth)):
        raise UnfitError(
            "no clean sample is left to set a threshold from once the model has settled; "
            "record the healthy machine for longer"
        )
    clean_days = sum(map(len, smooth)) / days
    tail, found = tail_of(smooth, clean_days, alarm)
    if wished_per_day * clean_days < SHORTEST_SHARE:
        tail = None
    joined = np.concatenate(smooth)
    value, clear, method = _levels(joined, tail, wished_per_day, margins)
    unseen = [debounce(np.asarray(scores, float), alarm) for scores in held_out]
    alarms = sum(len(peaks(scores, value, alarm)) for scores in unseen)
    unseen_days = sum(map(len, unseen)) / days
    bound = rate_bound(alarms, unseen_days)
    assured = bound <= wished_per_day
    threshold = Threshold(
        value=float(np.float32(value)),
        clear=float(np.float32(clear)),
        wished_per_day=wished_per_day,
        method=method,
        clean_days=clean_days,
        held_out_days=unseen_days,
        held_out_alarms=alarms,
        upper_bound_per_day=bound,
        assured=assured,
        days_needed=0.0 if assured else mean_bound(alarms) / wished_per_day - unseen_days,
        statement="",
    )
    statement = _statement(threshold, period, left_out)
    return Calibration(
        replace(threshold, statement=statement),
        tail,
        found,
        _standout(joined),
        int(joined.argmax()) + alarm.n - 1,
        len(joined) + alarm.n - 1,
        margins.standout,
    )


def _standout(joined: Float64) -> float:
    """Height of the largest of debounced scores [n] over that of the usual block's largest.

    Clean scores give 1 to 9, however their volatility clusters (docs/calibration.md); an anomaly
    among them gives tens, and a threshold that nothing will ever reach.
    """
    centre = float(np.median(joined))
    tops = [float(block.max()) - centre for block in np.array_split(joined, BLOCKS) if len(block)]
    return max(tops) / max(float(np.median(tops)), 1e-9)


def debounce(scores: Float64, alarm: Alarm) -> Float64:
    """The m-th largest of each n scores in a row: above a level exactly when the alarm rises."""
    if len(scores) < alarm.n:
        return np.zeros(0)
    windows = np.lib.stride_tricks.sliding_window_view(scores, alarm.n)
    place = alarm.n - alarm.m
    return np.array(np.partition(windows, place, axis=1)[:, place])


def _levels(
    joined: Float64, tail: Tail | None, wish: float, margins: Margins
) -> tuple[float, float, str]:
    """Threshold, clear level and method from debounced scores [n]."""
    centre, largest = float(np.median(joined)), float(joined.max())
    raised = min(max(ENOUGH_SCORES / len(joined), 1.0), margins.largest_raise)
    many = margins.bounded and len(joined) >= MANY_SCORES
    factor = BOUNDED_FACTOR if many else raised * margins.small_sample
    beyond, usual = (centre + times * (largest - centre) for times in (factor, raised))
    if tail is None:
        return beyond, usual, f"small-sample rule: {factor:.2g} times the largest clean score"
    wider = 1 + WANDER * _wander(joined)
    value, clear = (
        centre + wider * (tail.upper(rate) - centre) for rate in (wish, CLEAR_RATE * wish)
    )
    method = (
        f"exponential tail over {tail.count} peaks, upper {UPPER_LIMIT:.0%} limit, "
        f"{wider:.2f} times as wide for what wanders"
    )
    if many and value > beyond:
        limit = f"at most {factor:.2g} times the largest clean score"
        return beyond, min(clear, usual), f"{method}, {limit}"
    return value, clear, method


def _wander(joined: Float64) -> float:
    """How much the usual score [n] differs between blocks in time order, over its spread."""
    middles = [np.median(block) for block in np.array_split(joined, WANDER_BLOCKS)]
    spread = float(np.quantile(joined, 0.84) - np.median(joined))
    return float(np.std(middles, ddof=1)) / spread if spread > 0 else 0.0


def _statement(found: Threshold, period: float | None, left_out: int) -> str:
    verdict = (
        f"assured: at most {found.upper_bound_per_day:.2g} a day with 95 % confidence"
        if found.assured
        else f"not assured: {_duration(found.days_needed)} more clean data without a further "
        "alarm would do"
    )
    unit = "" if period else " (sample period unknown, 1 s assumed)"
    rows = f" ({left_out} rows like no others left out)" if left_out else ""
    return (
        f"wish: {found.wished_per_day:g} false alarms a day; threshold from "
        f"{_duration(found.clean_days)} of clean data{rows}, checked on "
        f"{_duration(found.held_out_days)} it never saw: {found.held_out_alarms} alarms; "
        f"{verdict}{unit}"
    )


def _duration(days: float) -> str:
    seconds = days * SECONDS_PER_DAY
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
