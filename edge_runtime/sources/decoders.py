"""From one line of text to one reading: CSV under a header, or a JSON object a line."""

import csv
import json
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.record import Float32
from edge_runtime.sources import csvcell
from edge_runtime.sources.complaints import Complaints
from edge_runtime.sources.csvfile import DELIMITERS, TIME_NAMES, channel_order, read_rows
from edge_runtime.sources.source import Reading


class Decoder(Protocol):
    """Reads lines; what it cannot read it complains about, and counts as missing."""

    def decode(self, line: str) -> Reading:
        """The reading of one line that is not blank."""


class CsvDecoder:
    """Lines of cells under a header line. Raises GruardError when the header is unusable."""

    def __init__(
        self, header: str, name: str, channels: Sequence[str], complaints: Complaints
    ) -> None:
        self._name, self._complaints = name, complaints
        self._parser, _ = read_rows([header] if header else [], name)
        self._delimiter = max(DELIMITERS, key=lambda mark: len(_split(header, mark)))
        self._order = channel_order(self._parser.channels, channels, name)

    def decode(self, line: str) -> Reading:
        """The reading of one line; a row with too many or too few cells is a row of nothing."""
        fields = _split(line, self._delimiter)
        if len(fields) != len(self._parser.columns):
            wanted = len(self._parser.columns)
            self._complaints.row(self._name, line, f"has {len(fields)} cells instead of {wanted}")
            return nothing(len(self._order))
        try:
            row = self._parser.parse(fields, 0)
        except GruardError:
            fields, time_is_bad = self._mended(fields)
            row = self._parser.parse(fields, 0)
            return Reading(None if time_is_bad else row.time, row.values[self._order])
        return Reading(row.time, row.values[self._order])

    def _mended(self, fields: list[str]) -> tuple[list[str], bool]:
        """The fields with every unreadable one neutral, and whether the time was among them."""
        neutral = ["0" if c == self._parser.time_column else "" for c in self._parser.columns]
        mended = list(neutral)
        time_is_bad = False
        for index, field in enumerate(fields):
            probe = [*neutral[:index], field, *neutral[index + 1 :]]
            column = self._parser.columns[index]
            try:
                self._parser.parse(probe, 0)  # the one parser decides what is readable
                mended[index] = field
            except GruardError:
                self._complaints.cell(f"{self._name}, {column}", field)
                time_is_bad |= column == self._parser.time_column
        return mended, time_is_bad


class JsonDecoder:
    """One JSON object a line: channel names to numbers; null or no entry is a missing reading.

    The time is under `time` or another of the names that a CSV file may use: seconds or ISO 8601.
    """

    def __init__(self, name: str, channels: Sequence[str], complaints: Complaints) -> None:
        self._name, self._channels, self._complaints = name, channels, complaints

    def decode(self, line: str) -> Reading:
        """The reading of one line; what is not an object is a row of nothing."""
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self._complaints.row(self._name, line, "is not a JSON object")
            return nothing(len(self._channels))
        values = [self._number(channel, found.get(channel)) for channel in self._channels]
        with np.errstate(over="ignore"):  # beyond float32 means infinite, which the mask handles
            return Reading(self._time(found), np.array(values, np.float32))

    def _number(self, channel: str, value: object) -> float:
        if value is None:
            return math.nan
        try:
            if isinstance(value, str):
                return csvcell.number(value)
            if isinstance(value, (int, float)):  # a switch, true or false, is 1 or 0
                return float(value)
        except (ValueError, OverflowError):
            pass
        self._complaints.cell(f"{self._name}, {channel}", str(value))
        return math.nan

    def _time(self, found: dict[str, object]) -> float | None:
        name = next((key for key in found if key.lower() in TIME_NAMES), None)
        if name is None or name in self._channels or found[name] is None:
            return None
        try:
            return csvcell.seconds(str(found[name]).strip())
        except (ValueError, OverflowError):
            self._complaints.cell(f"{self._name}, {name}", str(found[name]))
            return None


def decoder_for(
    first: str, name: str, channels: Sequence[str], complaints: Complaints
) -> tuple[Decoder, bool]:
    """The decoder that a first line calls for, and whether that line is a reading itself.

    Raises GruardError when it is the header of a CSV file without the channels.
    """
    if first.lstrip().startswith("{"):
        return JsonDecoder(name, channels, complaints), True
    return CsvDecoder(first, name, channels, complaints), False


def nothing(channels: int) -> Reading:
    """A reading of which nothing is known."""
    values: Float32 = np.full(channels, np.nan, np.float32)
    return Reading(None, values)


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []
