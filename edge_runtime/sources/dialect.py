"""How a CSV file is written: found from its header and first rows, so that nobody has to say it.

Recordings and the device's sources use the same functions, and so see the same columns.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edge_runtime.sources import csvcell

DELIMITERS = ",;\t"
LOOKED_AT = 20
"""Rows below the header that are looked at."""
_MOST_COMMENTS = 1000
"""Lines above the header."""
_LONGEST = 1 << 15
"""Characters of a row that is looked at, far more than 256 channels need."""


@dataclass(frozen=True)
class Dialect:
    """How the rows are written.

    decimal_comma: 1,5 is one and a half. time_index: a column that holds times, whatever its name.
    text: indices of the columns without any number. units: the cells of a line of units between
    header and rows, if there is one.
    """

    delimiter: str = ","
    decimal_comma: bool = False
    time_index: int | None = None
    text: frozenset[int] = frozenset()
    units: tuple[str, ...] = ()

    @property
    def number(self) -> Callable[[str], float]:
        """What reads a cell as a number; see `csvcell.number`."""
        return csvcell.comma_number if self.decimal_comma else csvcell.number


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
    columns = _columns(table[bool(units) :], width)
    time_index = _time_index(columns)
    text = [i for i, cells in enumerate(columns) if _is_text(cells, number)]
    return Dialect(delimiter, comma, time_index, frozenset(text) - {time_index}, units)


def find_header(next_line: Callable[[], str | None]) -> tuple[str, list[str], int]:
    """Read lines up to the header; comments and Excel's `sep=` above it are left out.

    A header may be a comment itself, as numpy writes it. next_line: None after the last line.
    Returns the header, empty where there is none, the row that was read after it, if one was, and
    the number of the header's line.
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
    return line or "", [], number


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
        return width > 1 and _most(len(fitted(split(row, mark), width)) == width for row in rows)

    return max([mark for mark in DELIMITERS if fits(mark)] or DELIMITERS, key=names.__getitem__)


def _decimal_comma(delimiter: str, cells: Sequence[str]) -> bool:
    """Whether numbers have a decimal comma.

    `;` is the delimiter of those who write it. Elsewhere 1,234 may also be a thousand.
    """
    commas = [cell for cell in cells if "," in cell and csvcell.reads(csvcell.comma_number, cell)]
    if delimiter == ";" or not commas:
        return bool(commas)
    if any("." in cell and csvcell.is_number(cell) for cell in cells):
        return False
    return any(len(cell.partition(",")[2]) != 3 or cell.startswith("0,") for cell in commas)


def _columns(table: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    return [[row[i] for row in table if i < len(row) and row[i]] for i in range(width)]


def _time_index(columns: Sequence[Sequence[str]]) -> int | None:
    """The first column if it holds dates or epoch times, or else one whose dates go on.

    A few cells may be broken: whoever reads the rows names them.
    """
    for index, cells in enumerate(columns):
        dates = [cell for cell in cells if csvcell.is_date(cell)]
        if dates and 2 * len(dates) >= len(cells) and (index == 0 or _increases(dates)):
            return index
    epochs = [cell for cell in columns[0] if csvcell.is_epoch(cell)] if columns else []
    return 0 if epochs and 2 * len(epochs) > len(columns[0]) and _increases(epochs) else None


def _increases(cells: Sequence[str]) -> bool:
    times = [csvcell.seconds(cell) for cell in cells]
    return times[-1] > times[0] and all(a <= b for a, b in pairwise(times))


def _most(answers: Iterable[bool]) -> bool:
    given = list(answers)
    return 2 * sum(given) > len(given) or not given


def _is_text(cells: Sequence[str], number: Callable[[str], float]) -> bool:
    known = [cell for cell in cells if cell.lower() not in csvcell.MISSING]
    return bool(known) and not any(csvcell.reads(number, cell) for cell in known)
