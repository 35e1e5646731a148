"""The one CSV reader: the training stage and the device's sources see the same numbers.

A file is a header line of column names and one row per sample. Delimiter `,`, `;` or tab,
UTF-8, plain or gzip. One column may hold the time and one the label; all others are channels.
"""

import csv
import gzip
import io
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import GruardError
from edge_runtime.files import open_input
from edge_runtime.record import Float32
from edge_runtime.sources import csvcell
from edge_runtime.sources.complaints import quoted
from edge_runtime.sources.lines import LONGEST

TIME_NAMES = frozenset({"time", "timestamp", "t", "date", "datetime"})
LABEL_NAMES = frozenset({"label", "anomaly", "is_anomaly"})
DELIMITERS = ",;\t"
_OPEN_ERRORS: dict[type[OSError], str] = {
    FileNotFoundError: "no such file; check the path",
    PermissionError: "permission denied; make the file readable",
}
_WANTED_NUMBER = "a number; leave the cell empty for a missing value"
_WANTED_TIME = "a time; use seconds or ISO 8601, in every row"
_WANTED_LABEL = "a label; use 0 for normal and 1 for anomalous"
_MOST_NAMED = 20  # columns that an error names


@dataclass(frozen=True)
class Row:
    """One line of a file.

    time: seconds (epoch seconds where the file has dates), None without a time column.
    values: float32 [channels] in the file's channel order; NaN where missing, infinities kept.
    label: 1.0 anomalous, 0.0 normal, None where unknown.
    """

    time: float | None
    values: Float32
    label: float | None


@dataclass(frozen=True)
class Table:
    """A whole file: times float64 [rows], values float32 [rows, channels], labels int8 [rows]."""

    path: Path
    channels: tuple[str, ...]
    times: npt.NDArray[np.float64] | None
    values: Float32
    labels: npt.NDArray[np.int8] | None


class RowParser:
    """Turns the fields of one line into a `Row`; made from the fields of the header.

    The time column is recognised as first column by its name (`TIME_NAMES`), the label column
    anywhere (`LABEL_NAMES`), both regardless of case, unless they are named explicitly.
    time_index, channel_indices: the positions of these columns in a line.
    Raises GruardError for a header that cannot be used.
    """

    def __init__(
        self,
        fields: Sequence[str],
        path: str | Path,
        time_column: str | None = None,
        label_column: str | None = None,
    ) -> None:
        self.path = str(path)
        self.columns = [field.strip() for field in fields]
        if fault := _header_fault(self.columns):
            raise self._bad_header(fault)
        self.time_index = self._find(time_column) if time_column else self._guess_time()
        self._label = self._find(label_column) if label_column else self._guess_label()
        self.time_column = None if self.time_index is None else self.columns[self.time_index]
        self.label_column = None if self._label is None else self.columns[self._label]
        if self.time_column and self.time_column == self.label_column:
            raise self._bad_header(
                f"column '{self.time_column}' cannot hold both the time and the label; "
                "name two different columns"
            )
        special = {self.time_index, self._label}
        self.channel_indices = [i for i in range(len(self.columns)) if i not in special]
        self.channels = tuple(self.columns[i] for i in self.channel_indices)
        if not self.channels:
            raise self._bad_header(
                "no channel is left beside the time and label columns; add a sensor's column"
            )

    def keep(self, channels: Sequence[str]) -> None:
        """Give only `channels`, in this order, and read no other column.

        Raises GruardError when one is missing.
        """
        order = channel_order(self.channels, channels, self.path)
        self.channel_indices = [self.channel_indices[i] for i in order]
        self.channels = tuple(channels)

    def parse(self, fields: Sequence[str], line_number: int) -> Row:
        """One line's fields as a `Row`; GruardError names the line and column it cannot read."""
        if len(fields) != len(self.columns):
            raise GruardError(
                f"{self.path} line {line_number}: expected {len(self.columns)} columns as in the "
                f"header, got {len(fields)}; leave a cell empty for a missing value"
            )
        try:
            numbers = [csvcell.number(fields[i]) for i in self.channel_indices]
        except ValueError:
            column = next(i for i in self.channel_indices if not csvcell.is_number(fields[i]))
            raise self._bad_cell(column, fields[column], line_number, _WANTED_NUMBER) from None
        # Beyond float32 means infinite, which the mask handles; numpy's conversion would complain.
        values = np.frombuffer(array("f", numbers), np.float32)
        time = self._special(self.time_index, fields, line_number, csvcell.seconds, _WANTED_TIME)
        label = self._special(self._label, fields, line_number, csvcell.label, _WANTED_LABEL)
        return Row(time, values, label)

    def _find(self, name: str) -> int:
        if name not in self.columns:
            raise self._bad_header(
                f"there is no column '{name}'; the columns are {_listed(self.columns)}"
            )
        return self.columns.index(name)

    def _guess_time(self) -> int | None:
        return 0 if self.columns[0].lower() in TIME_NAMES else None

    def _guess_label(self) -> int | None:
        found = [i for i, name in enumerate(self.columns) if name.lower() in LABEL_NAMES]
        if len(found) > 1:
            names = _listed([self.columns[i] for i in found])
            raise self._bad_header(f"{names} all look like the label; name the label column")
        return found[0] if found else None

    def _special(
        self,
        column: int | None,
        fields: Sequence[str],
        line_number: int,
        read: Callable[[str], float | None],
        wanted: str,
    ) -> float | None:
        if column is None:
            return None
        try:
            return read(fields[column].strip())
        except (ValueError, OverflowError):
            raise self._bad_cell(column, fields[column], line_number, wanted) from None

    def _bad_header(self, fault: str) -> GruardError:
        return GruardError(f"{self.path} line 1: {fault}")

    def _bad_cell(self, column: int, text: str, line_number: int, wanted: str) -> GruardError:
        return GruardError(
            f"{self.path} line {line_number}, column '{self.columns[column]}': "
            f"{quoted(text.strip())} is not {wanted}"
        )


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


@contextmanager
def open_text(path: str | Path) -> Iterator[Iterator[str]]:
    """Open a `.csv` or `.csv.gz` file and give its lines, for `read_rows`.

    Every way it can fail is a GruardError, also a line of more than `LONGEST` characters.
    """
    with io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", newline="") as text:
        try:
            yield _bounded_lines(text, path)
        except UnicodeDecodeError:
            raise GruardError(f"{path}: is not UTF-8 text; save the file as UTF-8") from None
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise GruardError(
                f"{path}: is not a complete gzip file; compress it again or drop the '.gz'"
            ) from None


def open_binary(path: str | Path) -> BinaryIO:
    """Open the bytes of a `.csv` or `.csv.gz` file. Raises GruardError, also for what is no file.

    What is compressed is decompressed as it is read, so that a small file that holds gigabytes
    does not fill the memory.
    """
    try:
        raw = open_input(path, "name a CSV file")
    except OSError as error:
        default = f"cannot be opened ({error.strerror}); check the path"
        raise GruardError(f"{path}: {_OPEN_ERRORS.get(type(error), default)}") from None
    if not str(path).endswith(".gz"):
        return raw
    unzipped: Any = gzip.GzipFile(fileobj=raw)
    unzipped.myfileobj = raw  # which is closed with it then
    return cast(BinaryIO, unzipped)


def _bounded_lines(text: TextIO, path: str | Path) -> Iterator[str]:
    number = 0
    while line := text.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise GruardError(
                f"{path} line {number}: has more than {LONGEST} characters; is it a CSV file?"
            )
        yield line


def read_rows(
    lines: Iterable[str],
    path: str | Path,
    time_column: str | None = None,
    label_column: str | None = None,
) -> tuple[RowParser, Iterator[Row]]:
    """Read the header from `lines` at once and the rows lazily, so that `lines` may be a stream.

    Blank lines at the end are ignored; a blank line before a row raises GruardError.
    """
    stream = iter(lines)
    parser, delimiter = read_header(next(stream, ""), path, time_column, label_column)
    return parser, _parsed(stream, delimiter, parser)


def read_header(
    header: str,
    path: str | Path,
    time_column: str | None = None,
    label_column: str | None = None,
) -> tuple[RowParser, str]:
    """Return the parser of the rows below a header line, and the delimiter."""
    if not header:
        raise GruardError(f"{path}: is empty; the first line must name the columns")
    try:
        delimiter = max(DELIMITERS, key=lambda mark: len(_split(header, mark)))
        return RowParser(_split(header, delimiter), path, time_column, label_column), delimiter
    except csv.Error as error:
        raise GruardError(f"{path} line 1: is not CSV ({error}); repair the header") from None


def read_table(
    path: str | Path,
    time_column: str | None = None,
    label_column: str | None = None,
    channels: Sequence[str] | None = None,
) -> Table:
    """Read a whole file; with `channels` only these, in this order, whatever other columns hold.

    GruardError when it has no rows, a row has an empty label, or a channel is missing.
    """
    with open_text(path) as text:
        parser, stream = read_rows(text, path, time_column, label_column)
        if channels is not None:
            parser.keep(channels)
        rows = list(stream)
    if not rows:
        raise GruardError(f"{path}: has a header but no rows; add one row per sample")
    times = np.array([row.time for row in rows], dtype=np.float64) if parser.time_column else None
    labels = _labels(rows, path) if parser.label_column else None
    return Table(Path(path), parser.channels, times, np.stack([row.values for row in rows]), labels)


def _parsed(stream: Iterator[str], delimiter: str, parser: RowParser) -> Iterator[Row]:
    reader = csv.reader(stream, delimiter=delimiter)
    blank = None
    try:
        for fields in reader:
            line_number = reader.line_num + 1  # the header was taken before
            if not fields or (len(fields) == 1 and not fields[0].strip()):
                blank = blank or line_number
                continue
            if blank:
                raise GruardError(f"{parser.path} line {blank}: is blank; remove the line")
            yield parser.parse(fields, line_number)
    except csv.Error as error:
        line_number = reader.line_num + 1
        raise GruardError(f"{parser.path} line {line_number}: is not CSV ({error})") from None


def _labels(rows: Sequence[Row], path: str | Path) -> npt.NDArray[np.int8]:
    unknown = [index for index, row in enumerate(rows) if row.label is None]
    if unknown:
        line = unknown[0] + 2
        raise GruardError(f"{path} line {line}: the label is empty; write 0 or 1 in every row")
    return np.array([row.label for row in rows], dtype=np.int8)


def _split(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _header_fault(columns: list[str]) -> str | None:
    twice = sorted(column for column, count in Counter(columns).items() if count > 1)
    if not any(columns):
        return "is blank; the first line must name the columns"
    if all(csvcell.is_number(column) for column in columns):
        return "holds numbers; the first line must name the columns"
    if "" in columns:
        return f"column {columns.index('') + 1} has no name; name it"
    if twice:
        return f"more than one column is named {_listed(twice)}; rename all but one"
    return None


def _listed(names: Sequence[str]) -> str:
    """Names for an error, and how many more there are when they are many."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
