"""A whole recording as it lies in its files, and which of its columns are no channels."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.columns import GAP_PERIODS, NOTHING_SAID, Columns
from edge_runtime.errors import GruardError, all_of
from edge_runtime.record import Float32
from edge_runtime.sources.csvfile import read_table
from edge_runtime.sources.csvlayout import channel_order

PATTERNS = ("*.csv", "*.csv.gz", "*.parquet")
"""Names of the recordings in a folder."""
FEWEST_RISES = 20
"""A column that moves so often, and never back, is a counter; a switch moves once or twice."""


@dataclass(frozen=True)
class WholeRecording:
    """All rows of one or more files, one after the other.

    files: with the row that each begins at. values: [rows, columns], raw. times: [rows] seconds, or
    None unless all files have them. anomalous: [rows], what a label column says; all False without.
    labelled: [rows], whether there is one. period: the median of the time differences, None without
    times. text: columns without numbers, each with a cell. units: of columns.
    """

    files: Mapping[Path, int]
    columns: tuple[str, ...]
    values: Float32
    times: npt.NDArray[np.float64] | None
    anomalous: npt.NDArray[np.bool_]
    labelled: npt.NDArray[np.bool_]
    period: float | None
    text: Mapping[str, str]
    units: Mapping[str, str]

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return len(self.values)

    def steps(self) -> npt.NDArray[np.float64]:
        """Seconds from each row to the next of its file; NaN over the end of a file."""
        if self.times is None:
            return np.zeros(0)
        steps = np.diff(self.times)
        steps[[first - 1 for first in self.files.values() if first]] = np.nan
        return steps

    def starts(self) -> list[int]:
        """Rows before which time is missing or goes back, or another file ends."""
        steps = self.steps()
        jumps = ~((steps > 0) & (steps <= GAP_PERIODS * (self.period or np.inf)))
        return sorted({*(np.flatnonzero(jumps) + 1).tolist(), *self.files.values()} - {0})


def read_whole(
    paths: Iterable[Path],
    period: float | None = None,
    said: Columns = NOTHING_SAID,
    chosen: Sequence[str] = (),
    ignored: Sequence[str] = (),
) -> WholeRecording:
    """Read CSV files, or those of folders; period: seconds, None for the median of the times.

    said, chosen, ignored: see `read_table`. Raises GruardError for what cannot be read or joined.
    """
    files = [file for path in paths for file in expand(path)]
    if len(set(files)) < len(files):
        raise GruardError("one file is named twice; name each file once")
    tables = all_of(
        files,
        lambda file: read_table(file, said, period=period, chosen=chosen, ignored=ignored),
    )
    columns = tables[0].channels
    lengths = [len(table.values) for table in tables]
    times = [table.times for table in tables if table.times is not None]
    steps = np.concatenate([np.diff(each) for each in times]) if times else np.zeros(0)
    timed = len(times) == len(tables)
    period = float(np.median(steps)) if timed and len(steps) else period or 0.0
    return WholeRecording(
        files=dict(zip(files, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True)),
        columns=columns,
        values=np.concatenate(
            [t.values[:, channel_order(t.channels, columns, t.path)] for t in tables]
        ),
        times=np.concatenate(times) if timed else None,
        anomalous=np.concatenate(
            [
                np.zeros(n, bool) if t.labels is None else t.labels > 0
                for n, t in zip(lengths, tables, strict=True)
            ]
        ),
        labelled=np.repeat([t.labels is not None for t in tables], lengths),
        period=period if period > 0 else None,
        text={name: cell for table in tables for name, cell in table.text.items()},
        units={name: unit for table in tables for name, unit in table.units.items()},
    )


def expand(path: Path) -> list[Path]:
    """The file itself, or the recordings of a directory in the order of their names."""
    if not path.is_dir():
        return [path]
    found = sorted(file for pattern in PATTERNS for file in path.glob(pattern))
    if not found:
        raise GruardError(f"{path}{os.sep}: holds no {' or '.join(PATTERNS)}; name another folder")
    return found


def column_kind(pieces: Sequence[Float32]) -> str | None:
    """What a column, in pieces without a hole in time, is instead of a channel; None for one."""
    known = [piece[np.isfinite(piece)] for piece in pieces]
    return next((kind for kind, holds in KINDS.items() if holds(known)), None)


def _empty(pieces: Sequence[Float32]) -> bool:
    return not any(map(len, pieces))


def _constant(pieces: Sequence[Float32]) -> bool:
    readings = np.concatenate(pieces)
    return bool(readings.min() == readings.max())


def _counting(pieces: Sequence[Float32]) -> bool:
    steps = np.concatenate([np.diff(piece) for piece in pieces])
    one_way = bool((steps >= 0).all() or (steps <= 0).all())
    return one_way and np.count_nonzero(steps) >= FEWEST_RISES


KINDS: Mapping[str, Callable[[Sequence[Float32]], bool]] = {
    "empty": _empty,
    "constant": _constant,
    "counting": _counting,
}
"""What a column may be instead of a channel, in the order in which it is asked."""
