"""Recordings: stretches of evenly spaced samples, read from CSV files."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import BRIDGE
from edge_runtime.columns import GAP_PERIODS, NOTHING_SAID, Columns
from edge_runtime.errors import GruardError, all_of
from edge_runtime.look.recording import expand
from edge_runtime.record import Float32
from edge_runtime.sources.csvfile import Table, read_table
from edge_runtime.sources.csvlayout import channel_order

PERIOD_TOLERANCE = 0.05
LONGEST_UNIT = 20  # characters; a longer text is not a unit
LONGEST_BRIDGED = BRIDGE + 1 + (GAP_PERIODS - 1)  # periods from one row to the next
MOST_REPEATED = 0.05  # of the steps in time; with more, the clock is coarser than the rows
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recording:
    """One stretch of samples without a gap in time.

    name: path of the file it came from. first_row: index of its first row in that file.
    times: float64 [rows] seconds or None. values: float32 [rows, channels] raw units, NaN where
    missing. labels: int8 [rows], 1 anomalous, or None. period: seconds between samples or None.
    """

    name: str
    channels: tuple[str, ...]
    times: Float64 | None
    values: Float32
    labels: npt.NDArray[np.int8] | None
    period: float | None
    first_row: int = 0

    @property
    def rows(self) -> int:
        """Number of samples."""
        return len(self.values)

    def cut(self, start: int, stop: int) -> "Recording":
        """Return the rows from `start` up to, not including, `stop`."""
        return replace(
            self,
            times=None if self.times is None else self.times[start:stop],
            values=self.values[start:stop],
            labels=None if self.labels is None else self.labels[start:stop],
            first_row=self.first_row + start,
        )


@dataclass(frozen=True)
class Dataset:
    """Recordings that agree in channels (names and order) and period; at least one.

    warnings: problems of the data, one sentence each. text: columns without numbers, which are no
    channels, each with one cell. units: of channels, where the files contain them. dates: the
    meaning of the times, as of `Columns`.
    """

    recordings: tuple[Recording, ...]
    warnings: tuple[str, ...] = ()
    text: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    dates: str = ""

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names in the order of every recording's columns."""
        return self.recordings[0].channels

    @property
    def period(self) -> float | None:
        """Seconds between samples, None if neither the files nor the caller give them."""
        return next((r.period for r in self.recordings if r.period is not None), None)

    @property
    def rows(self) -> int:
        """Number of samples in all recordings together."""
        return sum(recording.rows for recording in self.recordings)


def read_recordings(
    paths: Iterable[Path],
    period: float | None = None,
    said: Columns = NOTHING_SAID,
    channels: Sequence[str] | None = None,
    *,
    chosen: Sequence[str] = (),
    ignored: Sequence[str] = (),
) -> Dataset:
    """Read recordings, or those of a directory in the order of their names.

    A gap in time of more than 1.5 periods, and a time that repeats or goes back, split a file
    into several recordings. The period is the median of the time differences unless given, in
    seconds. The rest is as of `read_table`. Raises GruardError, with the problems of all
    files, for a file that cannot be read, times that do not go on, and files that disagree in
    channels or period.
    """
    files = [file for path in paths for file in expand(path)]
    if not files:
        raise GruardError("no recording was given; name at least one CSV file")
    tables = all_of(
        files,
        lambda file: read_table(
            file, said, channels, period=period, chosen=chosen, ignored=ignored
        ),
    )
    text = {name: cell for table in tables for name, cell in table.text.items()}
    wanted = [name for name in tables[0].channels if name not in text]
    recordings: list[Recording] = []
    warnings: list[str] = []
    for whole, table in zip(
        all_of(tables, lambda table: _recording(table, wanted, period)), tables, strict=True
    ):
        gaps, backward = _breaks(whole)
        warnings.extend(_gap_warnings(whole, gaps))
        if table.times is not None and whole.times is not table.times:
            warnings.append(
                f"{table.path}: its clock is coarser than its rows, which are taken as evenly "
                f"spaced, {whole.period:g} s apart"
            )
        if len(backward):
            warnings.append(
                f"{table.path}: the time repeats or goes back at {len(backward)} places, first in "
                f"line {backward[0] + table.first_line}; the recording is cut there"
            )
        edges = [0, *sorted([*gaps.tolist(), *backward.tolist()]), whole.rows]
        recordings.extend(whole.cut(a, b) for a, b in pairwise(edges))
    _check_periods(recordings)
    units = {
        name: unit
        for table in tables
        for name, unit in table.units.items()
        if len(unit) <= LONGEST_UNIT and unit.isprintable()
    }
    dates = {table.dates for table in tables if table.dates}
    return Dataset(
        tuple(recordings), tuple(warnings), text, units, dates.pop() if len(dates) == 1 else ""
    )


def bridged(dataset: Dataset) -> Dataset:
    """Join the recordings of a file where at most `BRIDGE` rows are missing between them.

    Each missing row becomes one without readings, as on the device. Rows are then no longer
    numbered as in the file.
    """
    joined: list[Recording] = []
    for recording in dataset.recordings:
        missing = _missing_between(joined[-1], recording) if joined else None
        if missing is None:
            joined.append(recording)
        else:
            joined[-1] = _joined(joined[-1], missing, recording)
    return replace(dataset, recordings=tuple(joined))


def _missing_between(before: Recording, after: Recording) -> int | None:
    """Return the number of missing rows; None if the recordings do not follow each other."""
    period = before.period
    if before.name != after.name or before.times is None or after.times is None or not period:
        return None
    step = (after.times[0] - before.times[-1]) / period
    return max(round(step) - 1, 0) if 0 < step <= LONGEST_BRIDGED else None


def _joined(before: Recording, missing: int, after: Recording) -> Recording:
    assert before.times is not None and after.times is not None  # what follows has times
    times = np.linspace(before.times[-1], after.times[0], missing + 2)[1:-1]
    holes = np.full((missing, len(before.channels)), np.nan, np.float32)
    labels = None
    if before.labels is not None and after.labels is not None:
        labels = np.concatenate([before.labels, np.zeros(missing, np.int8), after.labels])
    return replace(
        before,
        times=np.concatenate([before.times, times, after.times]),
        values=np.concatenate([before.values, holes, after.values]),
        labels=labels,
    )


def require_rows(dataset: Dataset, minimum: int) -> None:
    """Raise GruardError when all recordings together are shorter than `minimum` rows."""
    if dataset.rows < minimum:
        raise GruardError(
            f"{dataset.recordings[0].name}: {dataset.rows} rows are too few, at least {minimum} "
            "are needed; record the healthy machine for longer"
        )


def write_recording(path: Path, recording: Recording) -> None:
    """Write a CSV that `read_recordings` reads back with the same values.

    Columns: `time` if known, the channels, `label` if known. A missing reading is an empty cell.
    """
    header = [*_if(recording.times, "time"), *recording.channels, *_if(recording.labels, "label")]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in range(recording.rows):
            # A float32 prints as the shortest text that reads back as the same float32.
            cells = ["" if np.isnan(v) else str(v) for v in recording.values[row]]
            if recording.times is not None:
                cells.insert(0, repr(float(recording.times[row])))
            if recording.labels is not None:
                cells.append(str(int(recording.labels[row])))
            writer.writerow(cells)


def _if(column: npt.NDArray[np.generic] | None, name: str) -> list[str]:
    return [] if column is None else [name]


def _recording(table: Table, wanted: Sequence[str], period: float | None) -> Recording:
    order = channel_order(table.channels, wanted, table.path)
    times = None if table.times is None else _spread(table.times)
    return Recording(
        name=str(table.path),
        channels=tuple(wanted),
        times=times,
        values=table.values[:, order],
        labels=table.labels,
        period=_period(table, times, period),
    )


def _spread(times: Float64) -> Float64:
    """Return evenly spaced times where several rows in a row have the same time."""
    steps = np.diff(times)
    same = steps == 0
    if (steps < 0).any() or same.all() or same.mean() <= MOST_REPEATED:
        return times
    within = steps <= GAP_PERIODS * np.median(steps[~same])
    even: Float64 = np.where(within, steps[within].mean(), steps)
    return np.cumsum(np.concatenate([times[:1], even]))


def _period(table: Table, times: Float64 | None, given: float | None) -> float | None:
    if times is None or len(times) < 2:
        return given
    steps = np.diff(times)
    # Six digits, but none beyond the resolution of the times: epoch seconds are exact to a quarter
    # of a microsecond, so the median of steps of 0.1 s is 0.0999999.
    decimals = math.floor(-math.log10(4 * np.spacing(np.abs(times).max())))
    measured = round(float(f"{np.median(steps):.6g}"), decimals)
    if measured <= 0:
        line = np.flatnonzero(steps <= 0)[0] + table.first_line + 1  # of the step's second row
        raise GruardError(
            f"{table.path} line {line}: the time does not increase, nor in most rows; sort the "
            "rows by time, and write times as fine as the period"
        )
    if given is not None and not _agree(measured, given):
        raise GruardError(
            f"{table.path}: the times are {measured:g} s apart but the period is given as "
            f"{given:g} s; correct one of them"
        )
    return measured if given is None else given


def _agree(period: float, other: float) -> bool:
    return abs(period - other) <= PERIOD_TOLERANCE * other


def _breaks(recording: Recording) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows before which time is missing, and those whose time repeats or goes back."""
    if recording.times is None or recording.period is None:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    steps = np.diff(recording.times)
    gaps = np.flatnonzero(steps > GAP_PERIODS * recording.period) + 1
    return gaps, np.flatnonzero(steps <= 0) + 1


def _gap_warnings(recording: Recording, gaps: npt.NDArray[np.intp]) -> list[str]:
    if recording.times is None or recording.period is None or not len(gaps):
        return []
    steps = np.diff(recording.times)[gaps - 1]
    long = int(np.count_nonzero(steps > LONGEST_BRIDGED * recording.period))
    counted = {
        f"gaps in time of up to {BRIDGE} rows count as rows without readings": len(gaps) - long,
        "gaps in time split the recording": long,
    }
    return [f"{recording.name}: {n} {what}" for what, n in counted.items() if n]


def _check_periods(recordings: Sequence[Recording]) -> None:
    known = [(recording.name, recording.period) for recording in recordings if recording.period]
    for name, period in known:
        if not _agree(period, known[0][1]):
            raise GruardError(
                f"{name}: the period is {period:g} s but {known[0][0]} has {known[0][1]:g} s; "
                "resample one of them, or train on one period only"
            )
