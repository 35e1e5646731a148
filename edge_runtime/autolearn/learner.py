"""What the child of `gruard run --learn` does: readings on the disk become a bundle in the store.

    python -m edge_runtime.autolearn.learner --store DIR --readings DIR --rows N --period S

The readings go through the sample clock of a run first. So a lost reading is a row of missing
readings, in which no forecast breaks off, as it is when the device runs.

Prints one JSON object. Exit code: 0 installed, 3 the recording is not fit to learn from, 1 failed.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from edge_runtime.autolearn.child import FAILED, KEPT_OUT, OUT_OF_MEMORY, PROMOTED
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.errors import GruardError, described
from edge_runtime.learning.learn import Learned, learn, linear_run, write_learned
from edge_runtime.learning.request import Data, Request, read_data
from edge_runtime.learning.settings import find_settings
from edge_runtime.learning.thinning import MOST_ROWS
from edge_runtime.look.facts import Look, look_at
from edge_runtime.look.recording import read_whole
from edge_runtime.readings.parts import Row, count_rows, header, parts_in, read_channels, read_rows
from edge_runtime.sources.sample_clock import SampleClock, TimeSlot, slots_of
from edge_runtime.sources.source import Reading
from edge_runtime.updates.slots import label
from edge_runtime.updates.store import Store

MOST_STRANGE = 0.1
"""Share of the rows that learning may leave out because they are unlike the rest."""
OWN_BYTES, BYTES_FITTED, BYTES_SCORED = 170_000_000, 350, 60
"""Address space of the interpreter with numpy, of a reading that is fitted, and of any other."""
PIECE = 2000
"""Rows in a row that are used where the memory is not enough for all."""
FALSE_ALARMS_PER_DAY = 1.0
FOLDER = "learning"
"""Below the store; holds what is being made and is emptied first."""
_SEED = 0
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class LearnerOptions:
    """store, readings: folders. rows: the newest that are used. period: seconds between samples.

    last_try: learn from what is there, however strange it looks.
    """

    store: Path
    readings: Path
    rows: int
    period: float
    last_try: bool


class NotFitError(GruardError):
    """The recording is not fit to learn from; the message says why."""


def learn_from_readings(options: LearnerOptions) -> str:
    """Learn from the recorded readings, install the bundle, and return its name and version.

    Raises NotFitError for a recording that is not fit, and other GruardErrors.
    """
    store = Store(options.store, log=_say)
    place = options.store / FOLDER
    shutil.rmtree(place, ignore_errors=True)  # of one that was killed
    place.mkdir(parents=True)
    try:
        learned = _learned(options, store, place)
        if not learned.passed:
            raise GruardError("this machine computes wrong steps; check its memory")
        bundle = read_bundle(write_learned(learned, place, force=False))
        store.install(bundle)
        return label(bundle)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _learned(options: LearnerOptions, store: Store, place: Path) -> Learned:
    name = bundle_name(options.store)
    versions = [slot.bundle.manifest.version for slot in store.slots if slot.bundle]
    version = max([store.lowest(name), *versions, 0]) + 1
    data = _fit_data(options, place)
    return learn(linear_run(data, name, _SEED, _say), version, FALSE_ALARMS_PER_DAY, _say)


def _fit_data(options: LearnerOptions, place: Path) -> Data:
    try:
        recording = place / "readings.csv"
        write_samples(options, recording)
        if is_unlike_itself(look_at(read_whole([recording])), options.last_try):
            write_samples(options, recording, healthy=True)
        settings = find_settings(options.readings)
        return read_data(Request((recording,), settings=settings, period=options.period))
    except NotFitError:
        raise
    except GruardError as error:  # of the recording, which is all that was read
        raise NotFitError(str(error).splitlines()[0]) from None


def is_unlike_itself(look: Look, last_try: bool) -> bool:
    """Return whether a large part is unlike the rest. Raises NotFitError where nothing is learned.

    last_try: it never raises. A large part that is still unlike the rest belongs to the machine.
    """
    strange = sum(found.stop - found.start for found in look.findings) / look.sampling.rows
    others = look.warnings[len(look.findings) :]
    if strange > MOST_STRANGE and not last_try:
        where = look.findings[0].sentence().partition(". ")[0]
        raise NotFitError(f"{strange:.0%} of the rows are unlike the rest: {where}")
    if others and not last_try:
        raise NotFitError(others[0])
    return strange > MOST_STRANGE


def write_samples(options: LearnerOptions, file: Path, healthy: bool = False) -> None:
    """Write the newest readings to a CSV `file`, one row for each slot of the sample clock.

    healthy: label all rows as such, so that learning leaves out none of them. What is left of older
    parts, the time around alarms, is not used.
    """
    channels = read_channels(options.readings) or ()
    rows = _rows(options, len(channels))
    label_column = (",label", ",0") if healthy else ("", "")
    with file.open("w", encoding="utf-8", newline="") as stream:
        head = header(channels).replace("time,monotonic,", "time,", 1).rstrip("\n")
        stream.write(f"{head}{label_column[0]}\n")
        for line in samples(rows, options.period, len(channels)):
            stream.write(f"{line}{label_column[1]}\n")


def _rows(options: LearnerOptions, width: int) -> Iterator[Row]:
    """Yield the newest rows, or as many of them as the memory is enough for."""
    parts = [part for part in parts_in(options.readings) if not part.alarms]
    there = count_rows(options.readings, parts)
    first = max(there - options.rows, 0)
    most = affordable_rows(width, resource.getrlimit(resource.RLIMIT_AS)[0])
    if there - first > most:
        _say(f"memory for {most:,} of {there - first:,} rows; pieces of the whole time are used")
    rows = islice(read_rows(options.readings, parts, width, _say), first, None)
    return (row for index, row in enumerate(rows) if is_used(index, there - first, most))


def affordable_rows(channels: int, memory: int) -> int:
    """Return how many rows can be learned from with so many bytes of address space."""
    if memory == resource.RLIM_INFINITY:
        return sys.maxsize
    channels, left = max(channels, 1), memory - OWN_BYTES
    fitted = min(left // (BYTES_FITTED * channels), MOST_ROWS)
    others = (left - fitted * BYTES_FITTED * channels) // (BYTES_SCORED * channels)
    return max(fitted + (others if fitted == MOST_ROWS else 0), PIECE)


def is_used(index: int, rows: int, most: int) -> bool:
    """Return whether row `index` is in one of the pieces that are used: all, or `most` of `rows`.

    The pieces lie evenly over the whole time, so that every state of the machine is among them.
    """
    piece = index // PIECE
    return rows <= most or (piece + 1) * most // rows > piece * most // rows


def samples(rows: Iterable[Row], period: float, width: int) -> Iterator[str]:
    """Yield a CSV line for each slot, without its end; a hole of many slots stays a hole.

    Times are nominal, so that no jitter passes for a hole.
    """
    readings = (
        Reading.of(row.time, [float(cell or "nan") for cell in row.cells[1:]]) for row in rows
    )
    clock = SampleClock(period, live=False, now=0.0)
    yield from _Grid(period).lines(slots_of(clock, readings), width)


class _Grid:
    """Nominal times: whole periods after the first slot, or after the last long hole."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._start: float | None = None
        self._slots = 0

    def lines(self, slots: Iterable[TimeSlot], width: int) -> Iterator[str]:
        """Yield the lines of `slots` with so many channels; none for a long hole."""
        for slot in slots:
            if slot.slots > 1:
                self._start, self._slots = self._next() + slot.slots * self._period, 0
                continue
            if self._start is None:
                self._start = slot.time or 0.0
            values = slot.values if slot.values is not None else np.full(width, np.nan)
            cells = ("" if np.isnan(value) else str(value) for value in values)
            yield f"{self._next()!r},{','.join(cells)}"
            self._slots += 1

    def _next(self) -> float:
        return (self._start or 0.0) + self._slots * self._period


def bundle_name(store: Path) -> str:
    """Return the name of what is learned here: that of the store's folder."""
    return _NO_NAME.sub("-", store.resolve().name).strip("-") or "machine"


def _say(sentence: str) -> None:
    print(f"… {sentence}", file=sys.stderr)


def main(words: list[str]) -> int:
    """Learn once; return the exit code."""
    parser = argparse.ArgumentParser(prog="edge_runtime.autolearn.learner", description=__doc__)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--readings", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--period", type=float, required=True)
    parser.add_argument("--last-try", action="store_true")
    options = LearnerOptions(**vars(parser.parse_args(words)))
    try:
        bundle = learn_from_readings(options)
    except NotFitError as error:
        print(json.dumps({"promoted": False, "reason": str(error)}))
        return KEPT_OUT
    except MemoryError:
        print(OUT_OF_MEMORY, file=sys.stderr)
        return FAILED
    except Exception as error:
        print(described(error).replace("\n", " "), file=sys.stderr)
        return FAILED
    print(json.dumps({"promoted": True, "bundle": bundle}))
    return PROMOTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
