"""The readings that a run has kept, in slots, and what the current detector says of them."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.detector import StepDetector
from edge_runtime.errors import GruardError
from edge_runtime.native.engine import NativeDetector
from edge_runtime.readings.parts import Row, last_row, parts_in, read_channels, read_rows
from edge_runtime.record import Flag, Float32, Sample
from edge_runtime.sources.counters import CountingSource
from edge_runtime.sources.csvlayout import channel_order
from edge_runtime.sources.sample_clock import SampleClock, slots_of
from edge_runtime.sources.source import Reading

LOOK_BACK = 35 * 86400.0
"""Seconds of readings, the newest, that are learned from."""
EARLIEST_DATE = 946_684_800.0
"""The year 2000; smaller times are no dates."""
PIECE = 20_000
"""Rows that are judged in one call of the C core; bounds the memory of their records."""


@dataclass(frozen=True)
class Past:
    """Slots of the sample clock. times: seconds [n]. values: [n, channels], NaN where missing."""

    times: npt.NDArray[np.float64]
    values: Float32
    period: float


@dataclass(frozen=True)
class JudgedPast:
    """By the current detector: whether each row is in alarm, and flagged CHANGED; [n]."""

    alarm: npt.NDArray[np.bool_]
    changed: npt.NDArray[np.bool_]


def read_past(
    folder: Path,
    channels: Sequence[str],
    counters: Collection[str],
    period: float,
    report: Callable[[str], None],
) -> Past:
    """Return the last readings in `folder` of these channels, in slots of `period` seconds.

    counters: channels whose counts become rates. What is left of older parts, the time around
    alarms, is not read. report: takes a line about damaged bytes. Raises GruardError when there are
    no readings, or a channel is missing.
    """
    if not folder.is_dir():
        raise GruardError(
            f"{folder}: is no folder; gruard run --keep-readings {folder} keeps readings there, "
            "and --readings names another one"
        )
    own = read_channels(folder) or ()
    parts = [part for part in parts_in(folder) if not part.alarms]
    places = [int(i) + 1 for i in channel_order(own, channels, folder)]
    newest = last_row(folder, parts, len(own))
    if newest is None:
        raise GruardError(f"{folder}: has no reading that is whole")
    rows = read_rows(folder, parts, len(own), report)
    recent = (row for row in rows if newest.time - LOOK_BACK <= row.time <= newest.time)
    at = [number for number, name in enumerate(channels) if name in counters]
    source = CountingSource(_KeptSource(recent, places), at, period)
    readings = iter(partial(source.read, None), None)
    times: list[float] = []
    values: list[Float32] = []
    nothing = np.full(len(places), np.nan, np.float32)
    for slot in slots_of(SampleClock(period, live=False, now=0.0), readings):
        last = times[-1] + period if times else newest.time
        times.append(last if slot.time is None else slot.time)
        values.append(nothing if slot.values is None else slot.values)
    return Past(np.array(times), np.array(values, np.float32), period)


def ahead_of(folder: Path, past: Past) -> float:
    """Return the seconds by which the host's clock is ahead of the times of the readings.

    0 where the times are dates; else the newest reading counts as written just now.
    """
    if past.times[-1] >= EARLIEST_DATE:
        return 0.0
    return float((folder / parts_in(folder)[-1].name).stat().st_mtime - past.times[-1])


class _KeptSource:
    """Kept rows as a source. places: of the channels among the cells of a row."""

    live = False

    def __init__(self, rows: Iterator[Row], places: Sequence[int]) -> None:
        self._rows, self._places = rows, places

    def read(self, timeout: float | None) -> Reading | None:
        """Return the next reading, None at the end."""
        row = next(self._rows, None)
        if row is None:
            return None
        cells = [row.cells[place] or "nan" for place in self._places]
        return Reading(row.time, np.array(cells, np.float64))

    def close(self) -> None:
        """Do nothing."""


def judge_past(detector: StepDetector, past: Past, accepted: Sequence[float]) -> JudgedPast:
    """Run `past` through `detector`. accepted: times at which the owner accepted a change."""
    alarm, changed = np.zeros(len(past.times), bool), np.zeros(len(past.times), bool)
    stops = {int(np.searchsorted(past.times, told, side="right")) for told in accepted}
    edges = sorted({0, len(past.times), *stops, *range(0, len(past.times), PIECE)})
    for start, stop in pairwise(edges):
        if start in stops:
            detector.accept(True)
        flags, on = _records(detector, past.values[start:stop])
        alarm[start:stop] = on
        changed[start:stop] = (flags & Flag.CHANGED) > 0
    return JudgedPast(alarm, changed)


def _records(
    detector: StepDetector, rows: Float32
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Return flags and alarms of `rows`."""
    if isinstance(detector, NativeDetector):
        found = detector.run(rows)
        return found["flags"], found["alarm"] > 0
    records = [detector.step(Sample(index, None, row)) for index, row in enumerate(rows)]
    flags = np.array([record.flags for record in records], np.uint16)
    return flags, np.array([record.alarm for record in records], bool)
