"""Sixty days of a simulated pump, with what is wrong with it and what is only new.

Seven channels follow the load, which has a daily and a weekly rhythm, and the weather, which has a
season. In week 3 the pump gets a second operating mode, a bypass that is open for some hours each
day. A bearing is replaced once, and vibrates less from then on. Faults are sudden, for hours, or
slow: they grow over `SLOW_DAYS` and are then repaired. Two of a hundred readings are lost.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.learning.smoothing import filtered
from edge_runtime.record import Float32

DAYS, SLOW_DAYS = 60, 10
CHANNELS = ("speed", "flow", "pressure", "current", "ambient", "bearing", "vibration")
NOISE = np.array([4.0, 0.15, 0.03, 0.08, 0.1, 0.15, 0.06])
"""Deviation of each channel's own noise, in its unit."""
FAULT_UNIT = np.array([60.0, 3.0, 0.6, 1.2, 5.0, 6.0, 0.5])
"""What a fault changes, in the unit of each channel: a tenth to a third of its usual reading."""
LOSS = 0.02
SUDDEN = 6
SUDDEN_SIZES, SLOW_SIZES = (1.0, 2.5), (1.2, 2.0)  # in units of FAULT_UNIT
SLOW_CHANNELS = ("bearing", "vibration")

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RigFault:
    """A fault in the rows from start up to, not including, stop."""

    start: int
    stop: int
    channel: int
    slow: bool
    size: float  # at its largest, in units of FAULT_UNIT


@dataclass(frozen=True)
class Life:
    """values: float32 [n, channels], NaN where lost. times: seconds [n].

    mode_from, repair: rows at which the new mode and the new bearing begin.
    """

    seed: int
    times: Float64
    values: Float32
    faults: tuple[RigFault, ...]
    mode_from: int
    repair: int
    period: float

    @property
    def rows_a_day(self) -> int:
        """Rows of a day."""
        return round(86400 / self.period)

    @property
    def healthy(self) -> Bools:
        """Whether no fault is in each row [n]."""
        fine = np.ones(len(self.values), bool)
        for fault in self.faults:
            fine[fault.start : fault.stop] = False
        return fine


def simulate(seed: int, period: float, days: int = DAYS) -> Life:
    """Simulate a pump from a Monday on. period: seconds between samples."""
    rng = np.random.default_rng(seed)
    daily = round(86400 / period)
    count = days * daily
    day = np.arange(count) / daily
    load = _load(day, rng, period)
    mode_from = int(daily * rng.uniform(14, 18))
    bypass = _bypass(day, mode_from / daily, rng) * (np.arange(count) >= mode_from)
    ambient = _ambient(day, rng, period)
    gain = rng.uniform(0.8, 1.2, 8)
    heat = _lagged(gain[0] * 15 * load, 3600 / period) + _lagged(ambient, 5400 / period)
    clean = np.stack(
        [
            1450 * (0.6 + 0.4 * load) * gain[1],
            20 * gain[2] * load * (1 - 0.25 * bypass),
            (3 + 1.5 * load**2) * gain[3] + 0.6 * bypass,
            4 + 6 * gain[4] * load**1.2 + 0.5 * bypass,
            ambient,
            8 + heat,
            1.2 + 0.6 * gain[5] * load + 0.15 * bypass,
        ],
        axis=1,
    )
    noise = rng.normal(size=clean.shape) * NOISE
    noise[:, 6] += NOISE[6] * _ar(count, 1800 / period, rng)
    values = clean + noise
    repair = int(daily * rng.uniform(36, 38))
    values[repair:, CHANNELS.index("vibration")] -= rng.uniform(3, 5) * NOISE[6]
    faults = _faults(rng, daily, days)
    for fault in faults:
        length = fault.stop - fault.start
        course = np.arange(1, length + 1) / length if fault.slow else np.ones(length)
        values[fault.start : fault.stop, fault.channel] += (
            fault.size * FAULT_UNIT[fault.channel] * course
        )
    values[rng.random(count) < LOSS] = np.nan
    times = 1_750_000_000 // 604800 * 604800 + 4 * 86400 + np.arange(count) * period
    return Life(
        seed, times.astype(float), values.astype(np.float32), faults, mode_from, repair, period
    )


def _load(day: Float64, rng: np.random.Generator, period: float) -> Float64:
    hour = 24 * (day % 1)
    shift = 1 / (1 + np.exp(-(hour - 6) / 0.4)) - 1 / (1 + np.exp(-(hour - 21) / 0.4))
    weekend = np.where(day % 7 >= 5, 0.55, 1.0)
    level = 0.35 + 0.6 * shift * weekend
    swing: Float64 = np.repeat(rng.normal(0, 0.03, int(day[-1]) + 1), np.sum(day < 1))
    return level + swing + 0.04 * _ar(len(day), 1200 / period, rng)


def _bypass(day: Float64, first: float, rng: np.random.Generator) -> Float64:
    begins, lasts = rng.uniform(7, 12), rng.uniform(4, 7)
    hour = 24 * (day % 1)
    return ((hour >= begins) & (hour < begins + lasts)).astype(float)


def _ambient(day: Float64, rng: np.random.Generator, period: float) -> Float64:
    season = 8 * np.sin(2 * np.pi * day / 365 + rng.uniform(0, 2 * np.pi))
    daily = 3 * np.sin(2 * np.pi * (day - 0.35))
    return 20 + season + daily + 1.5 * _ar(len(day), 2 * 86400 / period, rng)


def _ar(count: int, memory: float, rng: np.random.Generator) -> Float64:
    """Return a first-order process [count] of deviation 1 and of so many rows of memory."""
    keep = np.exp(-1 / memory)
    drive = rng.normal(size=count)
    return filtered(drive, np.sqrt(1 - keep**2), keep, rng.normal())


def _lagged(course: Float64, memory: float) -> Float64:
    keep = np.exp(-1 / memory)
    return filtered(course, 1 - keep, keep, course[0])


def _faults(rng: np.random.Generator, daily: int, days: int) -> tuple[RigFault, ...]:
    found = []
    for first, last in ((22, 25), (44, 48)):
        start = int(daily * rng.uniform(first, last))
        channel = CHANNELS.index(str(rng.choice(SLOW_CHANNELS)))
        size = float(rng.uniform(*SLOW_SIZES))
        found.append(RigFault(start, start + SLOW_DAYS * daily, channel, True, size))
    free = [d for d in range(3, days - 1) if all(not _near(d, f, daily) for f in found)]
    for place in sorted(rng.choice(free, SUDDEN, replace=False).tolist()):
        start = int(daily * (place + rng.uniform(0, 0.6)))
        channel = int(rng.choice([1, 2, 3, 5, 6]))
        size = float(rng.uniform(*SUDDEN_SIZES) * rng.choice([-1, 1]))
        lasts = int(daily * rng.uniform(3, 9) / 24)
        found.append(RigFault(start, start + lasts, channel, False, size))
    return tuple(sorted(found, key=lambda fault: fault.start))


def _near(day: int, fault: RigFault, daily: int) -> bool:
    return fault.start / daily - 2 < day < fault.stop / daily + 2
