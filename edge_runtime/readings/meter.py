"""How a recording goes: readings, rate and missing samples, for a status line and a summary."""

import statistics
from collections import deque
from itertools import pairwise

from edge_runtime.bundle.manifest import LONGEST_PERIOD, SHORTEST_PERIOD
from edge_runtime.sources.sample_clock import SampleClock
from edge_runtime.sources.source import Reading

_LEARNT_FROM = 33
"""Readings that tell the period of a source, where nobody does."""
_WINDOW = 60
"""Seconds whose rate is shown."""


class Meter:
    """Counts. period: seconds between samples, None until the first readings tell it.

    first, last: times of the source, None before one told any. now: monotonic seconds.
    """

    def __init__(self, period: float | None, live: bool, now: float) -> None:
        self.readings = 0
        self.first: float | None = None
        self.last: float | None = None
        self._live = live
        self._clock = SampleClock(period, live, now)
        self._finder = PeriodFinder(live) if period is None else None
        self._seconds: deque[tuple[float, int]] = deque([(now, 0)], maxlen=_WINDOW + 1)

    @property
    def missing(self) -> int:
        """Samples that did not come, as the sample clock of a run counts them."""
        return self._clock.events["missing"]

    @property
    def rate(self) -> float:
        """Readings per second in the last minute; 0 before a second has gone by."""
        (then, before), (now, count) = self._seconds[0], self._seconds[-1]
        return (count - before) / (now - then) if now > then else 0.0

    def see(self, reading: Reading | None, now: float) -> None:
        """Count a reading, or that none came until `now`."""
        if reading is None:
            self._clock.overdue(now)
        else:
            self.readings += 1
            if reading.time is not None:
                self.first = reading.time if self.first is None else self.first
                self.last = reading.time
            self._clock.place(reading, now)
            self._find_period(reading, now)
        if now - self._seconds[-1][0] >= 1.0:
            self._seconds.append((now, self.readings))

    def finish(self, now: float) -> None:
        """The source has ended."""
        self._clock.finish(now)

    def _find_period(self, reading: Reading, now: float) -> None:
        if self._finder is None or (period := self._finder.see(reading, now)) is None:
            return
        self._finder = None
        self._clock = SampleClock(period, self._live, now)


class PeriodFinder:
    """Finds the period from the times of the first readings, or from their arrivals if `live`."""

    def __init__(self, live: bool) -> None:
        self._live = live
        self._stamps: list[float] = []

    def see(self, reading: Reading, now: float) -> float | None:
        """Return the seconds between samples once enough readings tell them, else None."""
        stamp = now if reading.time is None and self._live else reading.time
        if stamp is None:
            return None
        self._stamps.append(stamp)
        if len(self._stamps) < _LEARNT_FROM:
            return None
        period = statistics.median(after - before for before, after in pairwise(self._stamps))
        self._stamps.clear()
        return period if SHORTEST_PERIOD <= period <= LONGEST_PERIOD else None
