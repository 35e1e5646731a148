"""The one reader of whole CSV files: training and the device see the same numbers.

A file is a header line of column names and one row per sample; `layout` finds how it is written
and what its columns are. It is read in blocks of some thousand rows, column by column.
"""

import csv
import math
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.errors import GruardError, quoted
from edge_runtime.record import Float32
from edge_runtime.sources import csvcell
from edge_runtime.sources.counters import rates
from edge_runtime.sources.csvlayout import (
    DELIMITERS,
    CsvLayout,
    first_of,
    fitted,
    refuse_no_channels,
    split,
    start_rows,
)
from edge_runtime.sources.lines import text_lines

_BLOCK = 1 << 18
"""Characters of a block: bounds the memory, whatever the cells hold."""
_LONGEST_ROW = 5
"""Lines of a row; one that has more begins at a quotation mark too many, and ends nowhere."""
_ENOUGH = 100
"""Times that one meaning of the dates cannot read, and another can."""
_NUMBER = "a number; leave the cell empty for a missing value"
_TIME = "a time; use seconds, ISO 8601 or dd.mm.yyyy hh:mm:ss, in every row"
_LABEL = "a label; use 0 for normal and 1 for anomalous, in every row"
_WIDTH = ": expected {} columns as in the header, got {}; leave a cell empty for a missing value"


@dataclass(frozen=True)
class Table:
    """A whole file: times float64 [rows], values float32 [rows, channels], labels int8 [rows].

    times: seconds, epoch seconds where the file has dates; None without a time column.
    values: in the file's order of channels; NaN where missing, infinities kept.
    labels: 1 anomalous, 0 normal; None without a label column.
    A counter holds what it gained since the row before, see `counters.rates`. text: the columns
    without numbers that were left out, each with its first cell. units: of the columns, where the
    file has them. first_line: number of the line that holds row 0. dates: the meaning of the times
    as of `Columns`, empty where any would do.
    """

    path: Path
    channels: tuple[str, ...]
    times: npt.NDArray[np.float64] | None
    values: Float32
    labels: npt.NDArray[np.int8] | None
    text: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    first_line: int = 2
    dates: str = ""


def read_table(
    path: str | Path,
    said: Columns = NOTHING_SAID,
    channels: Sequence[str] | None = None,
    *,
    period: float | None = None,
    chosen: Sequence[str] = (),
    ignored: Sequence[str] = (),
) -> Table:
    """Read a whole file; with `channels` of a bundle only these, in this order.

    period: seconds between rows, for gaps in a counter; None for the median of the file. chosen:
    only these columns are channels; ignored: these are none, whatever they hold. Columns of text
    are left out. GruardError names every problem of the file, one a line: no rows, rows or
    cells that cannot be read, a missing channel.
    """
    faults = _Faults(path)
    with text_lines(path) as text:
        layout, stream, first_line = start_rows(text, path, said, channels or ())
        layout = layout.without(ignored)
        if kept := channels or chosen:
            layout = layout.keep(kept)
        refuse_no_channels(said.counters, layout)
        number = layout.dialect.number
        readings = [
            _Column(name, "d" if name in said.counters else "f", number, _NUMBER, faults)
            for name in layout.channels
        ]
        times = _Times(layout, faults, path)
        labels = _Column(layout.name(layout.label_at), "f", csvcell.label, _LABEL, faults)
        examples: dict[str, str] = {}
        for lines, rows in _blocks(stream, layout, first_line, faults):
            cells = list(zip(*rows, strict=True))
            for column, index in zip(readings, layout.channels_at, strict=True):
                column.add(lines, cells[index])
            if layout.time_at:
                times.add(lines, [layout.time_text(row) for row in rows])
            for index in layout.label_at:
                labels.add(lines, cells[index])
            for index in layout.text_at:
                _find_example(examples, layout.columns[index], cells[index])
    if not kept:
        readings = _without_text(readings, examples)
    found = times.settled()
    faults.raise_any()
    if not len(readings[0].numbers):
        raise GruardError(f"{path}: has a header but no rows; add one row per sample")
    moments = np.array(found) if layout.time_at else None
    return Table(
        Path(path),
        tuple(column.name for column in readings),
        moments,
        np.stack([_readings(column, moments, period) for column in readings], axis=1),
        np.array(labels.numbers, np.int8) if layout.label_at else None,
        examples,
        dict(zip(layout.columns, layout.dialect.units, strict=False)),
        first_line,
        times.dates,
    )


def _readings(
    column: "_Column", times: npt.NDArray[np.float64] | None, period: float | None
) -> Float32:
    """The readings of a channel; of a counter, which has float64 numbers, its rates."""
    if column.numbers.typecode == "f":
        return np.array(column.numbers)
    if period is None and times is not None and len(times) > 1:
        period = float(np.median(np.diff(times)))
    return rates(np.array(column.numbers), times, period)


class _Faults:
    """The problems of a file by kind: the first line of each, and how many rows have it."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._first: dict[str, tuple[int, str]] = {}
        self._rows: Counter[str] = Counter()

    def add(self, kind: str, line: int, what: str) -> None:
        self._rows[kind] += 1
        self._first.setdefault(kind, (line, what))

    @property
    def rows(self) -> int:
        """How many rows have a problem."""
        return self._rows.total()

    def take(self, others: "_Faults") -> None:
        """Have the problems of `others`, of other kinds, too."""
        self._first |= others._first
        self._rows += others._rows

    def forget(self, kind: str) -> None:
        del self._first[kind]

    def raise_any(self) -> None:
        """Raise all problems as one GruardError, if there are any."""
        problems = []
        for kind, (line, what) in sorted(self._first.items(), key=lambda item: item[1][0]):
            more = self._rows[kind] - 1
            also = f" (and {more} more)" if more else ""
            problems.append(f"{self._path} line {line}{what}{also}")
        if problems:
            raise GruardError(first_of(problems))


class _Column:
    """The numbers of a column of readings, times or labels, as far as they were read.

    code: "f" for float32 or "d" for float64. read: of a cell; raises ValueError or OverflowError
    where it is not `wanted`.
    """

    def __init__(
        self, name: str, code: str, read: Callable[[str], float], wanted: str, faults: _Faults
    ) -> None:
        self.name, self.numbers = name, cast("array[float]", array(code))
        self._read, self._wanted, self._faults = read, wanted, faults
        self._where = f", column '{name}'"
        self._bad_cell: str | None = None

    def add(self, lines: Sequence[int], cells: Sequence[str]) -> None:
        """Read the cells of the rows in `lines`."""
        try:
            self.numbers.extend(map(self._read, cells))
        except (ValueError, OverflowError):  # so the column is refused, or left out as text
            self.numbers.extend(map(self._read_or_complain, lines, cells))

    def is_text(self) -> bool:
        """Whether some cells are no number, and none is one."""
        return self._bad_cell is not None and all(map(math.isnan, self.numbers))

    def forget_fault(self) -> str:
        """Return the first cell that is no number, and complain of none any more."""
        self._faults.forget(self._where)
        return self._bad_cell or ""

    def _read_or_complain(self, line: int, cell: str) -> float:
        try:
            return self._read(cell)
        except (ValueError, OverflowError):
            cell = cell.strip()
            self._bad_cell = self._bad_cell or cell
            self._faults.add(
                self._where, line, f"{self._where}: {quoted(cell)} is not {self._wanted}"
            )
            return math.nan


class _Times:
    """The times of the rows: in each meaning that they may have, until the last row is read.

    dates: the meaning that was found, empty where any would do; see `settled`.
    """

    def __init__(self, layout: CsvLayout, faults: _Faults, path: str | Path) -> None:
        self.dates = ""
        self._faults = faults
        self._ways: dict[str, tuple[_Column, _Faults]] = {}
        for dates in layout.dates or ("",):
            own, read = _Faults(path), layout.reading(dates).seconds
            self._ways[dates] = _Column(layout.name(layout.time_at), "d", read, _TIME, own), own

    def add(self, lines: Sequence[int], texts: Sequence[str]) -> None:
        """Read the times of the rows in `lines`."""
        for column, _ in self._ways.values():
            column.add(lines, texts)
        faulty = [dates for dates, (_, own) in self._ways.items() if own.rows > _ENOUGH]
        if 0 < len(faulty) < len(self._ways):
            for dates in faulty:
                del self._ways[dates]

    def settled(self) -> "array[float]":
        """Return the times that can be read in most rows, and else take the least way."""
        costs = {dates: self._cost(dates) for dates in self._ways}
        best = min(costs, key=costs.__getitem__)
        alike = len(costs) > 1 and len({*costs.values()}) == 1
        self.dates = "" if alike else best
        column, own = self._ways[best]
        self._faults.take(own)
        return column.numbers

    def _cost(self, dates: str) -> tuple[int, float]:
        column, own = self._ways[dates]
        steps = np.abs(np.diff(np.array(column.numbers)))
        return own.rows, round(float(np.nansum(steps)))


def _blocks(
    stream: Iterator[str], layout: CsvLayout, first_line: int, faults: _Faults
) -> Iterator[tuple[list[int], list[Sequence[str]]]]:
    """Some rows at once: the numbers of their lines, and their cells, one for each column."""
    width, left, blank = len(layout.columns), _BLOCK, 0
    names = list(layout.columns)
    lines: list[int] = []
    rows: list[Sequence[str]] = []
    for line, text, cells in _rows(stream, layout.dialect.delimiter, first_line, faults):
        left -= len(text)
        if len(cells) < 2 and not "".join(cells).strip():
            blank = blank or line
            continue
        if blank:
            faults.add("blank", blank, ": is blank; remove the line")
            blank = 0
        row = cells if len(cells) == width else fitted(cells, width)
        if len(row) != width:
            faults.add(*_width_fault(line, row, layout, text))
            continue
        if row[0] == names[0] and [cell.strip() for cell in row] == names:
            faults.add("header", line, ": is the header again; remove the line")
            continue
        lines.append(line)
        rows.append(row)
        if left <= 0:
            yield lines, rows
            lines, rows, left = [], [], _BLOCK
    if rows:
        yield lines, rows


def _rows(
    stream: Iterator[str], delimiter: str, first_line: int, faults: _Faults
) -> Iterator[tuple[int, str, list[str]]]:
    """Each row: the number of its last line, that line, its cells. `faults`: those of quotes.

    After a quotation mark that nothing closes, reading goes on in the next line.
    """
    taken: list[str] = []  # lines since the last row
    again: deque[str] = deque()  # lines to read once more
    line = first_line - 1

    def next_lines() -> Iterator[str]:
        while (text := again.popleft() if again else next(stream, None)) is not None:
            taken.append(text)
            yield text
            if len(taken) > _LONGEST_ROW:
                return

    while True:
        try:
            for cells in csv.reader(next_lines(), delimiter=delimiter):
                if len(taken) > _LONGEST_ROW:
                    break
                line += len(taken)
                yield line, taken[-1], cells
                taken.clear()
            else:
                return
            faults.add("quote", line + 1, ": a quotation mark is not closed; remove or close it")
        except csv.Error as error:
            faults.add("CSV", line + 1, f": is not CSV ({error})")
        line += 1
        again.extendleft(reversed(taken[1:]))
        taken.clear()


def _width_fault(
    line: int, row: Sequence[str], layout: CsvLayout, text: str
) -> tuple[str, int, str]:
    """What `_Faults.add` takes about a row of another number of cells than the header."""
    own, width = layout.dialect.delimiter, len(layout.columns)
    others = [mark for mark in DELIMITERS if mark != own and len(split(text, mark)) == width]
    if not others:
        return "width", line, _WIDTH.format(width, len(row))
    what = f": has {others[0]!r} between its cells, the header has {own!r}; use one of them"
    return "delimiter", line, what


def _without_text(readings: list[_Column], examples: dict[str, str]) -> list[_Column]:
    """The columns of numbers, if there are any; those that turned out to be text are examples."""
    numbers = [column for column in readings if not column.is_text()]
    if not numbers:
        return readings
    texts = [column for column in readings if column not in numbers]
    examples.update((column.name, column.forget_fault()) for column in texts)
    return numbers


def _find_example(examples: dict[str, str], name: str, cells: Sequence[str]) -> None:
    if name not in examples and (cell := next(filter(None, map(str.strip, cells)), None)):
        examples[name] = cell
