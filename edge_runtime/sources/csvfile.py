"""The one CSV reader: the training stage and the device's sources see the same numbers.

A file is a header line of column names and one row per sample, plain or gzip; how it is written
is found (see dialect.py). One column may hold the time and one the label, columns of text are left
out; all others are channels.
"""

import csv
import gzip
import io
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import GruardError, quoted
from edge_runtime.files import open_input
from edge_runtime.record import Float32
from edge_runtime.sources import csvcell
from edge_runtime.sources.dialect import (
    LOOKED_AT,
    Dialect,
    find_dialect,
    find_header,
    fitted,
    split_header,
)
from edge_runtime.sources.encoding import DECODE_ERRORS, utf8
from edge_runtime.sources.lines import LONGEST

TIME_NAMES = frozenset({"time", "timestamp", "t", "date", "datetime"})
LABEL_NAMES = frozenset({"label", "anomaly", "is_anomaly"})
_OPEN_ERRORS: dict[type[OSError], str] = {
    FileNotFoundError: "no such file; check the path",
    PermissionError: "permission denied; make the file readable",
}
_WANTED_NUMBER = "a number; leave the cell empty for a missing value"
_WANTED_TIME = "a time; use seconds, ISO 8601 or dd.mm.yyyy hh:mm:ss, in every row"
_WANTED_LABEL = "a label; use 0 for normal and 1 for anomalous"
_GZIP_ERRORS = (gzip.BadGzipFile, EOFError, zlib.error)
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
    """A whole file: times float64 [rows], values float32 [rows, channels], labels int8 [rows].

    text: the columns without numbers that were left out, each with its first cell. units: of the
    channels, where the file has them.
    first_line: number of the line that holds row 0.
    """

    path: Path
    channels: tuple[str, ...]
    times: npt.NDArray[np.float64] | None
    values: Float32
    labels: npt.NDArray[np.int8] | None
    text: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    first_line: int = 2


class RowError(GruardError):
    """A row that cannot be read. fault: what is wrong, equal for rows with the same problem."""

    def __init__(self, message: str, fault: str) -> None:
        super().__init__(message)
        self.fault = fault


class RowParser:
    """Turns the fields of one line into a `Row`; made from the fields of the header.

    The time column is the first column if its name says so (`TIME_NAMES`), or one that the dialect
    knows by its cells; the label column is known by its name anywhere (`LABEL_NAMES`). Names count
    regardless of case, and not where the column is named explicitly.
    time_index, channel_indices: the positions of these columns in a line. text: names of columns
    without numbers, which are no channels. wanted: channels that `keep` will ask for.
    Raises GruardError for a header that cannot be used.
    """

    def __init__(
        self,
        fields: Sequence[str],
        path: str | Path,
        time_column: str | None = None,
        label_column: str | None = None,
        dialect: Dialect = Dialect(),  # noqa: B008
        wanted: Sequence[str] = (),
        line: int = 1,
    ) -> None:
        self.path, self.dialect, self._line = str(path), dialect, line
        self._number = dialect.number
        self.columns = [field.strip() for field in fields]
        if len(self.columns) > 1 and not self.columns[0] and any(self.columns):
            self.columns[0] = "index"  # as pandas leaves it
        if faults := _header_faults(self.columns):
            raise GruardError(_joined([str(self._bad_header(fault)) for fault in faults]))
        self.time_index = self._find(time_column) if time_column else self._guess_time(wanted)
        self._label = self._find(label_column) if label_column else self._guess_label()
        self.time_column = None if self.time_index is None else self.columns[self.time_index]
        self.label_column = None if self._label is None else self.columns[self._label]
        if self.time_column and self.time_column == self.label_column:
            raise self._bad_header(
                f"column '{self.time_column}' cannot hold both the time and the label; "
                "name two different columns"
            )
        special = {self.time_index, self._label}
        self._sensors = [i for i in range(len(self.columns)) if i not in special]
        self._choose([i for i in self._sensors if i not in dialect.text] or self._sensors)
        if not self.channels:
            raise self._bad_header(
                "no channel is left beside the time and label columns; add a sensor's column"
            )
        chosen = set(self.channel_indices)
        self.text = tuple(self.columns[i] for i in self._sensors if i not in chosen)

    def keep(self, channels: Sequence[str]) -> None:
        """Give only `channels`, in this order, and read no other column.

        Raises GruardError when one is missing.
        """
        order = channel_order([self.columns[i] for i in self._sensors], channels, self.path)
        self._choose([self._sensors[i] for i in order])

    def leave(self, columns: Sequence[str]) -> None:
        """Give no `columns`: they turned out to be text."""
        self._choose([i for i in self.channel_indices if self.columns[i] not in columns])

    def parse(self, fields: Sequence[str], line_number: int) -> Row:
        """One line's fields as a `Row`; RowError names the line and column it cannot read."""
        if len(fields) != len(self.columns):
            fields = fitted(fields, len(self.columns))
        if len(fields) == len(self.columns):
            with suppress(ValueError, OverflowError):
                numbers = [self._number(fields[i]) for i in self.channel_indices]
                # Beyond float32 means infinite, which the mask handles; numpy would complain.
                values = np.frombuffer(array("f", numbers), np.float32)
                time, label = self.time_index, self._label
                return Row(
                    None if time is None else self.seconds(fields[time].strip()),
                    values,
                    None if label is None else csvcell.label(fields[label].strip()),
                )
        raise self.problems(fields, line_number)[0]

    def problems(self, fields: Sequence[str], line_number: int) -> list[RowError]:
        """Everything that is wrong with a line that `parse` cannot read."""
        fields = fitted(fields, len(self.columns))
        if len(fields) != len(self.columns):
            message = (
                f"{self.path} line {line_number}: expected {len(self.columns)} columns as in the "
                f"header, got {len(fields)}; leave a cell empty for a missing value"
            )
            return [RowError(message, "width")]
        checks: list[tuple[int | None, Callable[[str], float | None], str]] = [
            *((i, self._number, _WANTED_NUMBER) for i in self.channel_indices),
            (self.time_index, self.seconds, _WANTED_TIME),
            (self._label, csvcell.label, _WANTED_LABEL),
        ]
        return [
            self._bad_cell(i, fields[i], line_number, wanted)
            for i, read, wanted in checks
            if i is not None and not csvcell.reads(read, fields[i].strip())
        ]

    def seconds(self, cell: str) -> float:
        """The time in a cell; see `csvcell.seconds`."""
        return csvcell.seconds(cell, self._number)

    def _choose(self, indices: list[int]) -> None:
        self.channel_indices = indices
        self.channels = tuple(self.columns[i] for i in indices)

    def _find(self, name: str) -> int:
        if name not in self.columns:
            raise self._bad_header(
                f"there is no column '{name}'; the columns are {_listed(self.columns)}"
            )
        return self.columns.index(name)

    def _guess_time(self, wanted: Sequence[str]) -> int | None:
        if self.columns[0].lower() in TIME_NAMES:
            return 0
        index = self.dialect.time_index
        return None if index is None or self.columns[index] in wanted else index

    def _guess_label(self) -> int | None:
        found = [i for i, name in enumerate(self.columns) if name.lower() in LABEL_NAMES]
        if len(found) > 1:
            names = _listed([self.columns[i] for i in found])
            raise self._bad_header(f"{names} all look like the label; name the label column")
        return found[0] if found else None

    def _bad_header(self, fault: str) -> GruardError:
        return GruardError(f"{self.path} line {self._line}: {fault}")

    def _bad_cell(self, column: int, text: str, line_number: int, wanted: str) -> RowError:
        name = self.columns[column]
        return RowError(
            f"{self.path} line {line_number}, column '{name}': "
            f"{quoted(text.strip())} is not {wanted}",
            name,
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
    with io.TextIOWrapper(
        open_binary(path), encoding="utf-8-sig", errors=DECODE_ERRORS, newline=""
    ) as text:
        try:
            yield _bounded_lines(text, path)
        except _GZIP_ERRORS:
            raise _not_gzip(path) from None


def open_binary(path: str | Path) -> BinaryIO:
    """Open a `.csv` or `.csv.gz` file as UTF-8. Raises GruardError, also for what is no text file.

    What is compressed is decompressed as it is read, so that a small file that holds gigabytes
    does not fill the memory.
    """
    try:
        raw = open_input(path, "name a CSV file")
    except OSError as error:
        default = f"cannot be opened ({error.strerror}); check the path"
        raise GruardError(f"{path}: {_OPEN_ERRORS.get(type(error), default)}") from None
    if str(path).endswith(".gz"):
        unzipped: Any = gzip.GzipFile(fileobj=raw)
        unzipped.myfileobj = raw  # which is closed with it then
        raw = cast(BinaryIO, unzipped)
    try:
        return utf8(raw, path)
    except _GZIP_ERRORS:
        raw.close()
        raise _not_gzip(path) from None
    except BaseException:
        raw.close()
        raise


def _not_gzip(path: str | Path) -> GruardError:
    return GruardError(f"{path}: is not a complete gzip file; compress it again or drop the '.gz'")


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
    """Read the header and the first `LOOKED_AT` rows at once, and the others as they are wanted.

    Blank lines at the end are ignored; a blank line before a row raises GruardError.
    """
    parser, stream, first_line = start_rows(lines, path, time_column, label_column)
    return parser, (parser.parse(*row) for row in _fields(stream, parser, first_line))


def read_header(
    header: str,
    path: str | Path,
    time_column: str | None = None,
    label_column: str | None = None,
    rows: Sequence[str] = (),
    wanted: Sequence[str] = (),
    line: int = 1,
) -> RowParser:
    """Return the parser of the rows below a header line; `rows` are the first of them.

    wanted: channels that are no time column, whatever they hold. line: number of the header.
    """
    if not header:
        raise GruardError(f"{path}: is empty; the first line must name the columns")
    try:
        dialect = find_dialect(header, rows)
        names = split_header(header, dialect.delimiter)
    except csv.Error as error:
        raise GruardError(f"{path} line {line}: is not CSV ({error}); repair the header") from None
    return RowParser(names, path, time_column, label_column, dialect, wanted, line)


def read_table(
    path: str | Path,
    time_column: str | None = None,
    label_column: str | None = None,
    channels: Sequence[str] | None = None,
) -> Table:
    """Read a whole file; with `channels` only these, in this order, whatever other columns hold.

    Columns of text are left out. GruardError names every problem of the file, one a line: no rows,
    rows or cells that cannot be read, an empty label, a missing channel.
    """
    return _read_table(path, time_column, label_column, channels, ())


def _read_table(
    path: str | Path,
    time_column: str | None,
    label_column: str | None,
    channels: Sequence[str] | None,
    text_columns: Sequence[str],
) -> Table:
    with open_text(path) as text:
        parser, stream, first_line = start_rows(
            text, path, time_column, label_column, channels or ()
        )
        if channels is not None:
            parser.keep(channels)
        parser.leave(text_columns)
        faults = _Faults()
        rows: list[Row] = []
        examples: dict[str, str] = {}
        left = [(name, parser.columns.index(name)) for name in (*parser.text, *text_columns)]
        try:
            for fields, line_number in _fields(stream, parser, first_line):
                if len(examples) < len(left):
                    _find_examples(examples, left, fields)
                try:
                    rows.append(parser.parse(fields, line_number))
                except RowError:
                    faults.add(*parser.problems(fields, line_number))
                    continue
                if parser.label_column and rows[-1].label is None:
                    why = "the label is empty; write 0 or 1 in every row"
                    faults.add(RowError(f"{path} line {line_number}: {why}", "no label"))
        except RowError as error:  # which ends the rows
            faults.add(error)
    if faults:
        found = np.stack([row.values for row in rows]) if rows else np.zeros((0, 0))
        never = [
            name
            for i, name in enumerate(parser.channels)
            if name in faults.counts and len(rows) and np.isnan(found[:, i]).all()
        ]
        if never and channels is None and len(never) < len(parser.channels):
            return _read_table(path, time_column, label_column, None, (*text_columns, *never))
        raise faults.error()
    if not rows:
        raise GruardError(f"{path}: has a header but no rows; add one row per sample")
    times = np.array([row.time for row in rows], dtype=np.float64) if parser.time_column else None
    labels = np.array([row.label for row in rows], np.int8) if parser.label_column else None
    values = np.stack([row.values for row in rows])
    units = dict(zip(parser.columns, parser.dialect.units, strict=False))
    return Table(Path(path), parser.channels, times, values, labels, examples, units, first_line)


class _Faults:
    """The problems of a file: the first row of each, and how many there are."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, RowError] = {}

    def __bool__(self) -> bool:
        return bool(self.counts)

    def add(self, *errors: RowError) -> None:
        for error in errors:
            self.counts[error.fault] += 1
            self._first.setdefault(error.fault, error)

    def error(self) -> GruardError:
        lines = []
        for fault, first in self._first.items():
            more = self.counts[fault] - 1
            lines.append(f"{first} (and {more} more)" if more else f"{first}")
        return GruardError(_joined(lines))


def _joined(lines: Sequence[str]) -> str:
    more = len(lines) - _MOST_NAMED
    return "\n".join([*lines[:_MOST_NAMED], *([f"and {more} more problems"] if more > 0 else [])])


def _find_examples(
    examples: dict[str, str], left: Sequence[tuple[str, int]], fields: Sequence[str]
) -> None:
    for name, column in left:
        if name not in examples and column < len(fields) and fields[column].strip():
            examples[name] = fields[column].strip()


def start_rows(
    lines: Iterable[str],
    path: str | Path,
    time_column: str | None = None,
    label_column: str | None = None,
    wanted: Sequence[str] = (),
) -> tuple[RowParser, Iterator[str], int]:
    """Read the header and the first rows.

    Returns the parser, the lines of all rows, and the number of the first of them.
    """
    stream = iter(lines)
    header, rows, number = find_header(lambda: next(stream, None))
    rows = [*rows, *islice(stream, LOOKED_AT - len(rows))]
    parser = read_header(header, path, time_column, label_column, rows, wanted, number)
    has_units = bool(parser.dialect.units)
    return parser, chain(rows[has_units:], stream), number + 1 + has_units


def _fields(
    stream: Iterator[str], parser: RowParser, first_line: int
) -> Iterator[tuple[list[str], int]]:
    """The cells of each row, and the number of its line."""
    reader = csv.reader(stream, delimiter=parser.dialect.delimiter)
    blank = None
    try:
        for fields in reader:
            line_number = reader.line_num + first_line - 1
            if not fields or (len(fields) == 1 and not fields[0].strip()):
                blank = blank or line_number
                continue
            if blank:
                raise RowError(f"{parser.path} line {blank}: is blank; remove the line", "blank")
            yield fields, line_number
    except csv.Error as error:
        line_number = reader.line_num + first_line - 1
        raise RowError(f"{parser.path} line {line_number}: is not CSV ({error})", "CSV") from None


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
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
