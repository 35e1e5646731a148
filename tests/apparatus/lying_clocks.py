"""Streams with a bad clock, network or host, in seeded ways.

A stream is a list of (time, arrival): the source's time and the arrival of the reading, both in
seconds, with non-decreasing arrivals. `LIES` makes one stream of each kind for a sample `period`.
"""

import math
from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
Stream = list[tuple[float | None, float]]
Lie = Callable[[Rng, int, float], Stream]
"""Makes about a number of readings, with the given period."""

HOUR, YEAR, NOW = 3600.0, 365 * 86400.0, 1.79e9
ODD_TIMES = (
    None, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -5e-324, 0.0, -1.0, 1e15, -1e15,
)  # fmt: skip


def honest(count: int, period: float) -> np.ndarray:
    """Return readings [count, 2] of a good source: its time and the arrival."""
    ours = period * np.arange(count)
    return np.stack([NOW + ours, ours], axis=1)


def _stream(table: np.ndarray) -> Stream:
    """Rows in the order of arrival."""
    order = np.argsort(table[:, 1], kind="stable")
    return [(float(time), max(float(arrival), 0.0)) for time, arrival in table[order]]


def _jitter(draw: Callable[[Rng, int], np.ndarray], stamps_only: bool = False) -> Lie:
    def lie(rng: Rng, count: int, period: float) -> Stream:
        table, off = honest(count, period), period * draw(rng, count)
        table[:, 0] += off
        if not stamps_only:
            table[:, 1] += off
        return _stream(table)

    return lie


def late_arrivals(rng: Rng, count: int, period: float) -> Stream:
    """Readings arrive up to a period late; their times are right."""
    table = honest(count, period)
    table[:, 1] += period * rng.uniform(0, 1, count)
    table[:, 1] = np.maximum.accumulate(table[:, 1])
    return _stream(table)


def loss(rng: Rng, count: int, period: float) -> Stream:
    """0.1 to 30 % of the readings are lost, one by one."""
    share = rng.choice([0.001, 0.01, 0.02, 0.1, 0.3])
    return _stream(honest(count, period)[rng.random(count) >= share])


def loss_in_bursts(rng: Rng, count: int, period: float) -> Stream:
    """Up to 20 readings in a row are lost, now and then."""
    lost = np.zeros(count, bool)
    for start in rng.integers(1, count, max(count // 60, 1)):
        lost[start : start + int(rng.integers(2, 20))] = True
    return _stream(honest(count, period)[~lost])


def clumps(rng: Rng, count: int, period: float) -> Stream:
    """Two or three readings come together, with the times of measuring or of sending."""
    table, size = honest(count, period), int(rng.integers(2, 4))
    sent = period * size * (np.arange(count) // size + 1)
    table[:, 1] = sent
    if rng.random() < 0.5:
        table[:, 0] = NOW + sent
    return _stream(table)


def coarse(rng: Rng, count: int, period: float) -> Stream:
    """Times in steps of 2 to 10 periods."""
    table, step = honest(count, period), period * int(rng.integers(2, 11))
    table[:, 0] = np.floor(table[:, 0] / step) * step
    return _stream(table)


def duplicates(rng: Rng, count: int, period: float) -> Stream:
    """One reading in ten comes twice."""
    table = honest(count, period)
    return _stream(np.repeat(table, 1 + (rng.random(count) < 0.1), axis=0))


def reordered(rng: Rng, count: int, period: float) -> Stream:
    """One reading in ten is overtaken by the next."""
    table = honest(count, period)
    for i in rng.integers(1, count - 1, count // 10):
        table[[i, i + 1], 0] = table[[i + 1, i], 0]
    return _stream(table)


def _from(change: Callable[[Rng, np.ndarray, float], None]) -> Lie:
    """Change the source's time in a stretch of the stream by `change(rng, times, period)`."""

    def lie(rng: Rng, count: int, period: float) -> Stream:
        table = honest(count, period)
        start = int(rng.integers(1, count // 2))
        change(rng, table[start : start + int(rng.integers(5, count // 2)), 0], period)
        return _stream(table)

    return lie


def _frozen(rng: Rng, times: np.ndarray, period: float) -> None:
    times[:] = times[0]


def _backwards(rng: Rng, times: np.ndarray, period: float) -> None:
    times[:] = times[0] - period * np.arange(len(times))


def _one_wrong(rng: Rng, times: np.ndarray, period: float) -> None:
    times[0] += rng.choice([HOUR, -HOUR, YEAR, -YEAR, 7 * period, -7 * period])


def _set(amounts: tuple[float, ...]) -> Lie:
    """The clock is set for good, by each of some amounts in turn."""

    def lie(rng: Rng, count: int, period: float) -> Stream:
        table = honest(count, period)
        for start in np.sort(rng.integers(1, count, 3)):
            table[start:, 0] += rng.choice(amounts)
        return _stream(table)

    return lie


def no_battery(rng: Rng, count: int, period: float) -> Stream:
    """From 0 after a start, then set to now, then set again by some seconds."""
    table = honest(count, period)
    first, again = np.sort(rng.integers(1, count, 2))
    table[:first, 0] -= NOW
    table[again:, 0] += rng.choice([HOUR, -HOUR, 11 * period, -11 * period])
    return _stream(table)


def garbage(rng: Rng, count: int, period: float) -> Stream:
    """One time in three is no time at all."""
    stream = _stream(honest(count, period))
    odd = rng.random(count) < rng.choice([0.05, 0.3, 1.0])
    odd[0] = False
    return [
        (ODD_TIMES[int(rng.integers(len(ODD_TIMES)))] if wrong else time, arrival)
        for wrong, (time, arrival) in zip(odd, stream, strict=True)
    ]


def wrong_rate(rng: Rng, count: int, period: float) -> Stream:
    """Twice, three times or half as fast as the period."""
    return _stream(honest(count, period * float(rng.choice([0.5, 0.33, 2.0]))))


def drift(rng: Rng, count: int, period: float) -> Stream:
    """The source's clock goes wrong by 500 ppm, one way or the other."""
    table = honest(count, period)
    table[:, 0] = NOW + table[:, 1] * (1 + rng.choice([5e-4, -5e-4]))
    return _stream(table)


def stalls(rng: Rng, count: int, period: float) -> Stream:
    """The host stalls for up to 30 periods; the readings of that time are read at once."""
    table = honest(count, period)
    for start in rng.integers(1, count, 3):
        end = min(start + int(rng.integers(2, 30)), count - 1)
        table[start:end, 1] = table[end, 1]
    return _stream(table)


def everything(rng: Rng, count: int, period: float) -> Stream:
    """Stretches of all the others, one after the other."""
    stream: Stream = []
    while len(stream) < count:
        lie = list(LIES.values())[int(rng.integers(len(LIES) - 1))]
        start = stream[-1][1] + period if stream else 0.0
        stretch = lie(rng, 40, period)
        stream += [(time, start + arrival) for time, arrival in stretch]
    return stream


LIES: dict[str, Lie] = {
    "small jitter": _jitter(lambda rng, n: rng.normal(0, rng.uniform(0.05, 0.25), n)),
    "large jitter": _jitter(lambda rng, n: rng.normal(0, rng.uniform(0.3, 1.0), n)),
    "uniform jitter": _jitter(lambda rng, n: rng.uniform(-1, 1, n)),
    "one-sided jitter": _jitter(lambda rng, n: rng.uniform(0, 1, n)),
    "jitter of the times alone": _jitter(lambda rng, n: rng.uniform(-1, 1, n), True),
    "late stamps": _jitter(lambda rng, n: 0.6 * (rng.random(n) < 0.02), True),
    "late arrivals": late_arrivals,
    "loss": loss,
    "loss in bursts": loss_in_bursts,
    "clumps": clumps,
    "coarse times": coarse,
    "duplicates": duplicates,
    "reordered": reordered,
    "clock stands still": _from(_frozen),
    "clock runs backwards": _from(_backwards),
    "one wrong time": _from(_one_wrong),
    "clock set": _set((HOUR, -HOUR, YEAR, -YEAR, 20.0, -20.0)),
    "no battery": no_battery,
    "garbage": garbage,
    "wrong rate": wrong_rate,
    "drift": drift,
    "host stalls": stalls,
    "everything": everything,
}
