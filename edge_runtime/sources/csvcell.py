"""What the text of one CSV cell may mean: a number, a time or a label.

Every function raises ValueError (a time also OverflowError) for a text it cannot read.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from functools import lru_cache, partial

MISSING = frozenset({"", "nan", "na", "null", "none"})
_LEAP_SECOND = re.compile(r"(.{9,11}\d\d:\d\d:)60(.*)", re.ASCII)
_LONGEST_DATE = 64
"""Characters; 2024-01-01T00:00:00.000000+01:00 has 32."""
DAY_FIRST, MONTH_FIRST, SERIAL = "day first", "month first", "days since 1900"
"""How a column writes dates that have several meanings: 05/01/2026, or 46143.25 as in Excel."""
_CLOCK = (
    r"(?:[T ]\s*(\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s*([AaPp][Mm])?"
    r"\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?)?"
)
_YEAR_FIRST = re.compile(r"(\d{4})([-/])(\d\d?)\2(\d\d?)" + _CLOCK, re.ASCII)
_DOTTED = re.compile(r"(\d\d?)(\.)(\d\d?)\.(\d{4})" + _CLOCK, re.ASCII)
_DOTTED_SHORT = re.compile(r"(\d\d)(\.)(\d\d)\.(\d\d)" + _CLOCK, re.ASCII)
_SLASHED = re.compile(r"(\d\d?)([-/])(\d\d?)\2(\d{4}|\d\d)" + _CLOCK, re.ASCII)
_FIRST_SHORT_YEAR = 69
"""01.12.69 is of 1969 and 01.12.68 of 2068, as in POSIX."""
_TIME_OF_DAY = re.compile(r"\d\d?:\d\d(:\d\d([.,]\d{1,9})?)?", re.ASCII)
_FINE_DAYS = re.compile(r"\d{5}[.,]\d{5,}", re.ASCII)
"""A number of days to the second. A recording in seconds has no such digits at that size."""
_DAY_1970, _FIRST_DAY, _LAST_DAY = 25_569.0, 36_526.0, 73_051.0
"""1970, 2000 and 2100 in the days of a spreadsheet."""
_TO_THE_SECOND = re.compile(
    r"([\d./-]{8,10}[T ](?:[01]?\d|2[0-3]):\d\d):([0-5]\d)(?:[.,](\d{1,9}))?", re.ASCII
)
"""A date and time without zone: its minute, the second, the fraction."""
_FIRST_EPOCH, _LAST_EPOCH = 946_684_800.0, 4_102_444_800.0
"""The years 2000 to 2100 in seconds: an epoch time in a finer unit is told by its size."""
_FINER = (1e3, 1e6, 1e9)  # milli-, micro- and nanoseconds


def number(text: str) -> float:
    """A reading; NaN where it is missing, infinities kept."""
    try:
        value = float(text)
    except ValueError:
        if text.strip().lower() in MISSING:
            return math.nan
        raise
    if "_" in text:  # Python reads 1_000 as a number; in a recording it is a typing error
        raise ValueError(text)
    return value


def comma_number(text: str) -> float:
    """As `number`, with a decimal comma. A point may be a decimal or a thousand: refused."""
    if "." in text:
        raise ValueError(text)
    return number(text.replace(",", ".", 1))


def either_number(text: str) -> float:
    """As `number`, with a decimal point or a decimal comma."""
    return comma_number(text) if "," in text else number(text)


def reads(read: Callable[[str], float], text: str) -> bool:
    """Whether `read` can read the text."""
    try:
        read(text)
    except (ValueError, OverflowError):
        return False
    return True


def is_number(text: str) -> bool:
    """Whether `number` can read the text."""
    return reads(number, text)


def is_date(text: str) -> bool:
    """Whether the text is a date, and no number."""
    return not is_number(text) and (reads(_epoch_seconds, text) or bool(_orders(text)))


def is_day(text: str) -> bool:
    """Whether the text is a date without a time of day."""
    return ":" not in text and is_date(text)


def is_time_of_day(text: str) -> bool:
    """Whether the text is hh:mm or hh:mm:ss."""
    return _TIME_OF_DAY.fullmatch(text) is not None


def is_epoch(text: str) -> bool:
    """Whether the text is a number that is a time of this century, in any unit."""
    return is_number(text) and _FIRST_EPOCH <= _in_seconds(number(text)) < _LAST_EPOCH


def is_serial(text: str) -> bool:
    """Whether the text is a number of days since 1900 to the second, of this century."""
    found = _FINE_DAYS.fullmatch(text) is not None
    return found and _FIRST_DAY <= float(text.replace(",", ".")) < _LAST_DAY


def date_orders(texts: Iterable[str]) -> tuple[str, ...]:
    """The orders in which most dates like 05/01/2026 among `texts` can be read; the likelier first.

    Empty where no text is such a date.
    """
    counts = Counter(way for text in texts for way in _orders(text))
    return tuple(way for way in (DAY_FIRST, MONTH_FIRST) if 0 < counts[way] == max(counts.values()))


def _orders(text: str) -> tuple[str, ...]:
    if len(text) > _LONGEST_DATE or _SLASHED.fullmatch(text) is None:
        return ()
    ways = (DAY_FIRST, MONTH_FIRST)
    return tuple(way for way in ways if reads(partial(_epoch_seconds, dates=way), text))


def seconds(text: str, read: Callable[[str], float] = number, dates: str = "") -> float:
    """A time: a number of seconds, or the epoch seconds of a date (UTC without zone).

    Dates are ISO 8601, also with slashes, dd.mm.yyyy or dd.mm.yy, with a time or without, and in
    the order of `dates` dd/mm/yyyy or mm/dd/yyyy; with `SERIAL`, numbers are days since 1900. A
    number of this century's milli-, micro- or nanoseconds since 1970 is taken as such. `read` reads
    a number. The result is finite. A leap second, 23:59:60, is the second after 23:59:59.
    """
    if found := _TO_THE_SECOND.fullmatch(text):
        minute, second, fraction = found.groups()
        microseconds = int(f"{fraction[:6]:0<6}") if fraction else 0
        return ((_minute(minute, dates) + int(second)) * 1_000_000 + microseconds) / 1_000_000
    try:
        value = read(text)
        value = round((value - _DAY_1970) * 86400, 3) if dates == SERIAL else _in_seconds(value)
    except ValueError:
        value = _epoch_seconds(text, dates)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


@lru_cache(maxsize=64)
def _minute(text: str, dates: str) -> int:
    """The epoch seconds of a minute: rows of one minute share it, so it is rarely read anew."""
    return int(_epoch_seconds(text, dates))


def _in_seconds(value: float) -> float:
    if value < _FIRST_EPOCH * _FINER[0]:
        return value
    fits = [unit for unit in _FINER if _FIRST_EPOCH * unit <= value < _LAST_EPOCH * unit]
    return value / fits[0] if fits else value


def _epoch_seconds(text: str, dates: str = "") -> float:
    if len(text) > _LONGEST_DATE:
        raise ValueError(text[:_LONGEST_DATE])
    leap = _LEAP_SECOND.fullmatch(text)
    if leap:
        text = f"{leap[1]}59{leap[2]}"
    try:  # Python 3.10 does not know the suffix Z.
        moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        moment = datetime.fromisoformat(_iso(text, dates))
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return aware.timestamp() + (1.0 if leap else 0.0)


def _iso(text: str, dates: str) -> str:
    """A date of another spelling as every Python reads it; microseconds at the finest."""
    if found := _YEAR_FIRST.fullmatch(text):
        year, _, month, day = found.groups()[:4]
    elif found := _DOTTED.fullmatch(text):
        day, _, month, year = found.groups()[:4]
    elif found := _DOTTED_SHORT.fullmatch(text):
        day, _, month, year = found.groups()[:4]
        year = _full_year(year)
    elif dates in (DAY_FIRST, MONTH_FIRST) and (found := _SLASHED.fullmatch(text)):
        first, _, second, year = found.groups()[:4]
        day, month = (first, second) if dates == DAY_FIRST else (second, first)
        year = _full_year(year)
    else:
        raise ValueError(text)
    hour, minute, second, fraction, half, zone = found.groups()[4:]
    date = f"{year}-{month:0>2}-{day:0>2}"
    if hour is None:
        return date
    if half:
        hour = _hour_of_24(hour, half)
    if zone in ("Z", "UTC"):
        zone = "+00:00"
    elif zone:
        zone = f"{zone[:3]}:{zone[3:].lstrip(':') or '00'}"
    clock = f"{hour:0>2}:{minute}:{second or '00'}.{(fraction or '')[:6]:0<6}"
    return f"{date}T{clock}{zone or ''}"


def _full_year(year: str) -> str:
    if len(year) == 4:
        return year
    return f"{19 if int(year) >= _FIRST_SHORT_YEAR else 20}{year}"


def _hour_of_24(hour: str, half: str) -> str:
    """12 AM is 0 and 12 PM is 12."""
    if not 1 <= int(hour) <= 12:
        raise ValueError(f"{hour} {half}")
    return str(int(hour) % 12 + (12 if half.lower() == "pm" else 0))


def label(text: str) -> int:
    """1 anomalous, 0 normal."""
    word = text.strip().lower()
    value = {"false": 0.0, "true": 1.0}[word] if word in ("false", "true") else float(word)
    if value not in (0.0, 1.0):
        raise ValueError(text)
    return int(value)
