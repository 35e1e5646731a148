"""Records in batches: lines of JSON are parsed together, and lines that are no records set apart.

pyarrow parses some thousand lines in one call. If it refuses them, halves are tried, so that one
bad line costs its own record only.
"""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import quoted
from edge_runtime.plain import LARGEST_INTEGER, UNPRINTABLE

LONGEST_LINE = 1 << 17
"""Bytes. A record of 256 channels with long names takes some 30,000."""
LONGEST_NAME, MOST_NAMES = 200, 256
"""Characters of a name in a record, and names of one list."""
MOST_SLOTS = 10**9
"""Of one gap; thirty years of seconds."""
_RUN = re.compile(rb'^\{\s*"run"\s*:\s*"[^"]*"\s*,\s*')
_NUMBERS = ("time", "score", "threshold")
_LISTS = ("flags", "masked", "imputed", "blamed")
_TEXTS = ("run", "kind", "model")


@dataclass(frozen=True)
class Batch:
    """Records in the order of their file, n of them.

    table: the fields of records, without nulls except where a record may have them. lines: of the
    file, one for each record.
    """

    table: Any  # pyarrow.Table
    lines: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a field of all records, [n]; NaN for a number that is null."""
        return np.asarray(self.table[name].to_numpy())

    def coded(self, name: str) -> tuple[npt.NDArray[np.int32], list[str]]:
        """Return a field of texts as numbers [n], and the text of each number; null is empty."""
        coded = self.table[name].fill_null("").combine_chunks().dictionary_encode()
        if hasattr(coded, "combine_chunks"):
            coded = coded.combine_chunks()
        return np.asarray(coded.indices.to_numpy()), coded.dictionary.to_pylist()

    def counts(self, name: str) -> dict[str, int]:
        """Return how many records name each channel or flag in a field of lists."""
        from pyarrow import compute

        found = compute.value_counts(compute.list_flatten(self.table[name]))
        return {each["values"]: each["counts"] for each in found.to_pylist()}

    def naming(self, name: str, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return which records [n] name one of `texts` in a field of lists."""
        from pyarrow import compute

        column, found = self.table[name], np.zeros(len(self), bool)
        rows = compute.list_parent_indices(column).to_numpy()
        found[rows[_among(compute.list_flatten(column), texts)]] = True
        return found

    def part(self, wanted: npt.NDArray[np.bool_]) -> Batch:
        """Return the records where `wanted` [n] is true."""
        import pyarrow

        kept = [self.lines[place] for place in np.flatnonzero(wanted)]
        return Batch(self.table.filter(pyarrow.array(wanted)), kept)


def parse(lines: Sequence[bytes]) -> tuple[Batch, list[int]]:
    """Return the records in `lines`, and the places of the lines that are none.

    Records of any version are taken that have the fields of this one.
    """
    import pyarrow

    tables, places = [_schema().empty_table()], list[int]()
    objects = [place for place, line in enumerate(lines) if _is_object(line)]
    for table, parsed in _parsed(lines, objects):
        fine = _fine(table)
        tables.append(table if fine.all() else table.filter(pyarrow.array(fine)))
        places += [place for place, is_fine in zip(parsed, fine, strict=True) if is_fine]
    batch = Batch(pyarrow.concat_tables(tables).combine_chunks(), [lines[p] for p in places])
    return batch, sorted(set(range(len(lines))).difference(places))


def why_no_record(line: bytes) -> str:
    """Return what is wrong with a line that `parse` did not take, for a message."""
    if len(line) > LONGEST_LINE:
        return f"is longer than {LONGEST_LINE:,} bytes"
    text = quoted(line.decode("utf-8", "replace"))
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return f"{text} is no JSON"
    if not isinstance(fields, dict) or "index" not in fields:
        return f"{text} is no record"
    return f"{text} is a record with a field that is missing or out of bounds"


def without_run(line: bytes) -> bytes:
    """Return a record without the field `run`, as a sink for files writes it."""
    return _RUN.sub(b"{", line.strip(), count=1)


def _is_object(line: bytes) -> bool:
    return line.startswith(b"{") and line.rstrip().endswith(b"}") and len(line) <= LONGEST_LINE


def _parsed(lines: Sequence[bytes], places: Sequence[int]) -> Iterator[tuple[Any, Sequence[int]]]:
    """Yield tables, each with the places of its lines; lines that cannot be parsed are left out."""
    table = _table([lines[place] for place in places]) if places else None
    if table is not None:
        yield table, places
    elif len(places) > 1:
        middle = len(places) // 2
        yield from _parsed(lines, places[:middle])
        yield from _parsed(lines, places[middle:])


def _table(lines: Sequence[bytes]) -> Any | None:
    """Return a table with a row for each of `lines`, None when one of them is no record."""
    import pyarrow
    from pyarrow import json as arrow_json

    data = b"\n".join(lines) + b"\n"
    try:
        data.decode("utf-8")  # pyarrow accepts other bytes
        table = arrow_json.read_json(
            io.BytesIO(data),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=arrow_json.ParseOptions(
                explicit_schema=_schema(), unexpected_field_behavior="ignore"
            ),
        )
    except (pyarrow.ArrowException, UnicodeError):
        return None
    if table.num_rows != len(lines):  # a line may hold two objects
        return None
    place = table.column_names.index("slots")
    return table.set_column(place, "slots", table["slots"].fill_null(1)).combine_chunks()


@functools.cache
def _schema() -> Any:
    import pyarrow

    names = pyarrow.list_(pyarrow.string())
    kinds: dict[str, Any] = {name: pyarrow.float64() for name in _NUMBERS}
    kinds |= dict.fromkeys(_LISTS, names) | {name: pyarrow.string() for name in _TEXTS}
    kinds |= {"index": pyarrow.int64(), "tier": pyarrow.int64(), "slots": pyarrow.int64()}
    kinds |= {"valid": pyarrow.bool_(), "alarm": pyarrow.bool_()}
    return pyarrow.schema(sorted(kinds.items()))


def _fine(table: Any) -> npt.NDArray[np.bool_]:
    """Return which rows are records: nothing is missing, and all values are within bounds."""
    from pyarrow import compute

    fine = np.ones(table.num_rows, bool)
    for name in ("index", "tier", "valid", "alarm", "model", *_LISTS):
        fine &= np.asarray(table[name].is_valid())
    for name, low, high in (
        ("index", 0, LARGEST_INTEGER - 1), ("tier", 1, 3), ("slots", 1, MOST_SLOTS),
    ):  # fmt: skip
        values = table[name].fill_null(low).to_numpy()
        fine &= (low <= values) & (values <= high)
    for name in _NUMBERS:
        values = table[name].fill_null(0.0).to_numpy()
        fine &= np.abs(values) <= LARGEST_INTEGER  # also false for NaN
    for name in _TEXTS:
        fine &= _among(table[name], [t for t in table[name].unique().to_pylist() if _is_plain(t)])
    for name in _LISTS:
        column = table[name]
        fine &= compute.list_value_length(column).fill_null(0).to_numpy() <= MOST_NAMES
        odd = [t for t in compute.list_flatten(column).unique().to_pylist() if not _is_name(t)]
        if odd:
            rows = compute.list_parent_indices(column).to_numpy()
            fine[rows[_among(compute.list_flatten(column), odd)]] = False
    return fine


def _among(column: Any, values: Sequence[str | None]) -> npt.NDArray[np.bool_]:
    import pyarrow
    from pyarrow import compute

    return np.asarray(compute.is_in(column, value_set=pyarrow.array(values, pyarrow.string())))


def _is_plain(text: str | None) -> bool:
    return text is None or _is_name(text)


def _is_name(text: str | None) -> bool:
    return text is not None and len(text) <= LONGEST_NAME and not UNPRINTABLE.search(text)
