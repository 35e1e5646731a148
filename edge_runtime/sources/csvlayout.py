"""How a CSV file is written and what its columns are, so that nobody has to say it.

Found from the header and the first rows. Recordings and the device's sources use the same
functions, and so see the same columns.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.errors import GruardError
from edge_runtime.sources import csvcell

TIME_NAMES = frozenset({"time", "timestamp", "t", "date", "datetime"})
LABEL_NAMES = frozenset({"label", "anomaly", "is_anomaly"})
DELIMITERS = ",;\t"
LOOKED_AT = 20
"""Rows below the header that are looked at."""
MOST_NAMED = 20
"""Columns or problems that an error names."""
_MOST_COMMENTS = 1000
"""Lines above the header."""
_MOST_ABOVE = 50
"""The same of lines that are no comments."""
_LONGEST = 1 << 15
"""Characters of a row that is looked at, far more than 256 channels need."""


@dataclass(frozen=True)
class Dialect:
    """How the rows are written.

    decimal_comma: 1,5 is one and a half; None if no row tells. time_at: columns that hold times,
    whatever their names: none, one, or one of dates and one of times of day. epochs_at: columns of
    epoch times. text: indices of the columns without any number. units: the cells of a line of
    units between header and rows, if there is one.
    """

    delimiter: str = ","
    decimal_comma: bool | None = False
    time_at: tuple[int, ...] = ()
    epochs_at: tuple[int, ...] = ()
    text: frozenset[int] = frozenset()
    units: tuple[str, ...] = ()

    @property
    def number(self) -> Callable[[str], float]:
        """What reads a cell as a number; see `csvcell.number`."""
        if self.decimal_comma is None:
            return csvcell.either_number
        return csvcell.comma_number if self.decimal_comma else csvcell.number


@dataclass(frozen=True)
class CsvLayout:
    """The columns of a file: names, and the positions of time, label and channels.

    time_at: as of `Dialect`. label_at: none or one. text_at: without numbers, and so no channels.
    dates: the meanings that the times may have, as of `Columns`, the likeliest first; empty if they
    have only one.
    """

    path: str
    dialect: Dialect
    columns: tuple[str, ...]
    time_at: tuple[int, ...]
    label_at: tuple[int, ...]
    channels_at: tuple[int, ...]
    text_at: tuple[int, ...]
    dates: tuple[str, ...] = ()

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels."""
        return tuple(self.columns[i] for i in self.channels_at)

    def name(self, at: tuple[int, ...]) -> str:
        """The name of the columns there, which are read as one."""
        return " + ".join(self.columns[i] for i in at)

    def keep(self, channels: Sequence[str]) -> "CsvLayout":
        """The same with only `channels`, in this order. Raises GruardError if one is missing."""
        special = {*self.time_at, *self.label_at}
        sensors = [i for i in range(len(self.columns)) if i not in special]
        order = channel_order([self.columns[i] for i in sensors], channels, self.path)
        chosen = tuple(sensors[i] for i in order)
        text = tuple(sorted({*self.text_at}.difference(chosen)))
        return replace(self, channels_at=chosen, text_at=text)

    def without(self, names: Sequence[str]) -> "CsvLayout":
        """The same without these columns. Raises GruardError if one is missing or none is left."""
        for name in names:
            _find(self.columns, name, self.path)
        left = tuple(i for i in self.channels_at if self.columns[i] not in names)
        if not left:
            raise GruardError(f"{self.path}: no channel is left; ignore fewer columns")
        text = tuple(i for i in self.text_at if self.columns[i] not in names)
        return replace(self, channels_at=left, text_at=text)

    def cells(self, line: str) -> Sequence[str]:
        """The cells of a line, one for each column unless the line is broken."""
        return fitted(split(line, self.dialect.delimiter), len(self.columns))

    def time_text(self, cells: Sequence[str]) -> str:
        """The time of a row as it is written: a date and a time of day are joined."""
        return " ".join([cells[i].strip() for i in self.time_at])

    def seconds(self, text: str) -> float:
        """The time in a `time_text`; see `csvcell.seconds`."""
        return csvcell.seconds(text, self.dialect.number, self.dates[0] if self.dates else "")

    def reading(self, dates: str) -> "CsvLayout":
        """The same whose times have this meaning, one of `self.dates`."""
        return replace(self, dates=(dates,))

    def explains(self, line: str) -> bool:
        """Whether a line reads as expected, and tells of no column of times that is unknown."""
        cells = self.cells(line)
        if len(cells) != len(self.columns):
            return False
        if not all(csvcell.reads(self.dialect.number, cells[i]) for i in self.channels_at):
            return False
        text, stripped = self.time_text(cells), [*map(str.strip, cells)]
        if not self.time_at:
            return not any(csvcell.is_date(cell) or csvcell.is_epoch(cell) for cell in stripped)
        days_only = csvcell.is_day(text) and any(map(csvcell.is_time_of_day, stripped))
        return csvcell.reads(self.seconds, text) and not days_only


def read_layout(
    header: str,
    path: str | Path,
    rows: Sequence[str] = (),
    said: Columns = NOTHING_SAID,
    wanted: Sequence[str] = (),
    line: int = 1,
) -> CsvLayout:
    """The layout of a file with this header line and these first lines below it, or none yet.

    The time is in the first column if its name says so (`TIME_NAMES`), or where the cells say so;
    the label column is known by its name anywhere (`LABEL_NAMES`). Names count regardless of case,
    and not where the column is `said` explicitly. wanted: the channels of a bundle, if there is
    one: they are no time column, whatever they hold; the time may then be in any other column, and
    what was said may be of another source. line: number of the header. Raises GruardError for a
    header that cannot be used.
    """
    if not header:
        raise GruardError(f"{path}: is empty; the first line must name the columns")
    where = f"{path} line {line}"
    try:
        dialect = find_dialect(header, rows)
        columns = split_header(header, dialect.delimiter)
    except csv.Error as error:
        raise GruardError(f"{where}: is not CSV ({error}); repair the header") from None
    if len(columns) > 1 and not columns[0] and any(columns):
        columns[0] = "index"  # as pandas leaves it
    if faults := _header_faults(columns):
        raise GruardError(first_of([f"{where}: {fault}" for fault in faults]))
    if wanted:
        said = replace(
            said,
            time=said.time if said.time in columns else None,
            label=said.label if said.label in columns else None,
        )
    label_at = _label_at(columns, said.label, where)
    time_at = _time_at(columns, said.time, dialect, wanted, where)
    if set(label_at) & set(time_at):
        raise GruardError(
            f"{where}: column '{columns[label_at[0]]}' cannot hold both the time and the label; "
            "name two different columns"
        )
    sensors = tuple(i for i in range(len(columns)) if i not in (*time_at, *label_at))
    if not sensors:
        raise GruardError(
            f"{where}: no channel is left beside the time and label columns; add a sensor's column"
        )
    numbers = tuple(i for i in sensors if i not in dialect.text)
    text = tuple(i for i in sensors if i in dialect.text) if numbers else ()
    names = tuple(columns)
    layout = CsvLayout(str(path), dialect, names, time_at, label_at, numbers or sensors, text)
    return replace(layout, dates=_dates(layout, rows, said.dates))


def start_rows(
    lines: Iterable[str],
    path: str | Path,
    said: Columns = NOTHING_SAID,
    wanted: Sequence[str] = (),
) -> tuple[CsvLayout, Iterator[str], int]:
    """Read the header and the first rows.

    Returns the layout, the lines of all rows, and the number of the first of them.
    """
    stream = iter(lines)
    header, rows, number = find_header(lambda: next(stream, None), whole_file=True)
    rows = [*rows, *islice(stream, max(LOOKED_AT - len(rows), 0))]
    layout = read_layout(header, path, rows, said, wanted, number)
    has_units = bool(layout.dialect.units)
    return layout, chain(rows[has_units:], stream), number + 1 + has_units


def channel_order(
    available: Sequence[str], wanted: Sequence[str], path: str | Path
) -> npt.NDArray[np.intp]:
    """Indices into `available` that give the channels in the `wanted` order.

    Order never matters and extra channels are left out; a missing channel raises GruardError.
    """
    places = {name: place for place, name in enumerate(available)}
    missing = [name for name in wanted if name not in places]
    if missing:
        known = set(wanted)
        extra = [name for name in available if name not in known]
        hint = f"; unexpected: {_listed(extra)}" if extra else ""
        raise GruardError(
            f"{path}: missing channels: {_listed(missing)}{hint}; "
            "rename or add the columns so that every wanted channel is there"
        )
    return np.array([places[name] for name in wanted], dtype=np.intp)


def refuse_no_channels(counters: Sequence[str], layout: CsvLayout) -> None:
    """Raise GruardError for a counter that is no channel of the file."""
    for name in counters:
        if name not in layout.channels:
            raise GruardError(
                f"{layout.path}: there is no channel '{name}' to count with; the channels are "
                f"{_listed(layout.channels)}"
            )


def first_of(problems: Sequence[str]) -> str:
    """The first `MOST_NAMED` problems, one a line, and how many more there are."""
    more = len(problems) - MOST_NAMED
    rest = [f"and {more} more problems"] if more > 0 else []
    return "\n".join([*problems[:MOST_NAMED], *rest])


def _find(columns: Sequence[str], name: str, where: str) -> int:
    if name not in columns:
        raise GruardError(
            f"{where}: there is no column '{name}'; the columns are {_listed(columns)}"
        )
    return columns.index(name)


def _time_at(
    columns: Sequence[str],
    named: str | None,
    dialect: Dialect,
    wanted: Sequence[str],
    where: str,
) -> tuple[int, ...]:
    found = dialect.time_at
    if named or columns[0].lower() in TIME_NAMES:
        index = _find(columns, named, where) if named else 0
        return found if index in found else (index,)
    taken = frozenset(wanted)
    if found and not any(columns[i] in taken for i in found):
        return found
    others = [i for i, name in enumerate(columns) if taken and name not in taken]
    by_name = [i for i in others if columns[i].lower() in TIME_NAMES]
    return (*by_name, *(i for i in others if i in dialect.epochs_at))[:1]


def _dates(layout: CsvLayout, rows: Sequence[str], said: str) -> tuple[str, ...]:
    """What the times in the first rows may mean; `said` if that is possible."""
    if not layout.time_at:
        return ()
    table = [layout.cells(row) for row in rows[bool(layout.dialect.units) :]]
    texts = [layout.time_text(cells) for cells in table if len(cells) == len(layout.columns)]
    found = csvcell.date_orders(texts)
    if said and (said in found or not found):
        return (said,)
    return found or ((csvcell.SERIAL,) if _mostly(csvcell.is_serial, texts) else ())


def _label_at(columns: Sequence[str], named: str | None, where: str) -> tuple[int, ...]:
    if named:
        return (_find(columns, named, where),)
    found = [i for i, name in enumerate(columns) if name.lower() in LABEL_NAMES]
    if len(found) > 1:
        names = _listed([columns[i] for i in found])
        raise GruardError(f"{where}: {names} all look like the label; name the label column")
    return tuple(found)


def _header_faults(columns: list[str]) -> list[str]:
    if not any(columns):
        return ["is blank; the first line must name the columns"]
    if all(csvcell.is_number(column.replace(",", ".")) for column in columns):
        return ["holds numbers; the first line must name the columns"]
    nameless = [i for i, column in enumerate(columns, 1) if not column]
    twice = sorted(name for name, count in Counter(columns).items() if name and count > 1)
    faults = [f"column {i} has no name; name it" for i in nameless]
    if twice:
        faults.append(f"more than one column is named {_listed(twice)}; rename all but one")
    return faults


def _listed(names: Sequence[str]) -> str:
    """Names for an error, and how many more there are when they are many."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def find_dialect(header: str, rows: Sequence[str]) -> Dialect:
    """The dialect of a file with this header line and these first lines below it, or none yet.

    Raises csv.Error for a header that is not CSV.
    """
    rows = [row for row in rows if row.strip(" \r\n") and len(row) <= _LONGEST]
    delimiter = _delimiter(header, rows)
    table = [[cell.strip() for cell in split(row, delimiter)] for row in rows]
    comma = _decimal_comma(delimiter, [cell for row in table for cell in row])
    number = Dialect(decimal_comma=comma).number
    width = len(split_header(header, delimiter))
    units = _units(table, width, number)
    table = table[bool(units) :]
    columns = _columns(table, width)
    epochs_at = tuple(i for i, cells in enumerate(columns) if _are_epochs(cells))
    time_at = _found_times(table, columns) or tuple(i for i in epochs_at if i == 0)
    text = [i for i, cells in enumerate(columns) if _is_text(cells, number)]
    text_at = frozenset(text).difference(time_at)
    return Dialect(delimiter, comma, time_at, epochs_at, text_at, units)


def find_header(
    next_line: Callable[[], str | None], whole_file: bool = False
) -> tuple[str, list[str], int]:
    """Read lines up to the header; comments and Excel's `sep=` above it are left out.

    A header may be a comment itself, as numpy writes it. next_line: None after the last line.
    whole_file: all lines are there, so those below tell a header from what a logger writes above.
    Returns the header, empty where there is none, the rows that were read after it, and the number
    of the header's line.
    """
    comment, number = "", 1
    while (line := next_line()) is not None and number <= _MOST_COMMENTS:
        if _is_comment(line):
            comment = line
        elif line.strip() or not comment:
            break
        number += 1
    header = comment.lstrip("# \t")
    if line is not None and header.strip() and _is_row(line, header):
        return header, [line], number - 1
    if line is None or not whole_file:
        return line or "", [], number

    def take(count: int) -> list[str]:
        return [each for each in (next_line() for _ in range(count)) if each is not None]

    lines = [line, *take(LOOKED_AT)]
    if not _heads(lines, 0):
        lines += take(_MOST_ABOVE)
    at = next((i for i in range(len(lines)) if _heads(lines, i)), 0)
    return lines[at], lines[at + 1 :], number + at


def _heads(lines: Sequence[str], at: int) -> bool:
    """Whether line `at` has a name, and no value, for each cell of most lines below it.

    No line above it has as many cells: that would be a row.
    """
    below = lines[at + 1 : at + 1 + LOOKED_AT]
    for mark in DELIMITERS:
        names = split(lines[at].rstrip(f"\r\n{mark}"), mark)
        width = len(names)
        rows = [fitted(split(row, mark), width) for row in below]
        rows = [row for row in rows if len(row) == width and any(map(_is_shown, row))]
        if width > 1 and 2 * len(rows) > len(below) and not any(map(_is_shown, names)):
            return all(len(fitted(split(each, mark), width)) != width for each in lines[:at])
    return False


def _is_shown(cell: str) -> bool:
    """Whether a cell is a number or a time that is not missing."""
    return cell.strip().lower() not in csvcell.MISSING and _is_value(
        cell.strip(), csvcell.either_number
    )


def _is_comment(line: str) -> bool:
    return line.startswith("#") or line.lower().startswith("sep=")


def _is_row(line: str, header: str) -> bool:
    """Whether `line` is a row of numbers and times below the header `header`."""
    try:
        dialect = find_dialect(header, [line])
    except csv.Error:
        return False
    cells, names = split(line, dialect.delimiter), split_header(header, dialect.delimiter)
    return len(cells) == len(names) and all(_is_value(c.strip(), dialect.number) for c in cells)


def _is_value(cell: str, number: Callable[[str], float]) -> bool:
    return csvcell.reads(lambda text: csvcell.seconds(text, number), cell)


def _units(
    table: Sequence[Sequence[str]], width: int, number: Callable[[str], float]
) -> tuple[str, ...]:
    """The first row, if it has no value where those below it have some; else nothing."""
    if len(table) < 2 or any(_is_value(cell, number) for cell in table[0]):
        return ()
    columns = _columns(table[1:], width)
    units = [*table[0], *[""] * width][:width]
    named = [i for i, unit in enumerate(units) if unit.lower() not in csvcell.MISSING]
    if any(any(_is_value(cell, number) for cell in columns[i]) for i in named):
        return tuple(units)
    return ()


def split(line: str, delimiter: str) -> list[str]:
    """The cells of one line; none when it is not CSV."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def split_header(line: str, delimiter: str) -> list[str]:
    """The names in a header line, without the empty one after a delimiter at its end."""
    names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    return names[:-1] if any(names) and not names[-1] else names


def fitted(fields: Sequence[str], width: int) -> Sequence[str]:
    """The cells of a row without the empty one after a delimiter at its end."""
    return fields[:width] if len(fields) == width + 1 and not fields[width].strip() else fields


def _delimiter(header: str, rows: Sequence[str]) -> str:
    """The one that cuts header and most rows into equally many cells, or the header into most."""
    names = {mark: len(split_header(header, mark)) for mark in DELIMITERS}

    def fits(mark: str) -> bool:
        width = names[mark]
        fit = [row for row in rows if len(fitted(split(row, mark), width)) == width]
        return width > 1 and (2 * len(fit) > len(rows) or not rows)

    return max([mark for mark in DELIMITERS if fits(mark)] or DELIMITERS, key=names.__getitem__)


def _decimal_comma(delimiter: str, cells: Sequence[str]) -> bool | None:
    """Whether numbers have a decimal comma; None where no cell tells and a comma would.

    `;` is the delimiter of those who write it. Elsewhere 1,234 may also be a thousand.
    """
    commas = [cell for cell in cells if "," in cell and csvcell.reads(csvcell.comma_number, cell)]
    points = any("." in cell and csvcell.is_number(cell) for cell in cells)
    if not commas:
        return False if points or delimiter == "," else None
    if delimiter == ";":
        return True
    if points:
        return False
    return any(len(cell.partition(",")[2]) != 3 or cell.startswith("0,") for cell in commas)


def _columns(table: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    return [[row[i] for row in table if i < len(row) and row[i]] for i in range(width)]


def _found_times(
    table: Sequence[Sequence[str]], columns: Sequence[Sequence[str]]
) -> tuple[int, ...]:
    """The first column if it holds dates, or else one whose dates go on.

    Where the dates are days, a column of times of day belongs to them. A few cells may be broken:
    whoever reads the rows names them.
    """
    clocks = [i for i, cells in enumerate(columns) if _mostly(csvcell.is_time_of_day, cells)]
    for index, cells in enumerate(columns):
        time_at: tuple[int, ...] = (index,)
        if clocks and _mostly(csvcell.is_day, cells):
            time_at = (index, clocks[0])
            rows = [row for row in table if max(time_at) < len(row)]
            cells = [f"{row[index]} {row[clocks[0]]}" for row in rows]
        dates = [cell for cell in cells if csvcell.is_date(cell)]
        if dates and 2 * len(dates) >= len(cells) and (0 in time_at or _increases(dates)):
            return time_at
    return ()


def _are_epochs(cells: Sequence[str]) -> bool:
    epochs = [cell for cell in cells if csvcell.is_epoch(cell)]
    return bool(epochs) and 2 * len(epochs) > len(cells) and _increases(epochs)


def _mostly(holds: Callable[[str], bool], cells: Sequence[str]) -> bool:
    return bool(cells) and 2 * sum(map(holds, cells)) >= len(cells)


def _increases(cells: Sequence[str]) -> bool:
    for dates in csvcell.date_orders(cells) or ("",):
        times = [csvcell.seconds(cell, dates=dates) for cell in cells]
        if times[-1] > times[0] and all(a <= b for a, b in pairwise(times)):
            return True
    return False


def _is_text(cells: Sequence[str], number: Callable[[str], float]) -> bool:
    known = [cell for cell in cells if cell.lower() not in csvcell.MISSING]
    return bool(known) and not any(csvcell.reads(number, cell) for cell in known)
