"""Alarms that come to many assets at once, told from those of one.

Weather, power or a shared network alarms many machines within minutes. For each alarm, the other
assets that begin an alarm within `WINDOW` are counted: each asset once, however often it alarms.
Were all alarms independent, asset b would be among them with the probability

    p = 1 - exp(-2 WINDOW r),

where r is its own rate of alarms, drawn towards that of the fleet by one alarm. The number of such
assets is then about Poisson with the sum of all p as its mean. An alarm is common if so many assets
come with a probability of at most `CHANCE`, which is shared by the groups in which it is looked
for: all assets, those of its site, and those of its type. At least `FEWEST` others have to come.

The rates include the common alarms themselves, which makes them too high, and so the test careful.
Only alarms with a date can be compared: times above `EPOCH`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.calibration import chance_of_at_most

WINDOW = 300.0
"""Seconds."""
CHANCE = 1e-3
"""Probability that an alarm of its own is called common, at most."""
FEWEST = 2
"""Other assets."""
EPOCH = 1e8
"""Seconds. Smaller times count from the start of a recording."""
_DEVIATIONS = 3.0  # that a normal variable exceeds with the probability `CHANCE`, a little less
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Watched:
    """An asset to compare. starts: of its alarms, epoch seconds. first, last: of its records.

    groups: further names of groups that it belongs to, such as `site North`.
    """

    asset: str
    starts: tuple[float, ...]
    first: float
    last: float
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Company:
    """What came with one alarm. group: where it stands out the most; empty if nowhere.

    assets: how many others alarmed in this group. expected: by chance. chance: of so many.
    """

    group: str = ""
    assets: int = 0
    expected: float = 0.0
    chance: float = 1.0

    @property
    def common(self) -> bool:
        """Whether the alarm is one of many with one cause."""
        return bool(self.group)


ALL = "all assets"


def companies(watched: Sequence[Watched]) -> list[list[Company]]:
    """Return what came with each alarm of each asset."""
    found = [[Company()] * len(each.starts) for each in watched]
    tests = 1 + max((len(each.groups) for each in watched), default=0)
    for group, members in _groups(watched):
        if len(members) <= FEWEST:
            continue
        for asset, alarm, others, expected in _counted([watched[m] for m in members]):
            # The tail of Poisson is heavier than that of the normal distribution.
            if others < max(FEWEST, expected + _DEVIATIONS * math.sqrt(expected)):
                continue
            chance = chance_of_at_least(others, expected)
            if chance <= min(CHANCE / tests, found[members[asset]][alarm].chance):
                found[members[asset]][alarm] = Company(group, others, expected, chance)
    return found


def chance_of_at_least(count: int, mean: float) -> float:
    """Return the probability of `count` or more when `mean` are expected."""
    if count <= 0:
        return 1.0
    if count > mean + 10 * math.sqrt(mean) + 30:
        return 0.0  # far beyond what a double can tell from zero
    return max(0.0, 1.0 - chance_of_at_most(count - 1, mean))


def _groups(watched: Sequence[Watched]) -> Iterator[tuple[str, list[int]]]:
    """Yield each group with the places of its assets; all assets first."""
    groups: dict[str, list[int]] = {ALL: list(range(len(watched)))}
    for place, each in enumerate(watched):
        for name in each.groups:
            groups.setdefault(name, []).append(place)
    yield from groups.items()


def _counted(members: Sequence[Watched]) -> Iterator[tuple[int, int, int, float]]:
    """Yield for each alarm: its asset, its number, other assets in alarm, and how many by chance"""
    shares = _chances(members)
    first, last = (np.array([getattr(m, name) for m in members]) for name in ("first", "last"))
    begun, over = np.sort(first), np.sort(last)
    by_begin = np.concatenate([[0.0], np.cumsum(shares[np.argsort(first)])])
    by_end = np.concatenate([[0.0], np.cumsum(shares[np.argsort(last)])])
    owners = np.repeat(np.arange(len(members)), [len(m.starts) for m in members])
    numbers = np.concatenate([np.arange(len(m.starts)) for m in members])
    times = np.concatenate([np.array(m.starts) for m in members])
    order = np.argsort(times, kind="stable")
    owners, numbers, times = owners[order], numbers[order], times[order]
    low = np.searchsorted(times, times - WINDOW, side="left")
    high = np.searchsorted(times, times + WINDOW, side="right")
    inside: dict[int, int] = {}
    left = right = 0
    for place, (owner, time) in enumerate(zip(owners.tolist(), times.tolist(), strict=True)):
        for entering in owners[right : high[place]].tolist():
            inside[entering] = inside.get(entering, 0) + 1
        for leaving in owners[left : low[place]].tolist():
            inside[leaving] -= 1
            if not inside[leaving]:
                del inside[leaving]
        left, right = int(low[place]), int(high[place])
        # Those that had records at this time.
        present = (
            by_begin[np.searchsorted(begun, time, "right")]
            - by_end[np.searchsorted(over, time, "left")]
        )
        expected = max(float(present - shares[owner]), 0.0)
        yield owner, int(numbers[place]), len(inside) - 1, expected


def _chances(members: Sequence[Watched]) -> Float64:
    """Return for each asset the probability of an alarm within the window around any time."""
    counts = np.array([len(m.starts) for m in members], float)
    seconds = np.array([max(m.last - m.first, 2 * WINDOW) for m in members])
    usual = max(counts.sum(), 1.0) / seconds.sum()
    rates = (counts + 1.0) / (seconds + 1.0 / usual)
    return -np.expm1(-2 * WINDOW * rates)
