"""Sensor faults put into clean samples: what the gate learns from and is chosen by.

Every fault is a short stretch of one channel, except the blackout, which takes them all.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.record import Float32

SPIKE_ROWS = (1, 3)


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
    """A window with faults in it.

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
    """Put faults into a copy of a clean window, float32 [rows, channels].

    kinds: drawn from with equal chance. events, lengths: smallest and largest number of faults
    and of rows in a fault. sizes: range of the amplitude, drawn log-uniformly with either sign,
    in units of `scale` [channels] (1 everywhere unless given; give the scale of the innovations
    to make faults as hard on every channel). exogenous: bool [channels], channels that never
    get a fault. first: earliest row of a fault, at least 1. spaced: one fault in each of as many
    equal slots, in its first half, so that no two meet; otherwise faults may overlap, later ones
    on top. A fault may run into the end of its window. Raises ValueError without a channel to
    harm or when the rows do not suffice.
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
    size = np.exp(rng.uniform(np.log(sizes[0]), np.log(sizes[1])))
    return float(size if rng.random() < 0.5 else -size)


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
