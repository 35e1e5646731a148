"""What the text of one CSV cell may mean: a number, a time or a label.

Every function raises ValueError (a time also OverflowError) for a text it cannot read.
"""

import math
from datetime import datetime, timezone

MISSING = frozenset({"", "nan", "na", "null", "none"})


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
    """A time: seconds as they stand, or epoch seconds of an ISO 8601 date (UTC without zone)."""
    try:
        value = float(text)
    except ValueError:
        # Python 3.10 does not know the suffix Z.
        moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        value = aware.timestamp()
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def label(text: str) -> float | None:
    """1.0 anomalous, 0.0 normal, None where the cell says nothing."""
    word = text.lower()
    if word in MISSING:
        return None
    value = {"false": 0.0, "true": 1.0}[word] if word in ("false", "true") else float(word)
    if value not in (0.0, 1.0):
        raise ValueError(text)
    return value
