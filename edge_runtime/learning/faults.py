"""Faults injected into clean rows: the gate learns from them, and models are compared by them.

A sensor fault is a short stretch of one channel; only the blackout takes all channels. A machine
disturbance moves several channels by one common cause, because a broken machine shows in more than
one sensor. A hidden cause with a random course moves a random group of channels, or the channels
along a random mixture of their leading principal directions, each with its own sign, share and lag.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.learning.smoothing import filtered
from edge_runtime.record import Float32

SPIKE_ROWS = (1, 3)
Float64 = npt.NDArray[np.float64]
DIRECTIONS = 3
SMALLEST_SHARE = 0.1
LONGEST_LAG = 100.0


class Fault(enum.IntEnum):
    """Kinds of faults; the value is the code in `Injection.labels`, where 0 means none."""

    SPIKE = 1  # added to one to three samples
    NOISE = 2  # white noise added, its standard deviation is the size
    STUCK = 3  # the last reading before the fault repeats
    LEVEL = 4  # a constant added
    DRIFT = 5  # a ramp added, from nothing to the size
    DECORRELATION = 6  # the channel's own readings from another time
    DROPOUT = 7  # no readings
    BLACKOUT = 8  # no readings of any channel


ALL = tuple(Fault)


SIZED = frozenset({Fault.SPIKE, Fault.NOISE, Fault.LEVEL, Fault.DRIFT})


@dataclass(frozen=True)
class FaultEvent:
    """One fault in the rows from start up to, not including, stop.

    amplitude: signed, in units of the channel's scale; 0 for the kinds that have no size.
    """

    kind: Fault
    start: int
    stop: int
    channels: tuple[int, ...]
    amplitude: float


@dataclass(frozen=True)
class FaultyWindow:
    """A window with injected faults.

    values: float32 [rows, channels], 0 where dropped out. mask: float32 [rows, channels], 0
    where dropped out, else 1. labels: uint8 [rows, channels], the latest `Fault` there, 0 none.
    """

    values: Float32
    mask: Float32
    labels: npt.NDArray[np.uint8]
    events: tuple[FaultEvent, ...]


def inject(
    window: Float32,
    rng: np.random.Generator,
    kinds: Sequence[Fault] = ALL,
    events: tuple[int, int] = (1, 3),
    sizes: tuple[float, float] = (0.5, 8.0),
    scale: Float32 | None = None,
    lengths: tuple[int, int] = (5, 40),
    exogenous: npt.NDArray[np.bool_] | None = None,
    first: int = 1,
    spaced: bool = False,
) -> FaultyWindow:
    """Inject faults into a copy of a clean window, float32 [rows, channels].

    kinds: drawn with equal probability. events, lengths: smallest and largest number of faults
    and of rows in a fault. sizes: range of the amplitude, drawn log-uniformly with either sign,
    in units of `scale` [channels] (default 1; pass the scale of the innovations to make faults
    equally hard on every channel). exogenous: bool [channels], channels that never get a fault.
    first: earliest row of a fault, at least 1. spaced: the rows are cut into as many equal pieces
    as there are faults, and each fault lies in the first half of its piece; otherwise faults may
    overlap, and the later one wins. A fault may be cut off by the end of the window. Raises
    ValueError when all channels are exogenous or there are too few rows.
    """
    rows, width = window.shape
    allowed = np.arange(width) if exogenous is None else np.flatnonzero(~exogenous)
    count = int(rng.integers(events[0], events[1] + 1))
    if not len(allowed):
        raise ValueError("every channel is exogenous")
    if not 1 <= first < rows or (spaced and 2 * count > rows - first):
        raise ValueError(f"{count} faults from row {first} on do not fit into {rows} rows")
    unit = np.ones(width, np.float32) if scale is None else scale
    values, mask = window.copy(), np.ones_like(window)
    labels = np.zeros(window.shape, np.uint8)
    placed = []
    for index in range(count):
        kind = Fault(kinds[rng.integers(len(kinds))])
        length = int(rng.integers(*(SPIKE_ROWS if kind is Fault.SPIKE else lengths), endpoint=True))
        start, stop = _place(rng, length, (first, rows), (index, count) if spaced else None)
        channel = int(allowed[rng.integers(len(allowed))])
        channels = tuple(allowed.tolist()) if kind is Fault.BLACKOUT else (channel,)
        amplitude = _amplitude(rng, sizes) if kind in SIZED else 0.0
        event = FaultEvent(kind, start, stop, channels, amplitude)
        _apply(event, window, values, mask, amplitude * float(unit[channel]), rng)
        labels[start:stop, channels] = kind
        placed.append(event)
    return FaultyWindow(np.where(mask > 0, values, np.float32(0)), mask, labels, tuple(placed))


def _place(
    rng: np.random.Generator, length: int, span: tuple[int, int], slot: tuple[int, int] | None
) -> tuple[int, int]:
    first, rows = span
    if slot is None:
        start = int(rng.integers(first, rows))
        return start, min(start + length, rows)
    index, count = slot
    width = (rows - first) // count
    start = first + index * width + int(rng.integers(max(1, width // 4)))
    return start, min(start + length, first + index * width + max(1, width // 2))


def _amplitude(rng: np.random.Generator, sizes: tuple[float, float]) -> float:
    size = log_uniform(rng, *sizes)
    return size if rng.random() < 0.5 else -size


def _apply(
    event: FaultEvent,
    window: Float32,
    values: Float32,
    mask: Float32,
    size: float,
    rng: np.random.Generator,
) -> None:
    start, stop = event.start, event.stop
    stretch = values[start:stop, event.channels[0]]
    match event.kind:
        case Fault.SPIKE | Fault.LEVEL:
            stretch += size
        case Fault.NOISE:
            stretch += abs(size) * rng.standard_normal(stop - start, dtype=np.float32)
        case Fault.DRIFT:
            stretch += size * np.arange(1, stop - start + 1, dtype=np.float32) / (stop - start)
        case Fault.STUCK:
            stretch[:] = values[start - 1, event.channels[0]]
        case Fault.DECORRELATION:
            rows = len(window)
            shift = int(rng.integers(max(1, rows // 4), max(2, 3 * rows // 4)))
            stretch[:] = window[(np.arange(start, stop) + shift) % rows, event.channels[0]]
        case Fault.DROPOUT | Fault.BLACKOUT:
            mask[start:stop, event.channels] = 0.0


@dataclass(frozen=True)
class CleanShape:
    """Leading directions [k, channels] and low readings [channels] of clean rows [n, channels]."""

    directions: Float64
    low: Float64
    free: npt.NDArray[np.int64]  # channels that may be disturbed, at least two


def clean_shape(rows: Float32, exogenous: npt.NDArray[np.bool_]) -> CleanShape:
    """Measure what `disturb` needs of clean rows in standardised units."""
    centred = (rows - rows.mean(axis=0)).astype(np.float64)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:DIRECTIONS]
    return CleanShape(directions, np.quantile(rows, 0.01, axis=0), np.flatnonzero(~exogenous))


def disturb(
    window: Float32,
    start: int,
    length: int,
    size: float,
    clean: CleanShape,
    rng: np.random.Generator,
) -> tuple[Float32, tuple[int, ...]]:
    """Return a copy of `window` with a disturbance from row `start` on, and the channels it moves.

    size: largest offset, in channel scales. Lagging channels still show it after `length` rows.
    """
    rows = window.copy()
    shares = _shares(clean, rng)
    course = np.zeros(len(rows) - start)
    course[:length] = _course(length, rng)
    proportional = rng.random() < 0.5  # a gain that has changed, not an offset
    for channel in np.flatnonzero(shares):
        moved = _lagged(course, log_uniform(rng, 1, LONGEST_LAG)) if rng.random() < 0.5 else course
        if proportional:
            above = rows[start:, channel] - clean.low[channel]
            moved = moved * above / max(float(np.abs(above).max()), 1e-3)
        rows[start:, channel] += (size * shares[channel] * moved).astype(np.float32)
    return rows, tuple(int(channel) for channel in np.flatnonzero(shares))


def _shares(clean: CleanShape, rng: np.random.Generator) -> Float64:
    """Draw how much the cause moves each channel: the largest ±1, at least two not zero."""
    free, width = clean.free, clean.directions.shape[1]
    shares = np.zeros(width)
    if rng.random() < 0.5:
        mixture = rng.standard_normal(len(clean.directions)) @ clean.directions
        shares[free] = mixture[free]
        shares[np.abs(shares) < SMALLEST_SHARE * np.abs(shares).max()] = 0
    if np.count_nonzero(shares) < 2:
        members = rng.choice(free, int(rng.integers(2, max(3, len(free) // 2 + 2))), replace=False)
        sizes = [log_uniform(rng, SMALLEST_SHARE, 1) for _ in members]
        shares[:] = 0
        shares[members] = rng.choice([-1.0, 1.0], len(members)) * sizes
    return np.asarray(shares / np.abs(shares).max())


def _course(length: int, rng: np.random.Generator) -> Float64:
    """Draw a course from 0 to 1 over `length` rows: a step, a short ramp, or one long ramp."""
    ramp = np.arange(1, length + 1) / length
    steepness = (np.inf, log_uniform(rng, 1, 10), 1.0)[rng.integers(3)]
    return np.minimum(ramp * steepness, 1.0)


def _lagged(course: Float64, rows: float) -> Float64:
    keep = np.exp(-1 / rows)
    return filtered(course, 1 - keep, keep)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number between low and high whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
