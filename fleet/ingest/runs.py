"""Which records of a run are counted already, so that a record counts once, however it arrives.

`run` and `index` identify a record that came through a journal or a broker. A file has no `run`:
its records are cut where the index does not grow, and each stretch belongs to the known run

- that begins with the same record, or
- that has this index and this time within its range: a machine has one run at a time, or
- whose end it continues: the index is higher, and the time is later by as many periods.

Otherwise it is a run of its own.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.plain import LARGEST_INTEGER

MOST_RUNS, MOST_CLOSED, MOST_SPANS = 100, 2000, 250
"""Runs of an asset that are known in detail and by name only, and stretches of each."""
_SLACK, _DRIFT = 10.0, 0.05  # periods, and share of the distance, by which a time may be off
Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RunSeen:
    """What is known of one run of a device.

    key: names it here. name: its field `run`, empty if no record had one. digest: of the record
    `first`, the one that was read first. spans: [from, to, from, to, …] of the indices that are
    counted, in order. begin, end: times of the lowest and of the highest index in seconds, None if
    they have none. slots: further slots that long gaps stand for.
    """

    key: str
    name: str
    first: int
    digest: str
    spans: tuple[int, ...] = ()
    begin: float | None = None
    end: float | None = None
    slots: int = 0

    @property
    def low(self) -> int:
        """The lowest index that was read."""
        return self.spans[0] if self.spans else self.first

    @property
    def high(self) -> int:
        """The index after the highest one that was read."""
        return self.spans[-1] if self.spans else self.first

    @property
    def seen(self) -> int:
        """Records that are counted."""
        return sum(self.spans[1::2]) - sum(self.spans[::2])

    @property
    def missing(self) -> int:
        """Records between the first and the last that were not read."""
        return self.high - self.low - self.seen

    @property
    def period(self) -> float | None:
        """Mean seconds between slots; None as long as it is unknown."""
        slots = self.high - 1 - self.low + self.slots
        if self.begin is None or self.end is None or slots <= 0 or self.end <= self.begin:
            return None
        return (self.end - self.begin) / slots

    @property
    def watched(self) -> float:
        """Seconds between its first and its last record."""
        known = self.begin is not None and self.end is not None
        return max(self.end - self.begin, 0.0) if known else 0.0  # type: ignore[operator]

    @property
    def covered(self) -> float:
        """Seconds for which records were read."""
        return (self.seen + self.slots) * (self.period or 0.0)

    def unseen(self, indices: Int64) -> Bools:
        """Return which of `indices` [n] are not counted yet."""
        places = np.searchsorted(np.asarray(self.spans, np.int64), indices, side="right")
        return np.asarray(places % 2 == 0)

    def has_any(self, low: int, high: int) -> bool:
        """Return whether any index in [low, high) is counted."""
        place = bisect.bisect_right(self.spans, low)
        return place % 2 == 1 or (place < len(self.spans) and self.spans[place] < high)

    def with_records(self, indices: Int64, times: npt.NDArray[np.float64], slots: int) -> RunSeen:
        """Return the run with further, growing `indices` [n] and their times, NaN for unknown."""
        breaks = np.flatnonzero(np.diff(indices) > 1)
        starts = indices[np.concatenate([[0], breaks + 1])].tolist()
        stops = (indices[np.append(breaks, len(indices) - 1)] + 1).tolist()
        begin, end = self.begin, self.end
        if not self.spans or indices[0] < self.low:
            begin = _known(times[0])
        if not self.spans or indices[-1] >= self.high:
            end = _known(times[-1])
        known = list(zip(self.spans[::2], self.spans[1::2], strict=True))
        spans = _joined([*known, *zip(starts, stops, strict=True)])
        return replace(
            self, spans=spans, begin=begin, end=end, slots=min(self.slots + slots, LARGEST_INTEGER)
        )

    def continues(self, index: int, time: float | None) -> bool:
        """Return whether a record may come after the last one of this run."""
        if index < self.high:
            return False
        if time is None or self.end is None:
            return index == self.high and time is self.end
        ahead = (index - self.high + 1) * (self.period or 0.0)
        slack = _SLACK * (self.period or 1.0) + _DRIFT * ahead
        return abs(time - self.end - ahead) <= slack

    def covers(self, index: int, time: float | None) -> bool:
        """Return whether a record lies within this run by its index and its time."""
        if time is None or self.begin is None or self.end is None:
            return False
        return self.low <= index < self.high and self.begin <= time <= self.end


@dataclass(frozen=True)
class ClosedRuns:
    """Runs beyond the last `MOST_RUNS`. names: keys and names; their records count as counted.

    count: of these runs. missing: records. watched, covered: seconds, as of RunSeen.
    """

    names: tuple[str, ...] = ()
    count: int = 0
    missing: int = 0
    watched: float = 0.0
    covered: float = 0.0

    def with_run(self, run: RunSeen) -> ClosedRuns:
        """Return them with one more."""
        names = dict.fromkeys((*self.names, *filter(None, (run.key, run.name))))
        return ClosedRuns(
            names=tuple(names)[-MOST_CLOSED:],
            count=self.count + 1,
            missing=self.missing + run.missing,
            watched=self.watched + run.watched,
            covered=self.covered + run.covered,
        )


NONE_CLOSED = ClosedRuns()


class Runs:
    """The runs of one asset, the newest last."""

    def __init__(self, known: tuple[RunSeen, ...], closed: ClosedRuns) -> None:
        self._runs = {run.key: run for run in known}
        self.closed = closed

    @property
    def known(self) -> tuple[RunSeen, ...]:
        """Those that are known in detail."""
        return tuple(self._runs.values())

    def find(self, name: str, index: int, time: float | None, digest: str) -> RunSeen | None:
        """Return the run of a stretch that begins with this record; None for one that is closed.

        name: its field `run`, or empty. digest: of the record without this field.
        """
        key = name or f"-{digest}"
        if key in self.closed.names:
            return None
        for run in reversed(self._runs.values()):
            named = name and run.name
            if run.name == name if named else self._is_of(run, index, time, digest):
                return replace(run, name=run.name or name)
        return RunSeen(key, name, index, digest)

    @staticmethod
    def _is_of(run: RunSeen, index: int, time: float | None, digest: str) -> bool:
        if (run.first, run.digest) == (index, digest):
            return True
        # Two recordings that are replayed have the same times, but not the same first record.
        return index > 0 and (run.covers(index, time) or run.continues(index, time))

    def keep(self, run: RunSeen) -> RunSeen:
        """Remember what is known of a run now; return it."""
        self._runs[run.key] = _bounded(run)
        if len(self._runs) > MOST_RUNS:
            others = (each for each in self._runs.values() if each.key != run.key)
            oldest = min(others, key=lambda each: (each.end or 0.0, each.low))
            del self._runs[oldest.key]
            self.closed = self.closed.with_run(oldest)
        return self._runs[run.key]


def _bounded(run: RunSeen) -> RunSeen:
    """Close the smallest holes of a run that has too many of them; their records count as read."""
    spans = np.asarray(run.spans, np.int64)
    if len(spans) <= 2 * MOST_SPANS:
        return run
    holes = spans[2::2] - spans[1:-1:2]
    kept = np.sort(np.argsort(-holes, kind="stable")[: MOST_SPANS - 1])
    inner = np.stack([spans[1 + 2 * kept], spans[2 + 2 * kept]], axis=1).ravel()
    return replace(run, spans=(run.spans[0], *inner.tolist(), run.spans[-1]))


def _joined(spans: list[tuple[int, int]]) -> tuple[int, ...]:
    joined: list[int] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1]:
            joined[-1] = max(joined[-1], high)
        else:
            joined += [low, high]
    return tuple(joined)


def _known(time: float) -> float | None:
    return float(time) if np.isfinite(time) else None
