"""Where samples come from: a CSV file, or a live stream of CSV lines on stdin.

A run never stops over a bad line: an unreadable cell is a missing reading, an unreadable line a
row of missing readings, and both are counted. Only an unusable header is refused.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.record import Float32
from edge_runtime.sources.csvfile import DELIMITERS, channel_order, open_text, read_rows

_LONGEST_LINE = 1 << 20  # characters; a stream without line breaks must not eat the memory


@dataclass(frozen=True)
class Reading:
    """One row of a source.

    time: seconds as the source tells them, None where it does not or not readably.
    values: float32 [channels] in the bundle's order, raw units; NaN where missing or unreadable.
    """

    time: float | None
    values: Float32


class Source(Protocol):
    """Readings in the bundle's channel order, and what was wrong with them so far."""

    bad_cells: int
    bad_rows: int

    def __iter__(self) -> Iterator[Reading]:
        """Each reading as soon as it is there."""


class CsvSource:
    """Readings from CSV lines; a line is answered when its line break arrives, nothing is batched.

    Blank lines are skipped. Raises GruardError at once when the header is missing or lacks a
    wanted channel. A label column is ignored.
    """

    def __init__(self, lines: TextIO, name: str, channels: Sequence[str]) -> None:
        self.bad_cells = self.bad_rows = 0
        self._lines = lines
        header = lines.readline(_LONGEST_LINE)
        self._parser, _ = read_rows([header] if header else [], name)
        self._delimiter = max(DELIMITERS, key=lambda mark: len(_split(header, mark)))
        self._order = channel_order(self._parser.channels, channels, name)

    def __iter__(self) -> Iterator[Reading]:
        """Yield a reading per line. Raises GruardError when the source itself cannot be read."""
        try:
            while line := self._lines.readline(_LONGEST_LINE):
                if line.strip():
                    yield self._reading(_split(line, self._delimiter))
        except OSError as error:
            raise GruardError(
                f"{self._parser.path}: reading failed ({error.strerror}); check the device"
            ) from None

    def _reading(self, fields: list[str]) -> Reading:
        if len(fields) != len(self._parser.columns):
            self.bad_rows += 1
            return Reading(None, np.full(len(self._order), np.nan, np.float32))
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
        for column, field in enumerate(fields):
            probe = [*neutral[:column], field, *neutral[column + 1 :]]
            try:
                self._parser.parse(probe, 0)  # the one parser decides what is readable
                mended[column] = field
            except GruardError:
                self.bad_cells += 1
                time_is_bad |= self._parser.columns[column] == self._parser.time_column
        return mended, time_is_bad


class GapWatch:
    """Counts the samples that a source left out, by its own times.

    period: seconds between samples, or None when unknown: then no gap is ever seen.
    """

    def __init__(self, period: float | None) -> None:
        self._period = period
        self._last_time: float | None = None
        self._rows_since = 0

    def missing(self, time: float | None) -> int:
        """How many samples are missing just before the one at `time`; call once per sample."""
        self._rows_since += 1
        if time is None or self._period is None:
            return 0
        last, rows = self._last_time, self._rows_since
        self._last_time, self._rows_since = time, 0
        if last is None:
            return 0
        periods = (time - last) / self._period - rows
        return round(periods) if periods > 0.5 else 0


@contextmanager
def open_source(target: str, channels: Sequence[str]) -> Iterator[CsvSource]:
    """A CSV file, `.gz` too, or stdin for `-`; GruardError when it or its header is unusable."""
    if target == "-":
        if sys.stdin is None:
            raise GruardError("stdin is closed; pipe CSV lines into --source -")
        _tolerate(sys.stdin)
        yield CsvSource(sys.stdin, "stdin", channels)
        return
    with open_text(target) as lines:
        _tolerate(lines)
        yield CsvSource(lines, target, channels)


def _tolerate(lines: TextIO) -> None:
    # A broken byte spoils its cell, not the run.
    lines.reconfigure(encoding="utf-8-sig", errors="replace")  # type: ignore[attr-defined]


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []
