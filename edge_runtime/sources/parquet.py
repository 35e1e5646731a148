"""A Parquet file as the CSV text that its table would be, so that one reader reads both.

Importing this needs pyarrow. The text is made a batch of rows at a time, so the memory does not
grow with the file. Row `i`, from 0, is line `i + 2` of it, as cells have no line breaks.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from pyarrow import (
    Array,
    BufferOutputStream,
    DataType,
    Field,
    RecordBatch,
    compute,
    timestamp,
    types,
)
from pyarrow.csv import WriteOptions, write_csv
from pyarrow.parquet import ParquetFile

from edge_runtime.errors import GruardError, shortened

_ROWS = 1024  # of a batch
_BUFFER = 1 << 16  # bytes of a column that are read at once, not its whole row group
_LONGEST_CELL = 200  # characters of text; numbers and times have fewer
_BREAKS = r"[\x00-\x1f]"
_UNNAMED = "__index_level_0__"  # how pandas stores an index without a name


def parquet_text(raw: BinaryIO, path: str | Path) -> TextIO:
    """The open Parquet file `raw` as CSV text with a header line; closes it in the end.

    Times are ISO dates, UTC where the file has a zone; a missing value is an empty cell, a boolean
    is 0 or 1, a duration is in seconds. The index of pandas comes first, as in its CSV. Raises
    GruardError for what is no Parquet file and for a column of any other type; the text does where
    a row group cannot be read.
    """
    with _reading(f"{path}: is not a complete Parquet file"):
        file = ParquetFile(raw, buffer_size=_BUFFER)
        schema = file.schema_arrow
        index = (schema.pandas_metadata or {}).get("index_columns", [])
        order = sorted(range(len(schema)), key=lambda at: schema.names[at] not in index)
    header = _header([schema.field(at) for at in order], path)
    stream = io.BufferedReader(_Chunks(_chunks(file, order, header, path), raw))
    return io.TextIOWrapper(stream, "utf-8", newline="")


class _Chunks(io.RawIOBase):
    """Pieces of bytes as a file; closes `origin` with itself."""

    def __init__(self, pieces: Iterator[bytes], origin: BinaryIO) -> None:
        self._pieces, self._origin, self._rest = pieces, origin, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def close(self) -> None:
        self._origin.close()
        super().close()


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """What pyarrow raises about a damaged file, as GruardError."""
    try:
        yield
    except Exception as error:  # pyarrow raises anything for a damaged file
        raise GruardError(f"{what} ({shortened(str(error))}); write it again") from None


def _header(fields: Sequence[Field], path: str | Path) -> str:
    """The line of names. Raises GruardError for a column whose type has no text."""
    for field in fields:
        if not _has_text(field.type):
            raise GruardError(
                f"{path}: column '{field.name}' holds {shortened(str(field.type))}, which is no "
                "number, time or text; write the file without it, or with a column for each value"
            )
    names = [" ".join(field.name.replace(_UNNAMED, "index").split()) for field in fields]
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(names)
    return line.getvalue()


def _has_text(kind: DataType) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_primitive(kind) or _is_text(kind) or str(kind).startswith(("null", "decimal"))


def _chunks(file: ParquetFile, order: list[int], header: str, path: str | Path) -> Iterator[bytes]:
    yield header.encode()
    for group in range(file.num_row_groups):
        with _reading(f"{path} row group {group}: cannot be read"):
            for batch in file.iter_batches(_ROWS, row_groups=[group], use_threads=False):
                yield _csv(batch, order)


def _csv(batch: RecordBatch, order: list[int]) -> bytes:
    columns = [_plain(batch.column(at)) for at in order]
    if len(columns) == 1:  # an empty cell would be a blank line
        columns[0] = columns[0].cast("string").fill_null("nan")
    text = BufferOutputStream()
    rows = RecordBatch.from_arrays(columns, list(map(str, order)))
    write_csv(rows, text, WriteOptions(include_header=False))
    return text.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _plain(column: Array) -> Array:
    """The column in a type whose CSV text the reader knows."""
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if types.is_boolean(kind):
        return column.cast("int8")
    if types.is_timestamp(kind):
        return column.cast(timestamp(kind.unit))  # with a zone: UTC
    if types.is_duration(kind):
        units = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
        return compute.divide(column.cast("int64").cast("float64", safe=False), units[kind.unit])
    if _is_text(kind):
        short = compute.utf8_slice_codeunits(column.cast("string"), 0, _LONGEST_CELL)
        return compute.replace_substring_regex(short, _BREAKS, " ")
    return column


def _is_text(kind: DataType) -> bool:
    return str(kind) in ("string", "large_string", "string_view")
