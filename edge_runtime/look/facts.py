"""What there is to say about a recording before anything learns from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.calibration import mean_bound
from edge_runtime.columns import GAP_PERIODS
from edge_runtime.look.recording import WholeRecording, column_kind
from edge_runtime.look.spans import span_in_words, span_of
from edge_runtime.look.stretches import FEWEST_TO_TELL, STATES, can_tell, find_stretches
from edge_runtime.status.health import duration

FEWEST_ROWS = 150
"""Clean rows that any detector needs."""
FEWEST_NETWORK_ROWS = 1000
"""Clean rows with fewer of which a network learns nothing that a linear forecast does not know."""
WISHED_PER_DAY = 1.0  # false alarms
HELD_OUT = 0.1  # share of the recording that training keeps to check the threshold on
SECONDS_PER_DAY = 86400.0
MANY_MISSING = 0.5  # share of a channel's readings
BINS, SMOOTHING = 60, (1, 2, 3, 2, 1)  # of the histogram in which regimes are peaks
VALLEY = 0.5  # of the lower of two peaks: as low is the histogram between two regimes
FEWEST_IN_REGIME, MOST_REGIMES = 0.03, 8
SHORTEST_VISIT = 10  # rows
SHORT = 0.95  # of a period; steps next to a longer one that make up for it
PARTS, STEADY = 8, 0.9  # of the recording; correlation of their means with time in a drift
_WORDS = {
    "level": "level",
    "movement": "movement from row to row",
    "relation": "relation to each other",
    "spread": "scatter around their relation",
}
Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ChannelFacts:
    """One column. kind: what it is instead of a channel (constant, counting, empty), None for one.

    low, middle, high: least, median and largest reading; step: the smallest difference of two.
    missing: readings that are not there, hole: the most of them in one piece. drift: difference of
    the means of the last and the first eighth where it steadily grows, else 0.
    """

    name: str
    unit: str
    kind: str | None
    low: float | None = None
    middle: float | None = None
    high: float | None = None
    step: float | None = None
    missing: int = 0
    hole: int = 0
    drift: float = 0.0


@dataclass(frozen=True)
class Sampling:
    """first, last: times in seconds, None without; period: seconds; jitter: share of the period
    within which 95 % of the steps lie. gaps: places where rows are missing, and how many rows
    that is; longest_gap: seconds. late: readings that come late although no row is missing.
    backward: places where the time repeats or goes back.
    """

    rows: int
    first: float | None
    last: float | None
    period: float | None
    jitter: float
    gaps: int
    missing_rows: int
    longest_gap: float
    late: int
    backward: int


@dataclass(frozen=True)
class Regime:
    """One of several levels that `channel` stays at. share: of the rows; visits: separate times."""

    channel: str
    level: float
    share: float
    visits: int


@dataclass(frozen=True)
class SuspectRows:
    """Rows from `start` up to, not including, `stop` that are unlike all others.

    first, last: their times, the end of the last row included. exclude: the span as `--exclude`
    takes it. rest: how long the others are, in words. to_end: whether they are the last of the
    recording. labelled: whether the owner labelled them healthy, so that learning keeps them. See
    `stretches.StrangeStretch`.
    """

    start: int
    stop: int
    first: float | None
    last: float | None
    channels: tuple[str, ...]
    features: tuple[str, ...]
    contrast: float
    exclude: str
    rest: str
    to_end: bool
    labelled: bool

    def sentence(self) -> str:
        """What was found, what learning does about it, and what the owner can do."""
        when = span_in_words(self.first, self.last)
        where = f"rows {self.start:,} to {self.stop:,}{', ' if when else ''}{when}"
        what = _listed([_WORDS[feature] for feature in self.features])
        verb = "is" if len(self.channels) == 1 else "are"
        found = f"{where}: {_listed(self.channels)} {verb} unlike the other {self.rest} ({what})"
        if self.labelled:
            advice = "Learning keeps them, because they are labelled healthy; to leave them out:"
            return f"{found}. {advice} --exclude '{self.exclude}'"
        advice = "if the machine was healthy then, keep them with a column 'label' that is 0"
        if self.to_end and self.start:
            advice += f", or, if it runs like this from now on, add --exclude '0..{self.start}'"
        return f"{found}. Learning leaves these rows out; {advice}"


@dataclass(frozen=True)
class Look:
    """All facts. warnings: what to do something about before learning; notes: good to know."""

    files: tuple[Path, ...]
    sampling: Sampling
    channels: tuple[ChannelFacts, ...]
    text: tuple[str, ...]
    regimes: tuple[Regime, ...]
    findings: tuple[SuspectRows, ...]
    allows: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def look_at(readings: WholeRecording) -> Look:
    """Collect the facts of `readings`."""
    starts = readings.starts()
    channels = tuple(_channel(readings, i, starts) for i in range(len(readings.columns)))
    used = [i for i, channel in enumerate(channels) if channel.kind is None]
    sampling = _sampling(readings)
    clean = ~readings.anomalous
    findings = find_all(
        readings.values[clean][:, used],
        [readings.columns[i] for i in used],
        np.flatnonzero(clean),
        None if readings.times is None else readings.times[clean],
        readings.period,
        readings.labelled[clean],
    )
    clean &= ~left_out(findings, np.arange(readings.rows))
    usable = int(np.count_nonzero(clean))
    regimes = _regimes(readings, used, clean)
    return Look(
        files=tuple(readings.files),
        sampling=sampling,
        channels=channels,
        text=tuple(f"{name} ('{cell[:20]}')" for name, cell in readings.text.items()),
        regimes=regimes,
        findings=tuple(findings),
        allows=_allows(usable, len(used), readings.period),
        warnings=(
            *(finding.sentence() for finding in findings),
            *_troubles(channels, sampling, usable),
        ),
        notes=tuple(_notes(readings, channels, sampling, regimes)),
    )


def find_all(
    values: npt.ArrayLike,
    names: Sequence[str],
    rows: npt.NDArray[np.intp],
    times: Float64 | None,
    period: float | None,
    labelled: Bools,
) -> list[SuspectRows]:
    """Return the stretches of `values` [n, channels] that are unlike the rest.

    rows: [n], the number of each row in the recording; times: [n] seconds or None. labelled: [n],
    whether the owner labelled the row healthy: such rows stay.
    """
    readings = np.asarray(values)
    starts = np.flatnonzero(np.diff(rows) != 1) + 1
    if times is not None and period:
        steps = np.diff(times)
        starts = np.union1d(starts, np.flatnonzero(~(abs(steps) <= GAP_PERIODS * period)) + 1)
    findings = []
    for found in find_stretches(readings, starts.tolist()):
        left = len(readings) - (found.stop - found.start)
        start, stop = int(rows[found.start]), int(rows[found.stop - 1]) + 1
        first, last = _times_of(times, found.start, found.stop, period or 0.0)
        findings.append(
            SuspectRows(
                start=start,
                stop=stop,
                first=first,
                last=last,
                channels=tuple(names[i] for i in found.channels),
                features=found.features,
                contrast=found.contrast,
                exclude=_exclude(start, stop, first, last, times, found.stop - found.start),
                rest=duration(left * period) if period else f"{left:,} rows",
                to_end=found.stop >= 0.99 * len(readings),
                labelled=bool(labelled[found.start : found.stop].any()),
            )
        )
    return findings


def left_out(findings: Sequence[SuspectRows], rows: npt.NDArray[np.intp]) -> Bools:
    """Which of `rows` [n], numbers in the recording, learning leaves out."""
    out = np.zeros(len(rows), bool)
    for finding in findings:
        if not finding.labelled:
            out |= (finding.start <= rows) & (rows < finding.stop)
    return out


def _times_of(
    times: Float64 | None, start: int, stop: int, period: float
) -> tuple[float, float] | tuple[None, None]:
    if times is None:
        return None, None
    return float(times[start]), float(times[stop - 1]) + period


def _exclude(
    start: int, stop: int, first: float | None, last: float | None, times: Float64 | None, rows: int
) -> str:
    """The span of `rows` from `start` to `stop`; in rows where others have the same times."""
    if times is None or first is None or last is None:
        return span_of(start, stop, None, None)
    at_once = int(np.count_nonzero((times >= first) & (times < last)))
    return span_of(start, stop, first, last) if at_once <= rows else f"{start}..{stop}"


def _channel(readings: WholeRecording, index: int, starts: Sequence[int]) -> ChannelFacts:
    column = readings.values[:, index]
    known = np.isfinite(column)
    name = readings.columns[index]
    found = np.unique(column[known].astype(np.float64))
    kind = column_kind(np.split(column, starts))
    if not len(found):
        return ChannelFacts(name, readings.units.get(name, ""), kind, missing=len(column))
    holes = np.diff(np.flatnonzero(np.concatenate([[True], known, [True]]))) - 1
    return ChannelFacts(
        name=name,
        unit=readings.units.get(name, ""),
        kind=kind,
        low=float(found[0]),
        middle=float(np.median(column[known])),
        high=float(found[-1]),
        step=float(f"{np.diff(found).min():.1g}") if len(found) > 1 else None,  # of a float32
        missing=int(np.count_nonzero(~known)),
        hole=int(holes.max()),
        drift=_drift(column[known].astype(np.float64)) if kind is None else 0.0,
    )


def _drift(column: Float64) -> float:
    parts = np.array_split(column, PARTS)
    if len(column) < FEWEST_ROWS:
        return 0.0
    means = np.array([part.mean() for part in parts])
    within = float(np.mean([part.std() for part in parts]))
    moved = float(means[-1] - means[0])
    if abs(moved) <= within or not means.std():
        return 0.0
    return moved if abs(np.corrcoef(np.arange(PARTS), means)[0, 1]) > STEADY else 0.0


def _sampling(readings: WholeRecording) -> Sampling:
    times, period = readings.times, readings.period
    if times is None:
        return Sampling(readings.rows, None, None, None, 0.0, 0, 0, 0.0, 0, 0)
    steps = readings.steps()
    steps = steps[np.isfinite(steps)]
    backward = int(np.count_nonzero(steps <= 0))
    first, last = float(times[0]), float(times[-1])
    if not period:
        return Sampling(readings.rows, first, last, None, 0.0, 0, 0, 0.0, 0, backward)
    wide, missing = _gaps(steps, period)
    gaps = wide[missing > 0]
    regular = steps[(steps > 0) & (steps <= GAP_PERIODS * period)]
    off = abs(regular / period - 1)
    return Sampling(
        rows=readings.rows,
        first=first,
        last=last,
        period=float(f"{period:.6g}"),
        jitter=float(np.quantile(off, 0.95)) if len(off) else 0.0,
        gaps=len(gaps),
        missing_rows=int(missing.sum()),
        longest_gap=float(gaps.max()) if len(gaps) else 0.0,
        late=len(wide) - len(gaps),
        backward=backward,
    )


def _gaps(steps: Float64, period: float) -> tuple[Float64, Float64]:
    """The steps in time that are too long, and how many rows are missing in each.

    None is missing where the steps around are as much shorter: a reading came late, several came
    at once, or the clock stood still.
    """
    index = np.arange(len(steps))
    usual = steps > SHORT * period
    at = np.flatnonzero(steps > GAP_PERIODS * period)
    before = np.maximum.accumulate(np.where(usual, index, -1))
    after = np.minimum.accumulate(np.where(usual, index, len(steps))[::-1])[::-1]
    first = np.concatenate([[-1], before])[at] + 1
    stop = np.concatenate([after, [len(steps)]])[at + 1]
    sums = np.concatenate([[0.0], np.cumsum(steps)])
    missing = np.round((sums[stop] - sums[first]) / period) - (stop - first)
    return steps[at], np.maximum(missing, 0.0)


def _regimes(
    readings: WholeRecording, used: Sequence[int], clean: npt.NDArray[np.bool_]
) -> tuple[Regime, ...]:
    """The levels of the channel that tells most of them apart; empty where none does."""
    best: tuple[Regime, ...] = ()
    for index in used:
        column = readings.values[clean, index].astype(np.float64)
        column = column[np.isfinite(column)]
        edges = _valleys(column)
        if not 1 <= len(edges) < MOST_REGIMES or len(edges) + 1 <= len(best):
            continue
        level = np.searchsorted(edges, column)
        changes = np.flatnonzero(np.diff(level)) + 1
        runs = np.split(level, changes)
        visits = [int(run[0]) for run in runs if len(run) >= SHORTEST_VISIT]
        merged = [a for a, b in zip(visits, [*visits[1:], -1], strict=True) if a != b]
        best = tuple(
            Regime(
                readings.columns[index],
                float(np.median(column[level == k])),
                float(np.mean(level == k)),
                merged.count(k),
            )
            for k in range(len(edges) + 1)
        )
    return best


def _valleys(column: Float64) -> Float64:
    """The values between the regimes of a channel: the lowest places between two peaks."""
    if len(column) < FEWEST_NETWORK_ROWS or len(np.unique(column)) < STATES:
        return np.zeros(0)
    low, high = np.quantile(column, (0.002, 0.998))
    if not low < high:
        return np.zeros(0)
    counts, edges = np.histogram(column, BINS, (low, high))
    smooth = np.convolve(counts, np.array(SMOOTHING) / sum(SMOOTHING), mode="same")
    found: list[int] = []
    peak, valley, rising = 0, 0, True
    for place in range(1, BINS):
        if rising and smooth[place] >= smooth[peak]:
            peak = place
        elif rising and smooth[place] < VALLEY * smooth[peak]:
            rising, valley = False, place
        elif not rising and smooth[place] <= smooth[valley]:
            valley = place
        elif not rising and smooth[valley] < VALLEY * smooth[place]:
            found.append(valley)
            rising, peak = True, place
    cuts: Float64 = (edges[:-1] + edges[1:])[found] / 2
    shares = np.bincount(np.searchsorted(cuts, column), minlength=len(cuts) + 1) / len(column)
    # A level that is hardly ever held is a passage; it belongs to the next one.
    return cuts[(shares[:-1] >= FEWEST_IN_REGIME) & (shares[1:] >= FEWEST_IN_REGIME)]


def _allows(usable: int, channels: int, period: float | None) -> str:
    """What so many clean rows are enough for."""
    if usable < FEWEST_ROWS:
        return f"too few rows to learn from: {usable:,} of {FEWEST_ROWS}"
    if usable < FEWEST_NETWORK_ROWS:
        enough = (
            "enough for a linear detector on trial; a network and a firm threshold need "
            f"{FEWEST_NETWORK_ROWS - usable:,} rows more"
        )
    elif channels < 2:
        enough = "enough for a linear detector; a network needs more than one channel"
    else:
        enough = "enough for a linear detector and a network"
    if not period:
        return f"{enough}; without times nothing can be said about false alarms a day (--period)"
    needed = mean_bound(0) / WISHED_PER_DAY - HELD_OUT * usable * period / SECONDS_PER_DAY
    target = f"a false-alarm target of {WISHED_PER_DAY:g} a day"
    if needed <= 0:
        return f"{enough}; {target} can be assured"
    more = duration(needed * SECONDS_PER_DAY)
    return f"{enough}; to assure {target}, it must be checked on {more} more of healthy data"


def _troubles(channels: Sequence[ChannelFacts], sampling: Sampling, usable: int) -> list[str]:
    """What else than a strange stretch makes a recording unfit to learn from."""
    troubles = []
    if not any(channel.kind is None for channel in channels):
        troubles.append("no column is a channel to learn from; add a sensor's column")
    if usable < FEWEST_ROWS:
        troubles.append(
            f"{usable:,} usable rows are too few, at least {FEWEST_ROWS} are needed; record the "
            "healthy machine for longer"
        )
    if sampling.first is not None and sampling.period is None:
        troubles.append(
            "the time does not increase in most rows; sort the rows by time, and write times as "
            "fine as the period"
        )
    for channel in channels:
        if channel.kind is None and channel.missing > MANY_MISSING * sampling.rows:
            troubles.append(
                f"{channel.name}: {channel.missing / sampling.rows:.0%} of the readings are "
                "missing; repair the sensor or remove the column"
            )
    return troubles


def _notes(
    readings: WholeRecording,
    channels: Sequence[ChannelFacts],
    sampling: Sampling,
    regimes: Sequence[Regime],
) -> list[str]:
    notes = []
    if sampling.backward and sampling.period:
        first = int(np.flatnonzero(readings.steps() <= 0)[0]) + 1
        where = f"{sampling.backward:,} times, first in" if sampling.backward > 1 else "once, in"
        notes.append(
            f"the time repeats or goes back {where} row {first:,}, as when a clock is set or "
            "stands still; learning cuts the recording there"
        )
    notes += [
        f"{regime.channel} near {regime.level:.4g} came once; record until it has come again"
        for regime in regimes
        if regime.visits == 1
    ]
    notes += [
        f"{channel.name} drifts by {channel.drift:+.3g}{_unit(channel)} over the recording; record "
        "until it has settled, or has come back"
        for channel in channels
        if channel.drift
    ]
    if count := int(np.count_nonzero(readings.anomalous)):
        notes.append(f"{count:,} rows are labelled anomalous and left out")
    if not can_tell(readings.rows - count):
        notes.append(
            "too short to tell whether a stretch is unlike the rest: fewer than "
            f"{FEWEST_TO_TELL:,} rows"
        )
    return notes


def _unit(channel: ChannelFacts) -> str:
    return f" {channel.unit}" if channel.unit else ""


def _listed(names: Sequence[str]) -> str:
    most = 5
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
