"""The layout of the picture of a run: pure geometry and selection, without drawing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from convert.metrics import intervals
from convert.timeline.run_facts import (
    WITHOUT_MODEL,
    Bools,
    Facts,
    Float64,
    RecordState,
    RunRecording,
    Stretch,
    alarm_on,
    replaced,
)

LANES = 8
BUCKETS = 1376  # about the width of the plotting area in pixels; more points are not visible
NARROWEST = 3  # pixels, so that a single sample among 200,000 is visible
BRIDGE = 8  # samples; imputed stretches that are closer together count as one
NOTED = 4  # the longest stretches of a kind get a note


@dataclass(frozen=True)
class Scale:
    """The horizontal axis: edges float64 [n + 1], where each sample begins and the last ends."""

    edges: Float64
    label: str

    @property
    def pixel(self) -> float:
        """Width of a pixel in the axis's unit, roughly."""
        return float(self.edges[-1] - self.edges[0]) / BUCKETS


@dataclass(frozen=True)
class Note:
    """A note in the picture at sample `index`."""

    index: int
    text: str


def scale_of(watch: RunRecording) -> Scale:
    """Return the axis: seconds if there are times, else sample indices."""
    count = len(watch.records)
    if watch.seconds is None:
        return Scale(np.arange(count + 1.0), "sample")
    end = watch.seconds[-1] + (watch.period or 1.0)
    return Scale(np.append(watch.seconds, end), "seconds since the first sample")


def shown_channels(watch: RunRecording) -> list[int]:
    """Return all channels, or the LANES most often blamed or replaced, in the recording's order."""
    count = replaced(watch).sum(axis=0)
    column = {name: i for i, name in enumerate(watch.channels)}
    for record in watch.records:
        for name in record.blamed if record else ():
            count[column[name]] += 1
    return sorted(np.argsort(-count, kind="stable")[:LANES].tolist())


def extremes(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], npt.NDArray[Any]]:
    """Thin `values` [n] for drawing: indices and values of each pixel's minimum and maximum.

    Short curves are returned whole. Non-finite values become NaN and are not drawn.
    """
    clean = np.where(np.isfinite(values), values, np.nan)
    if len(clean) <= 2 * BUCKETS:
        return np.arange(len(clean)), clean
    starts = np.linspace(0, len(clean), BUCKETS, endpoint=False).astype(np.intp)
    low, high = np.fmin.reduceat(clean, starts), np.fmax.reduceat(clean, starts)
    return np.repeat(starts, 2), np.column_stack([low, high]).ravel()


def place(spans: Iterable[tuple[float, float]], levels: int) -> list[int | None]:
    """Return a level for each text [left, right], or None without room; earlier texts win."""
    taken: list[list[tuple[float, float]]] = [[] for _ in range(levels)]
    chosen: list[int | None] = []
    for left, right in spans:
        free = (
            level
            for level, others in enumerate(taken)
            if all(right <= start or stop <= left for start, stop in others)
        )
        level = next(free, None)
        if level is not None:
            taken[level].append((left, right))
        chosen.append(level)
    return chosen


def bars(flags: Bools, scale: Scale, narrowest: float = NARROWEST) -> list[tuple[float, float]]:
    """Return (left, width) of the stretches of True, none narrower than `narrowest` pixels."""
    starts = np.linspace(0, len(flags), min(len(flags), BUCKETS), endpoint=False).astype(np.intp)
    edges = scale.edges[np.append(starts, len(flags))]
    stretches = intervals(np.logical_or.reduceat(flags, starts))
    least = narrowest * scale.pixel
    return [(edges[a], max(float(edges[b] - edges[a]), least)) for a, b in stretches]


def limits(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Return a lane's range: all finite values, without outliers that would flatten the others."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    usual_low, usual_high = np.quantile(finite, [0.005, 0.995])
    if room := float(usual_high - usual_low):
        return max(low, usual_low - room), min(high, usual_high + room)
    around = 0.1 * max(abs(low), 1.0)
    return (low, high) if low < high else (low - around, high + around)


def cut(name: str, length: int) -> str:
    """Shorten `name` to at most `length` characters; the middle goes, numbers stand at the end."""
    half = length // 2
    return name if len(name) <= length else f"{name[: length - half]}…{name[1 - half :]}"


def join(names: Sequence[str]) -> str:
    """Return the first two names, shortened, and the number of the others."""
    more = f" +{len(names) - 2}" if len(names) > 2 else ""
    return ", ".join(cut(name, 16) for name in names[:2]) + more


def notes_of(watch: RunRecording, facts: Facts) -> tuple[Note, ...]:
    """Return the notes of the picture, the most important first, of each kind the longest.

    Order: outages and their ends; stretches imputed without an alarm; warm-ups and tier 2;
    stretches imputed during an alarm, which names its channels anyway; outages of a few samples.
    """
    ends = [*(change.index for change in facts.changes[1:]), facts.samples]
    spells = sorted(zip(facts.changes, ends, strict=True), key=lambda s: s[0].index - s[1])
    outages = [(c.index, end) for c, end in spells if c.state in WITHOUT_MODEL]
    long = [(start, end) for start, end in outages if end - start >= BRIDGE][:NOTED]
    short = [(start, end) for start, end in outages if end - start < BRIDGE][:NOTED]
    others = [c.index for c, _ in spells if c.state in (RecordState.WARMUP, RecordState.UNIT)][
        :NOTED
    ]
    what = {change.index: change.what for change in facts.changes}

    def at(indices: Iterable[int]) -> list[Note]:
        # An outage that lasts to the end has no change at its end.
        return [Note(index, what[index]) for index in indices if index in what]

    calm, alarmed = _fills(watch)
    notes = [*at(chain(*long)), *calm, *at(others), *alarmed, *at(chain(*short))]
    return tuple(dict.fromkeys(notes))  # the end of one outage may begin another


def _fills(watch: RunRecording) -> tuple[list[Note], list[Note]]:
    """Return the longest imputed stretches without and with an alarm; joint starts are merged."""
    alarmed = alarm_on(watch.records)
    kinds: tuple[dict[int, list[str]], dict[int, list[str]]] = ({}, {})
    fills = [
        (start - stop, start, stop, name)
        for name, column in zip(watch.channels, replaced(watch).T, strict=True)
        for start, stop in _bridged(intervals(column))
        if stop - start >= BRIDGE
    ]
    for _, start, stop, name in sorted(fills):
        starts = kinds[int(alarmed[start:stop].any())]
        near = next((s for s in starts if abs(s - start) <= BRIDGE), start)
        if near in starts or len(starts) < NOTED:
            starts.setdefault(near, []).append(name)
    calm, loud = (
        [Note(start, f"{join(names)} imputed") for start, names in starts.items()]
        for starts in kinds
    )
    return calm, loud


def _bridged(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Join stretches that are less than BRIDGE apart."""
    joined: list[Stretch] = []
    for start, stop in stretches:
        if joined and start - joined[-1][1] < BRIDGE:
            start = joined.pop()[0]
        joined.append((start, stop))
    return joined
