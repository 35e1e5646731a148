"""Counters as rates, of a whole recording or of a source reading by reading: the same bits."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.columns import GAP_PERIODS
from edge_runtime.record import Float32
from edge_runtime.sources.source import Reading, Source


def rates(
    counts: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64] | None,
    period: float | None,
) -> Float32:
    """Return what a counter gained since the row before, [rows].

    counts: [rows]. times: [rows] seconds. period: seconds, None if unknown. A rate is missing (NaN)
    in the first row, after a gap in time or a missing count, and where the counter starts anew.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        gained = np.diff(counts, prepend=np.nan)
        gained[~(gained >= 0)] = np.nan
        if times is not None and period is not None:
            steps = np.diff(times, prepend=np.nan)
            gained[~((steps >= 0) & (steps <= GAP_PERIODS * period))] = np.nan
        return gained.astype(np.float32)


class CountingSource:
    """`source` with the rates of its counters in place of their counts; see `rates`.

    For readings of a live source without times, the time of arrival counts.
    """

    def __init__(
        self,
        source: Source,
        at: Sequence[int],
        period: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.live = source.live
        self._source, self._at, self._period, self._clock = source, list(at), period, clock
        self._counts = np.full(len(at), np.nan)
        self._time: float | None = None
        self._arrival = -math.inf

    @property
    def threads(self) -> Any:
        """Those of the source."""
        return getattr(self._source, "threads", ())

    def read(self, timeout: float | None) -> Reading | None:
        """Return the next reading; see Source."""
        reading = self._source.read(timeout)
        if reading is None:
            return None
        values = reading.values.astype(np.float64)
        counts, follows = values[self._at], self._follows(reading)
        with np.errstate(invalid="ignore", over="ignore"):
            gained = counts - self._counts
        gained[~(gained >= 0) | (not follows)] = np.nan
        values[self._at] = gained
        self._counts, self._time = counts, reading.time
        return Reading(reading.time, values)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _follows(self, reading: Reading) -> bool:
        """Whether no reading is missing between the last one and this."""
        now, last = self._clock(), self._arrival
        self._arrival = now
        if self._period is None:
            return True
        if reading.time is not None and self._time is not None:
            return 0 <= reading.time - self._time <= GAP_PERIODS * self._period
        return not self.live or now - last <= GAP_PERIODS * self._period
