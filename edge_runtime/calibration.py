"""The threshold for a target rate of false alarms, from clean rows run through the detector.

Scores of clean rows that the model never saw are debounced as on the device. Their tail gives the
level that is reached as often as the target allows, and the upper confidence limit of that level is
the threshold, so that little data makes it higher, not lower.

Tail: peaks over a high level, one for each alarm that the level would give, come at some rate, and
their excesses are taken as exponential: the generalised Pareto distribution (Pickands 1975) with
shape 0. A free or shrunk shape was measured and costs more than it brings with hours or days of
scores (docs/calibration.md). The error of rate and mean excess together is found by drawing both
from what n peaks leave open: the true rate over the measured one, and the measured mean over the
true one, are gamma variables of shape n and mean 1, the second exactly. A machine that repeats one
action now and then (a load that is switched) has peaks that are all alike, far above a low level,
and an exponential would be far too heavy there. So the level is the lowest of three over which the
excesses vary as much as an exponential's do.

Wander: a machine that is restless for hours at a time has not shown all of that in a day. With w
the deviation of the medians of eight blocks in time order over the spread of all scores (84 %
quantile less median), the threshold is 1 + 0.8 w times as far from the median
(docs/calibration.md).

Small samples: fewer than 10 peaks are no tail to fit, and from clean rows for less than a fiftieth
of the target interval it would be extrapolated too far. Then the threshold is 1.5 times the largest
clean score (from their median), and the method says so. A model that was fitted to few rows errs
more on others: with fewer than 350 scores the factor grows by 350 over their number, to 3 at most
(docs/changes.md).

The promise is then checked on further clean rows. It is "assured" only if the exact upper bound on
the rate of alarms (Garwood 1936) is at most the target.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import UNLIMITED, AlarmRule, Manifest, Threshold
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.alarm import PAUSE, alarm_stretches
from edge_runtime.detector.detector import StepDetector
from edge_runtime.detector.inputs import channel_scaler, restored
from edge_runtime.errors import GruardError, UnfitError
from edge_runtime.record import Float32, Sample
from edge_runtime.sources.csvfile import read_table
from edge_runtime.sources.sample_period import check_file_period

Float64 = npt.NDArray[np.float64]

SECONDS_PER_DAY = 86400.0
CONFIDENCE = 0.95
NOTHING_KNOWN = 1e9  # the bound after no time at all
# The tail.
LEVELS = (0.95, 0.98, 0.99)  # quantiles of the scores
FEWEST_PEAKS = 10
VARYING = 0.75  # deviation over mean of excesses; 1 for an exponential, .2 less by chance in 20
UPPER_LIMIT = 0.75
DRAWS = 4000
SEED = 1
# The threshold.
WANDER_BLOCKS, WANDER = 8, 0.8
CLEAR_RATE = 10.0  # the alarm clears below the threshold for ten times the target
SHORTEST_SHARE = 0.02  # of the target interval between two false alarms
SMALL_SAMPLE_FACTOR = 1.5
# Ceilings also bound the score of a fault. With many scores their largest has come close to the
# most that a healthy machine shows, and a much higher threshold finds little (docs/calibration.md).
MANY_SCORES, BOUNDED_FACTOR = 5000, 1.2
ENOUGH_SCORES, LARGEST_RAISE = 350, 2.0
ALONE = (1.0, 1.0)  # factor and raise for one channel, which has few ways to be strange
BLOCKS, LARGEST_STANDOUT = 10, 12.0
CAPPED_STANDOUT = 7.0  # where ceilings bound the score
HELD_OUT = 0.3  # the share of scores, the latest, that the threshold is checked on
# Scores that set the threshold when about 1,000 clean rows were recorded; a network's come from the
# fifth of them that it never saw.
FEWEST_SCORES, FEWEST_UNSEEN = 900, 180


@dataclass(frozen=True)
class Tail:
    """`count` peaks above `level` in `days`, whose mean excess is `scale`."""

    level: float
    count: int
    days: float
    scale: float

    def reached(self, per_day: float) -> float:
        """Return the level that peaks exceed `per_day` times a day; at least the fitted one."""
        ratio = self.count / (self.days * per_day)
        return self.level + self.scale * float(np.log(max(ratio, 1.0)))

    def upper(self, per_day: float) -> float:
        """Return the upper 75 % confidence limit of `reached`."""
        rng = np.random.default_rng(SEED)
        ratios = rng.gamma(self.count, 1 / self.days, DRAWS) / per_day
        scales = self.scale * self.count / rng.gamma(self.count, 1, DRAWS)
        levels = scales * np.log(np.maximum(ratios, 1.0))
        return self.level + float(np.quantile(levels, UPPER_LIMIT))


@dataclass(frozen=True)
class Calibration:
    """A threshold, and its sources for the picture.

    peaks: [n] above the tail's level, also if no tail was fitted (tail is None). standout: how far
    the largest clean score stands out from the usual ones; row: its place among the `rows` settled
    scores. limit: the largest standout of clean scores; strange: the score at that limit. clean,
    held_out, left_out, fitted: as for `calibrate`, which gives the threshold for another target.
    """

    threshold: Threshold
    tail: Tail | None
    peaks: Float64
    standout: float
    row: int
    rows: int
    limit: float
    strange: float
    clean: Sequence[npt.ArrayLike]
    held_out: Sequence[npt.ArrayLike]
    left_out: int
    fitted: int | None

    @property
    def dirty(self) -> bool:
        """Whether one of the clean scores looks like an anomaly."""
        return self.standout > self.limit


@dataclass(frozen=True)
class Margins:
    """Limits for clean scores. standout: how far one may stand out from the others.

    small_sample: factor on the largest of them if they are too few for a tail. largest_raise: of
    that factor if they are very few. bounded: whether ceilings bound them.
    """

    standout: float = LARGEST_STANDOUT
    small_sample: float = SMALL_SAMPLE_FACTOR
    largest_raise: float = LARGEST_RAISE
    bounded: bool = False


def margins_of(source: Manifest) -> Margins:
    """Return the margins for the detector of `source`."""
    capped = any(min(memory.ceiling) < UNLIMITED for memory in source.score.memories)
    if sum(not channel.exogenous for channel in source.channels) == 1:
        return Margins(CAPPED_STANDOUT if capped else LARGEST_STANDOUT, *ALONE)
    if capped:
        return Margins(CAPPED_STANDOUT, bounded=True)
    return Margins()


def trial_of(source: Manifest) -> str:
    """Return a note on a bundle that was calibrated on few clean rows, or an empty text."""
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
    alarm: AlarmRule,
    margins: Margins = Margins(),
    left_out: int = 0,
    aim: float = 1.0,
    fitted: int | None = None,
) -> Calibration:
    """Return the threshold for at most `wished_per_day` false alarms.

    clean, held_out: settled scores of clean recordings, which must not share rows. period: seconds
    per sample; unknown counts as 1 s, and the statement says so. margins: of the detector.
    left_out: clean rows without a score because they are unlike all others. fitted: the clean rows
    that the model was fitted on, None for all. aim: share of the target that the threshold is
    computed for. Raises UnfitError when `clean` is too short for a
    single debounced score.
    """
    days = SECONDS_PER_DAY / (period or 1.0)  # in rows
    smooth = [debounce(np.asarray(scores, float), alarm) for scores in clean]
    if not any(map(len, smooth)):
        longest = max((np.size(scores) for scores in clean), default=0)
        raise UnfitError(
            f"a threshold needs {alarm.n} clean rows in a row after the model has settled, and the "
            f"longest stretch without a gap has {longest}; record the healthy machine for longer, "
            "without a break"
        )
    clean_days = sum(map(len, smooth)) / days
    tail, highest = tail_of(smooth, clean_days, alarm)
    if wished_per_day * clean_days < SHORTEST_SHARE:
        tail = None
    joined = np.concatenate(smooth)
    centre, usual = _usual(joined)
    value, clear, method = _levels(joined, tail, aim * wished_per_day, margins)
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
    statement = _statement(threshold, period, left_out, fitted)
    return Calibration(
        replace(threshold, statement=statement),
        tail,
        highest,
        float(joined.max() - centre) / usual,
        int(joined.argmax()) + alarm.n - 1,
        len(joined) + alarm.n - 1,
        margins.standout,
        centre + margins.standout * usual,
        clean,
        held_out,
        left_out,
        fitted,
    )


def _usual(joined: Float64) -> tuple[float, float]:
    """Return the median of debounced scores [n], and how far above it a usual block's largest is.

    The largest of clean scores is 1 to 9 times as far above it, however their volatility clusters
    (docs/calibration.md); an anomaly among them is tens of times, and gives a threshold that no
    fault would reach.
    """
    centre = float(np.median(joined))
    tops = [float(block.max()) - centre for block in np.array_split(joined, BLOCKS) if len(block)]
    return centre, max(float(np.median(tops)), 1e-9)


def debounce(scores: Float64, alarm: AlarmRule) -> Float64:
    """Return the m-th largest of each n scores in a row, as `alarm.debounced` does."""
    if len(scores) < alarm.n:
        return np.zeros(0)
    windows = np.lib.stride_tricks.sliding_window_view(scores, alarm.n)
    place = alarm.n - alarm.m
    return np.array(np.partition(windows, place, axis=1)[:, place])


def _levels(
    joined: Float64, tail: Tail | None, target: float, margins: Margins
) -> tuple[float, float, str]:
    """Return threshold, clear level and method from debounced scores [n]."""
    centre, largest = float(np.median(joined)), float(joined.max())
    raised = min(max(ENOUGH_SCORES / len(joined), 1.0), margins.largest_raise)
    many = margins.bounded and len(joined) >= MANY_SCORES
    factor = BOUNDED_FACTOR if many else raised * margins.small_sample
    beyond, usual = (centre + times * (largest - centre) for times in (factor, raised))
    if tail is None:
        return beyond, usual, f"small-sample rule: {factor:.2g} times the largest clean score"
    wider = 1 + WANDER * _wander(joined)
    value, clear = (
        centre + wider * (tail.upper(rate) - centre) for rate in (target, CLEAR_RATE * target)
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
    """Return how much the usual score [n] differs between blocks in time order, over its spread."""
    middles = [np.median(block) for block in np.array_split(joined, WANDER_BLOCKS)]
    spread = float(np.quantile(joined, 0.84) - np.median(joined))
    return float(np.std(middles, ddof=1)) / spread if spread > 0 else 0.0


def _statement(
    threshold: Threshold, period: float | None, left_out: int, fitted: int | None
) -> str:
    verdict = (
        f"assured: at most {threshold.upper_bound_per_day:.2g} a day with 95 % confidence"
        if threshold.assured
        else f"not assured: {_duration(threshold.days_needed)} more clean data without a further "
        "alarm would do"
    )
    unit = "" if period else " (sample period unknown, 1 s assumed)"
    rows = f" ({left_out} rows like no others left out)" if left_out else ""
    rows += f", with the model fitted on {fitted:,} rows of it" if fitted is not None else ""
    return (
        f"wish: {threshold.wished_per_day:g} false alarms a day; threshold from "
        f"{_duration(threshold.clean_days)} of clean data{rows}, checked on "
        f"{_duration(threshold.held_out_days)} it never saw: {threshold.held_out_alarms} alarms; "
        f"{verdict}{unit}"
    )


def _duration(days: float) -> str:
    seconds = days * SECONDS_PER_DAY
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def peaks(scores: Float64, level: float, alarm: AlarmRule) -> Float64:
    """Return the largest debounced score of each alarm that a threshold at `level` would give.

    scores: [n], debounced. The alarm stays on for `clear_after` samples after the last of them.
    """
    stretches = alarm_stretches(scores > level, PAUSE + alarm.clear_after - 1)
    if not stretches:
        return np.zeros(0)
    return np.maximum.reduceat(scores, [start for start, _ in stretches])


def tail_of(
    scores: Sequence[Float64], days: float, alarm: AlarmRule
) -> tuple[Tail | None, Float64]:
    """Fit the tail of debounced clean scores, each recording [n], which last `days`; and its peaks.

    None, and the peaks over the lowest level, if there are fewer than `FEWEST_PEAKS` of them.
    """
    joined = np.concatenate(scores)
    tail, highest = None, np.zeros(0)
    for number, quantile in enumerate(LEVELS):
        level = float(np.quantile(joined, quantile))
        above = np.concatenate([peaks(each, level, alarm) for each in scores])
        if number == 0:
            highest = above
        if len(above) < FEWEST_PEAKS:
            break
        tail, highest = fit_tail(above, level, days), above
        if (above - level).std() >= VARYING * tail.scale:
            break
    return tail, highest


def fit_tail(above: Float64, level: float, days: float) -> Tail:
    """Return the tail of the peaks `above` the `level` in `days`, at least one."""
    return Tail(level, len(above), days, float((above - level).mean()))


def rate_bound(events: int, days: float) -> float:
    """Return the upper 95 % bound on events per day after `events` in `days` (Garwood 1936)."""
    return mean_bound(events) / days if days > 0 else NOTHING_KNOWN


def mean_bound(events: int) -> float:
    """Return the mean at which so few events as `events` have a probability of 5 %.

    That is half the 95 % quantile of a chi-square variable with 2 `events` + 2 degrees of
    freedom: 3.0 for no event.
    """
    low, high = 0.0, 10.0 + 3.0 * events
    for _ in range(100):  # halve the interval, to beyond the resolution of float64
        middle = (low + high) / 2
        if chance_of_at_most(events, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def chance_of_at_most(events: int, mean: float) -> float:
    """Return the probability of `events` or fewer when `mean` are expected."""
    if mean <= 0:
        return 1.0
    logs = (k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(events + 1))
    return math.fsum(math.exp(log) for log in logs)


@dataclass(frozen=True)
class CleanRows:
    """Clean recordings in raw units, each float32 [n, channels], and where they come from."""

    recordings: Sequence[Float32]
    source: str

    def __len__(self) -> int:
        return sum(map(len, self.recordings))


def rows_of_file(file: Path, bundle: Bundle) -> CleanRows:
    """Read a clean recording of the bundle's machine.

    Raises GruardError for other channels, another sample period, and rows labelled anomalous.
    """
    said, channels = bundle.manifest.columns, bundle.manifest.channel_names
    check_file_period(file, bundle.manifest.period, said, channels)
    table = read_table(file, said, channels, period=bundle.manifest.period)
    if table.labels is not None and (table.labels > 0).any():
        first = int(np.flatnonzero(table.labels > 0)[0])
        raise GruardError(
            f"{file}: row {first + 1} is labelled anomalous; calibrate on a recording of only "
            "the healthy machine"
        )
    return CleanRows([table.values], str(file))


def rows_of_bundle(bundle: Bundle) -> CleanRows:
    """Return the bundle's own clean samples in raw units."""
    arrays = bundle.arrays("calibration.npz")
    scaler = channel_scaler(bundle.manifest.channels)
    recordings = []
    for name in sorted(name for name in arrays if name.startswith("value/")):
        value, mask = arrays[name], arrays.get("mask/" + name.removeprefix("value/"))
        shape = (*value.shape[:1], len(bundle.manifest.channels))
        if mask is None or value.shape != shape or mask.shape != shape:
            raise GruardError(f"{bundle.path / 'calibration.npz'}: not samples of this model")
        raw = restored(value, mask > 0, scaler)
        recordings.append(np.where(mask > 0, raw, np.float32(np.nan)))
    return CleanRows(recordings, "the bundle's own clean samples")


def scores(detector: StepDetector, rows: CleanRows) -> Iterator[float | None]:
    """Yield the detector's score of every row, None until it has settled; reset per recording."""
    index = 0
    for recording in rows.recordings:
        detector.reset()
        for values in recording:
            record = detector.step(Sample(index, None, values))
            yield record.score if record.tier != 3 else None
            index += 1


def calibration_from(
    clean: Sequence[float | None], bundle: Bundle, wished_per_day: float
) -> Calibration:
    """Return the threshold from clean scores in time order; the latest of them check it."""
    settled = np.array([score for score in clean if score is not None], np.float64)
    cut = len(settled) - round(HELD_OUT * len(settled))
    manifest = bundle.manifest
    parts = [settled[:cut]], [settled[cut:]]
    margins = margins_of(manifest)
    return calibrate(*parts, wished_per_day, manifest.period, manifest.alarm, margins)
