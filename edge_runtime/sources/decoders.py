"""From one line of text to one reading: CSV under a header, or a JSON object a line.

Work and memory are in proportion to the line, and only the bundle's channels and the time are
looked at: a column that nobody wants costs its splitting, and can be anything.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources import csvcell
from edge_runtime.sources.csvlayout import LABEL_NAMES, LOOKED_AT, TIME_NAMES, read_layout
from edge_runtime.sources.lines import LONGEST, CutLine
from edge_runtime.sources.source import Reading


class Decoder(ABC):
    """Reads lines; what it cannot read it complains about, and counts as missing."""

    def __init__(
        self,
        name: str,
        channels: Sequence[str],
        complaints: Complaints,
        said: Columns = NOTHING_SAID,
    ) -> None:
        self._name, self._channels, self._complaints = name, tuple(channels), complaints
        self._said = said

    def decode(self, line: str) -> Reading:
        """Return the reading of one line that is not blank; a row of nothing if it is too long."""
        if isinstance(line, CutLine):
            return self._refuse(line, f"begins a line of more than {LONGEST} bytes")
        return self._decode(line)

    @abstractmethod
    def _decode(self, line: str) -> Reading: ...

    def _refuse(self, line: str, why: str) -> Reading:
        self._complaints.row(self._name, line, why)
        return nothing(len(self._channels))

    def _bad_cell(self, column: str, text: str) -> None:
        self._complaints.cell(f"{self._name}, {column}", text)


class CsvDecoder(Decoder):
    """Lines of cells under a header line. Raises GruardError when the header is unusable.

    rows: the first lines below the header, which show how they are written. has_units: the first
    of them is no reading. more: the first `LOOKED_AT` lines to come may show more.
    """

    def __init__(
        self,
        header: str,
        name: str,
        channels: Sequence[str],
        complaints: Complaints,
        rows: Sequence[str] = (),
        more: bool = True,
        said: Columns = NOTHING_SAID,
    ) -> None:
        super().__init__(name, channels, complaints, said)
        if isinstance(header, CutLine):
            raise GruardError(f"{name} line 1: has more than {LONGEST} bytes; is it CSV?")
        self._header = header
        self._seen: list[str] | None = [] if more else None
        self._learn(rows)

    def _learn(self, rows: Sequence[str]) -> None:
        layout = read_layout(self._header, self._name, rows, self._said, self._channels)
        self._layout, self._read = layout.keep(self._channels), layout.dialect.number
        self.has_units = bool(layout.dialect.units)

    def _look_at(self, line: str, seen: list[str]) -> None:
        """Learn anew if one of the first lines is not as those before it made believe."""
        seen.append(line)
        if not self._layout.explains(line):
            with suppress(GruardError):  # what is known of the columns stays
                self._learn(seen)
        if len(seen) == LOOKED_AT:
            self._seen = None

    def _decode(self, line: str) -> Reading:
        """A row with too many or too few cells is a row of nothing."""
        if self._seen is not None:
            self._look_at(line, self._seen)
        layout = self._layout
        cells, width = layout.cells(line), len(layout.columns)
        if len(cells) != width:
            return self._refuse(line, f"has {len(cells)} cells instead of {width}")
        wanted = [cells[i] for i in layout.channels_at]
        try:
            numbers = [self._read(cell) for cell in wanted]
        except ValueError:
            numbers = [self._number(*pair) for pair in zip(self._channels, wanted, strict=True)]
        return Reading.of(self._time(cells) if layout.time_at else None, numbers)

    def _time(self, cells: Sequence[str]) -> float | None:
        """The time of a row, None where it has none."""
        layout = self._layout
        text = layout.time_text(cells)
        with suppress(ValueError, OverflowError):
            return layout.seconds(text)
        for dates in layout.dates[1:]:  # so this row is the first to tell what the dates mean
            other = layout.reading(dates)
            with suppress(ValueError, OverflowError):
                seconds = other.seconds(text)
                self._layout = other
                return seconds
        self._bad_cell(layout.name(layout.time_at), text)
        return None

    def _number(self, channel: str, cell: str) -> float:
        try:
            return self._read(cell)
        except ValueError:
            self._bad_cell(channel, cell)
            return math.nan


class JsonDecoder(Decoder):
    """One JSON object a line: channel names to numbers; null or no entry is a missing reading.

    The time is under `time` or another of the names that a CSV file may use: seconds or ISO 8601.
    """

    def _decode(self, line: str) -> Reading:
        """What is not an object is a row of nothing."""
        found = json_object(line)
        if found is None:
            return self._refuse(line, "is not a JSON object")
        values = [self._number(channel, found.get(channel)) for channel in self._channels]
        return Reading.of(self._time(found), values)

    def _number(self, channel: str, value: object) -> float:
        if value is None:
            return math.nan
        if isinstance(value, (float, bool)):  # a switch, true or false, is 1 or 0
            return float(value)
        try:
            return csvcell.number(_text(value))
        except ValueError:
            self._bad_cell(channel, _text(value))
            return math.nan

    def _time(self, found: dict[str, object]) -> float | None:
        said = self._said
        name = said.time if said.time in found else next(filter(is_time_name, found), None)
        if name is None or name in self._channels or found[name] is None:
            return None
        text = _text(found[name])
        try:
            return csvcell.seconds(text.strip(), dates=said.dates)
        except (ValueError, OverflowError):
            self._bad_cell(name, text)
            return None


def decoder_for(
    first: str,
    name: str,
    channels: Sequence[str],
    complaints: Complaints,
    rows: Sequence[str] = (),
    more: bool = True,
    said: Columns = NOTHING_SAID,
) -> tuple[Decoder, list[str]]:
    """The decoder that a first line calls for, and which of these lines are readings.

    rows, more: the lines that follow, as of `CsvDecoder`. said: by the bundle.
    Raises GruardError when it is the header of a CSV file without the channels.
    """
    if is_json(first):
        return JsonDecoder(name, channels, complaints, said), [first, *rows]
    decoder = CsvDecoder(first, name, channels, complaints, rows, more, said)
    return decoder, [*rows[decoder.has_units :]]


def own_channels(first: str, name: str, rows: Sequence[str]) -> tuple[str, ...]:
    """The channels that a first line names itself; `rows` are the lines that follow it."""
    if not is_json(first):
        return read_layout(first, name, rows).channels
    if (found := json_object(first)) is None:
        raise GruardError(f"{name} line 1: is not a JSON object")
    return tuple(key for key in found if key.lower() not in TIME_NAMES | LABEL_NAMES)


def is_time_name(name: str) -> bool:
    """Whether a column of this name holds the time."""
    return name.lower() in TIME_NAMES


def is_json(first: str) -> bool:
    """Whether a first line says that all lines are JSON objects."""
    return first.lstrip().startswith("{")


def json_object(line: str) -> dict[str, object] | None:
    """The object in a line of JSON, its numbers all float; None when there is none."""
    try:
        # Python's integers take the square of their digits to read.
        found = json.loads(line, parse_int=float)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def nothing(channels: int) -> Reading:
    """A reading of which nothing is known."""
    return Reading(None, np.full(channels, np.nan))


def _text(value: object) -> str:
    """A JSON value as a cell; what holds others is named, as writing it out may fail."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    return str(value)
