"""Tell a fault that lasts for days from seasons, and from daily and weekly rhythms.

A detector that learns again each week absorbs a fault that grows slowly enough: each time the last
days look healthy to the one before. So the past is also judged by how each channel stands to the
others, day by day.

1. Blocks of an hour are averaged. Each channel is explained by the other ones in this block and the
   one before, with coefficients from the variation within days only (the fixed effects estimator).
   So what grows over days cannot enter them, and season and load, which move the channels together,
   are explained.
2. The level of a day is the median of what is not explained, in units of its deviation within days.
3. A channel creeps on a day whose level lies clearly beyond the levels of the days at least two
   weeks before, or of the first five. Days that crept are no such days. So a fault cannot become
   usual in steps that are each too small to notice.

The days of a creep are not healthy until the owner accepts it or the level is back. A step raises
an alarm; where the owner has marked that as false, it is no creep. The caller remembers the days
that crept: when the past begins within the fault, the fault would be what is usual.
benchmarks/life.py measures the rule.
"""

from collections.abc import Collection, Sequence
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
FIRST_DAYS, LAG = 5, 14
"""Days that are usual at first, and by how many days what is usual lags behind."""
BEYOND, OF_RANGE = 2.0, 0.5
"""How far a level that creeps is beyond the usual ones: in deviations within days, and their range.
"""
STEP = 2 / 3
"""Share of what a level is beyond the usual ones that a step has at once."""
LONGEST_GAP = 3
"""Days at most between the two levels of a step; an alarm takes days out."""
RIDGE = 1e-3


@dataclass(frozen=True)
class Creep:
    """The channel of this index has been too high, or too low, for so many days."""

    channel: int
    days: int
    up: bool


@dataclass(frozen=True)
class Creeping:
    """rows: bool [n], whether each row is of a day that crept. now: at the end, worst first.

    days: those days, numbered since 1970. fine: days with a level that did not creep.
    """

    rows: Bools
    now: tuple[Creep, ...]
    days: tuple[int, ...]
    fine: tuple[int, ...]


@dataclass(frozen=True)
class DailyLevels:
    """number: of the days, since 1970 [d]. level: [d, channels], not explained by the others."""

    number: Days
    level: Float64


def creeping(
    past: Past, healthy: Bools, watched: Bools, accepted: Sequence[float], answered: Collection[int]
) -> Creeping:
    """Find creeps of the `watched` channels [channels] in the `healthy` rows.

    accepted: the times at which the owner accepted a creep. answered: the days, numbered since
    1970, with alarms all of which the owner marked as false; a step on such a day, or the day
    after, is known to be healthy. What is usual begins anew at both, for all channels, because
    each explains the others.
    """
    levels = daily_levels(past, healthy)
    if levels is None:
        return Creeping(np.zeros(len(past.times), bool), (), (), ())
    number = levels.number
    courses = {
        int(channel): levels.level[:, channel]
        for channel in np.flatnonzero(watched)
        if np.isfinite(levels.level[:, channel]).all()
    }
    anew = {0, *np.searchsorted(number, np.ceil(np.array(accepted) / DAY)).tolist()}
    while True:
        beyond = {each: _beyond(number, course, anew) for each, course in courses.items()}
        steps = [_first_step(number, courses[c], beyond[c], answered) for c in courses]
        new = {step for step in steps if step is not None} - anew
        if not new:
            break
        anew.add(min(new))
    there = max(anew) < len(number)  # not if it was accepted after the last day
    now = [channel for channel in courses if there and beyond[channel][-1]]
    # What creeps also disturbs how the other channels are explained, but less.
    now.sort(key=lambda channel: abs(beyond[channel][-1]), reverse=True)
    far = np.any([course != 0 for course in beyond.values()], axis=0) & np.ones(len(number), bool)
    rows = np.isin(day_numbers(past.times), number[far])
    creeps = tuple(_creep(number, channel, beyond[channel]) for channel in now)
    return Creeping(rows, creeps, tuple(number[far].tolist()), tuple(number[~far].tolist()))


def _creep(number: Days, channel: int, beyond: Float64) -> Creep:
    calm = np.flatnonzero(beyond == 0)[-1]  # the first days always are
    return Creep(channel, int(number[-1] - number[calm]), bool(beyond[-1] > 0))


def _beyond(number: Days, course: Float64, anew: Collection[int]) -> Float64:
    edges = sorted({*anew, len(course)})
    parts = [beyond_usual(number[a:b], course[a:b]) for a, b in pairwise(edges)]
    return np.concatenate(parts)


def _first_step(
    number: Days, course: Float64, beyond: Float64, answered: Collection[int]
) -> int | None:
    """Return the first day, as an index, that creeps by a step which the owner has answered."""
    for day in np.flatnonzero(beyond):
        known = number[day] in answered or number[day] - 1 in answered
        step = (course[day] - course[day - 1]) * np.sign(beyond[day])
        if (
            known
            and number[day] - number[day - 1] <= LONGEST_GAP
            and step >= STEP * abs(beyond[day])
        ):
            return int(day)
    return None


def day_numbers(times: Float64) -> Days:
    """Return the day of each of `times` in seconds, numbered since 1970."""
    numbers: Days = np.floor(times / DAY).astype(np.int64)
    return numbers


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
    if len(days) < FIRST_DAYS:
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
    return DailyLevels(days[kept], level[kept]) if kept.sum() >= FIRST_DAYS else None


def _sums(index: npt.NDArray[np.intp], rows: npt.NDArray[np.generic]) -> Float64:
    columns = [np.bincount(index, column) for column in rows.T]
    return np.stack(columns, axis=1).astype(np.float64)


def beyond_usual(number: Days, course: Float64) -> Float64:
    """Return how far each day is beyond what is usual [d]; 0 where it is not, or not clearly.

    number, course: the days and their levels [d]; the first `FIRST_DAYS` of them are usual.
    """
    beyond = np.zeros(len(course))
    for day in range(FIRST_DAYS, len(course)):
        usual = (number <= number[day] - LAG) & (beyond == 0)
        usual[:FIRST_DAYS] = True
        low, high = course[usual].min(), course[usual].max()
        distance = max(course[day] - high, 0.0) + min(course[day] - low, 0.0)
        if abs(distance) >= max(BEYOND, OF_RANGE * (high - low)):
            beyond[day] = distance
    return beyond
