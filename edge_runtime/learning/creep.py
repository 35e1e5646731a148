"""Tell a fault that grows for days from seasons, daily and weekly rhythms, and steps.

A detector that learns again each week absorbs a fault that grows slowly enough: each time the last
days look healthy to the one before. So the past is also judged by how each channel stands to the
others, day by day.

1. Blocks of an hour are averaged. Each channel is explained by the other ones in this block and the
   one before, with coefficients from the variation within days only (the fixed effects estimator).
   So what grows over days cannot enter them, and season and load, which move the channels together,
   are explained.
2. The level of a day is the median of what is not explained, in units of its deviation within days.
3. A channel creeps at the end of a day if over the last 5 to 14 days its level went one way
   (Kendall's tau), twice as far as a random walk with its usual differences between days,
   beyond all levels before, and not in one step.

The days of a creep are not healthy until the level is nearly back. A step is no creep: it raises an
alarm and is reported as a change, and the owner answers. benchmarks/life.py measures the rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edge_runtime.learning.past import Past

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Days = npt.NDArray[np.int64]

DAY, BLOCK, BLOCK_ROWS = 86400.0, 3600.0, 4  # seconds; rows of a block at least
FEWEST_BLOCKS, FILLED = 6, 0.3  # of a day that counts; share of the rows of a block
WINDOWS, FEWEST_BEFORE = range(5, 15), 3  # days of a creep, and before it
TAU, RISE, LARGEST_STEP = 0.8, 1.5, 0.5  # rise: in deviations within days; step: share of the rise
WANDER = 2.0  # rise, in what a random walk of the usual differences between days covers
BEYOND = 1.0  # distance to all levels before, in usual differences between days
RIDGE = 1e-3


@dataclass(frozen=True)
class Creep:
    """The channel of this index has crept for so many days, up or down, since `since` seconds."""

    channel: int
    days: int
    up: bool
    since: float


@dataclass(frozen=True)
class Creeping:
    """rows: bool [n], whether each row is of a creep. now: what creeps at the end, worst first."""

    rows: Bools
    now: tuple[Creep, ...]


@dataclass(frozen=True)
class DailyLevels:
    """number: of the days, since 1970 [d]. level: [d, channels], not explained by the others."""

    number: Days
    level: Float64


def creeping(
    past: Past, healthy: Bools, watched: Bools, accepted: Sequence[Sequence[float]]
) -> Creeping:
    """Find creeps of the `watched` channels [channels] in the `healthy` rows.

    accepted: of each channel, the times at which the owner accepted a creep as normal; what is
    usual begins anew there.
    """
    rows, found = np.zeros(len(past.times), bool), list[tuple[float, Creep]]()
    levels = daily_levels(past, healthy)
    if levels is None:
        return Creeping(rows, ())
    day = np.floor(past.times / DAY).astype(np.int64)
    for channel in np.flatnonzero(watched):
        course = levels.level[:, channel]
        if not np.isfinite(course).all():
            continue
        anew = np.searchsorted(levels.number, np.ceil(np.sort(accepted[channel]) / DAY))
        edges = [0, *anew.tolist(), len(course)]
        parts = [crept_days(levels.number[a:b], course[a:b]) for a, b in pairwise(edges)]
        crept = np.concatenate([part[1] for part in parts])
        rows |= np.isin(day, levels.number[crept])
        if parts[-1][1][-1:].any():
            first = edges[-2] + int(parts[-1][0][-1])
            rise = float(course[-1] - course[first])
            days = int(levels.number[-1] - levels.number[first]) + 1
            since = float(levels.number[first] * DAY)
            found.append((abs(rise), Creep(int(channel), days, rise > 0, since)))
    # What creeps also disturbs how the other channels are explained, but less.
    found.sort(key=lambda each: each[0], reverse=True)
    return Creeping(rows, tuple(creep for _, creep in found))


def daily_levels(past: Past, used: Bools) -> DailyLevels | None:
    """Return the levels of all days with enough `used` rows; None if there are too few."""
    length = max(BLOCK, BLOCK_ROWS * past.period)
    number = np.floor(past.times[used] / length).astype(np.int64)
    if len(number) < 2:
        return None
    rows = past.values[used].astype(np.float64)
    block, index = np.unique(number, return_inverse=True)
    there = np.isfinite(rows)
    counts = _sums(index, there)
    means = _sums(index, np.where(there, rows, 0)) / np.maximum(counts, 1)
    known = np.isfinite(rows).mean(axis=0) > FILLED
    full = (counts[:, known] >= FILLED * length / past.period).all(axis=1)
    # Each block with the one before it, because heat follows load by hours.
    after = np.flatnonzero(full[1:] & full[:-1] & (np.diff(block) == 1)) + 1
    means = np.concatenate([means[after], means[after - 1]], axis=1)
    day = np.floor(block[after] * length / DAY).astype(np.int64)
    days, index, blocks = np.unique(day, return_inverse=True, return_counts=True)
    if len(days) < WINDOWS[0]:
        return None
    inside = means - (_sums(index, means) / blocks[:, np.newaxis])[index]
    scale = np.maximum(inside.std(axis=0), 1e-9 * np.maximum(np.abs(means).max(axis=0), 1e-9))
    level = np.full((len(days), rows.shape[1]), np.nan)
    for channel in np.flatnonzero(known):
        others = np.tile(known & (np.arange(len(known)) != channel), 2)
        design, target = (inside / scale)[:, others], (inside / scale)[:, channel]
        normal = design.T @ design + RIDGE * len(design) * np.eye(others.sum())
        weights = np.linalg.solve(normal, design.T @ target)
        deviation = max(float((target - design @ weights).std()), 1e-6)
        rest = ((means / scale)[:, channel] - (means / scale)[:, others] @ weights) / deviation
        level[:, channel] = [np.median(rest[index == each]) for each in range(len(days))]
    kept = blocks >= FEWEST_BLOCKS
    return DailyLevels(days[kept], level[kept]) if kept.sum() >= WINDOWS[0] else None


def _sums(index: npt.NDArray[np.intp], rows: npt.NDArray[np.generic]) -> Float64:
    columns = [np.bincount(index, column) for column in rows.T]
    return np.stack(columns, axis=1).astype(np.float64)


def crept_days(number: Days, course: Float64) -> tuple[npt.NDArray[np.intp], Bools]:
    """Return on which day the creep of each day began, as an index, and whether it creeps.

    number, course: the days and their levels [d]. A creep goes on until the level is nearly
    back among those before it.
    """
    start, crept = np.zeros(len(course), np.intp), np.zeros(len(course), bool)
    for end in range(WINDOWS[0], len(course) + 1):
        if first := _begin(number[:end], course[:end]):
            start[first:end], crept[first:end] = first, True
        elif crept[end - 2] and not _is_back(course[:end], start[end - 2]):
            start[end - 1], crept[end - 1] = start[end - 2], True
    return start, crept


def _begin(number: Days, course: Float64) -> int | None:
    """Return the first day of the longest window at the end of `course` that creeps, or None."""
    usual = _usual_difference(course)
    for length in reversed(WINDOWS):
        first = len(course) - length
        if first >= FEWEST_BEFORE and _creeps(
            number[first:], course[first:], course[:first], usual
        ):
            return first
    return None


def _creeps(number: Days, window: Float64, before: Float64, usual: float) -> bool:
    earlier, later = np.triu_indices(len(window), 1)
    steps = window[later] - window[earlier]
    slope = float(np.median(steps / (number[later] - number[earlier])))  # by Theil and Sen
    rise = slope * float(number[-1] - number[0])
    way = np.sign(rise)
    return bool(
        abs(np.sign(steps).mean()) >= TAU
        and abs(rise) >= max(RISE, WANDER * usual * np.sqrt(len(window) - 1))
        and (way * window[-1] - (way * before).max()) >= BEYOND * usual
        and np.abs(np.diff(window) / np.diff(number)).max() <= LARGEST_STEP * abs(rise)
    )


def _is_back(course: Float64, start: int) -> bool:
    """Return whether the last level is half as far from those before `start` as it was, or less."""
    before = course[:start]
    beyond = np.maximum(before.min() - course[start:], course[start:] - before.max())
    return bool(beyond[-1] < max(beyond.max() / 2, _usual_difference(before)))


def _usual_difference(course: Float64) -> float:
    """Return the usual difference of the levels of two days in a row."""
    return float(np.median(np.abs(np.diff(course)))) if len(course) > 1 else 0.0
