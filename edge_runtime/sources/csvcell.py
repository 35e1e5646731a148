"""What the text of one CSV cell may mean: a number, a time or a label.

Every function raises ValueError (a time also OverflowError) for a text it cannot read.
"""

import math
import re
from datetime import datetime, timezone

MISSING = frozenset({"", "nan", "na", "null", "none"})
_LEAP_SECOND = re.compile(r"(.{11}\d\d:\d\d:)60(.*)", re.ASCII)
_LONGEST_DATE = 64
"""Characters; 2024-01-01T00:00:00.000000+01:00 has 32."""


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


def is_number(text: str) -> bool:
    """Whether `number` can read the text."""
    try:
        number(text)
    except ValueError:
        return False
    return True


def seconds(text: str) -> float:
    """A time: seconds as they stand, or epoch seconds of an ISO 8601 date (UTC without zone).

    The result is finite. A leap second, 23:59:60, is the second after 23:59:59.
    """
    try:
        value = number(text)
    except ValueError:
        value = _epoch_seconds(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _epoch_seconds(text: str) -> float:
    if len(text) > _LONGEST_DATE:
        raise ValueError(text[:_LONGEST_DATE])
    leap = _LEAP_SECOND.fullmatch(text)
    if leap:
        text = f"{leap[1]}59{leap[2]}"
    # Python 3.10 does not know the suffix Z.
    moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return aware.timestamp() + (1.0 if leap else 0.0)


def label(text: str) -> float | None:
    """1.0 anomalous, 0.0 normal, None where the cell says nothing."""
    word = text.lower()
    if word in MISSING:
        return None
    value = {"false": 0.0, "true": 1.0}[word] if word in ("false", "true") else float(word)
    if value not in (0.0, 1.0):
        raise ValueError(text)
    return value
