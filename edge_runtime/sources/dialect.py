"""How a CSV file is written: found from its header and first rows, so that nobody has to say it.

Recordings and the device's sources use the same functions, and so see the same columns.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edge_runtime.sources import csvcell

DELIMITERS = ",;\t"
LOOKED_AT = 20
"""Rows below the header that are looked at."""
_LONGEST = 1 << 15
"""Characters of a row that is looked at, far more than 256 channels need."""


@dataclass(frozen=True)
class Dialect:
    """How the rows are written.

    decimal_comma: 1,5 is one and a half. time_index: a column that holds times, whatever its name.
    text: indices of the columns without any number.
    """

    delimiter: str = ","
    decimal_comma: bool = False
    time_index: int | None = None
    text: frozenset[int] = frozenset()

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
    dialect = Dialect(delimiter, comma)
    columns = _columns(table, len(split_header(header, delimiter)))
    time_index = _time_index(columns)
    text = [i for i, cells in enumerate(columns) if _is_text(cells, dialect.number)]
    return Dialect(delimiter, comma, time_index, frozenset(text) - {time_index})


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


def fitted(fields: list[str], width: int) -> list[str]:
    """The cells of a row without the empty one after a delimiter at its end."""
    return fields[:width] if len(fields) == width + 1 and not fields[width].strip() else fields


def _delimiter(header: str, rows: Sequence[str]) -> str:
    """The one that cuts header and rows into equally many cells, or else the header into most."""
    names = {mark: len(split_header(header, mark)) for mark in DELIMITERS}

    def fits(mark: str) -> bool:
        width = names[mark]
        return width > 1 and all(len(fitted(split(row, mark), width)) == width for row in rows)

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
    """The first column if it holds dates or epoch times, or else one whose dates go on."""
    for index, cells in enumerate(columns):
        if not cells or not all(map(csvcell.is_date, cells)):
            continue
        if index == 0 or _increases([csvcell.seconds(cell) for cell in cells]):
            return index
    if columns and columns[0] and all(map(csvcell.is_epoch, columns[0])):
        return 0 if _increases([csvcell.seconds(cell) for cell in columns[0]]) else None
    return None


def _increases(times: Sequence[float]) -> bool:
    return times[-1] > times[0] and all(a <= b for a, b in pairwise(times))


def _is_text(cells: Sequence[str], number: Callable[[str], float]) -> bool:
    known = [cell for cell in cells if cell.lower() not in csvcell.MISSING]
    return bool(known) and not any(csvcell.reads(number, cell) for cell in known)
