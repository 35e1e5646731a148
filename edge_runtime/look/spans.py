"""Spans of a recording, as people read and write them: `1500..8000`, `2026-05-01 04:10..22:13`."""

from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import GruardError, quoted
from edge_runtime.sources import csvcell

Bools = npt.NDArray[np.bool_]

FIRST_DATE = 946_684_800.0
"""Times from here on are dates, of the year 2000 and later; below they are seconds of a clock."""
BY_MINUTE = 3600.0  # seconds; a longer span is written to the minute
_HOW = (
    "write FROM..TO in rows ('1500..8000', the first row is 0) or in dates "
    "('2026-05-01 04:10..22:13'); FROM is included, TO is not"
)


@dataclass(frozen=True)
class Span:
    """Rows or epoch seconds from `start` up to, not including, `stop`; text: as it was written."""

    text: str
    start: float
    stop: float
    in_rows: bool

    def covers(self, rows: npt.NDArray[np.intp], times: npt.NDArray[np.float64] | None) -> Bools:
        """Which of `rows` at `times` lie in the span; none by date where times are unknown."""
        places = rows if self.in_rows else times
        if places is None:
            return np.zeros(len(rows), bool)
        return (places >= self.start) & (places < self.stop)


def parse_span(text: str) -> Span:
    """Read `FROM..TO`: rows, or dates as a recording has them; a TO without date is on FROM's day.

    Raises GruardError for anything else.
    """
    first, _, last = (part.strip() for part in text.partition(".."))
    if first.isdecimal() and last.isdecimal() and len(first + last) < 30:
        span = Span(text, int(first), int(last), in_rows=True)
    else:
        if csvcell.is_time_of_day(last):
            last = f"{first.replace('T', ' ').partition(' ')[0]} {last}"
        if not (csvcell.is_date(first) and csvcell.is_date(last)):
            raise GruardError(f"{quoted(text)} is no span; {_HOW}")
        span = Span(text, csvcell.seconds(first), csvcell.seconds(last), in_rows=False)
    if not span.start < span.stop:
        raise GruardError(f"{quoted(text)} ends before it begins; {_HOW}")
    return span


def span_of(start: int, stop: int, first: float | None, last: float | None) -> str:
    """Rows from `start` to `stop`, at times `first` to `last`, as `parse_span` reads them.

    In dates where the times are dates, rounded outwards; else in rows.
    """
    if first is None or last is None or first < FIRST_DATE:
        return f"{start}..{stop}"
    unit, clock = (60, "%H:%M") if last - first > BY_MINUTE else (1, "%H:%M:%S")
    begin, end = _date(first // unit * unit), _date(-(-last // unit) * unit)
    day = "" if begin.date() == end.date() else "%Y-%m-%d "
    return f"{begin:%Y-%m-%d {clock}}..{end:{day}{clock}}"


def span_in_words(first: float | None, last: float | None) -> str:
    """The same for a sentence, `1 May 04:10 to 22:13`; empty for times that are no dates."""
    if first is None or last is None or first < FIRST_DATE:
        return ""
    begin, end = _date(first), _date(last)
    day = "" if begin.date() == end.date() else f"{end.day} {end:%b} "
    return f"{begin.day} {begin:%b %H:%M} to {day}{end:%H:%M}"


def moment(time: float) -> str:
    """One time: a date and time of day, or seconds."""
    return f"{_date(time):%Y-%m-%d %H:%M:%S}" if time >= FIRST_DATE else f"{time:.9g} s"


def _date(time: float) -> datetime:
    return datetime.fromtimestamp(time, timezone.utc)
