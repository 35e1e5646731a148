"""One alarm, from its first to its last record, and the moments at which it is announced."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

MOST_BLAMED = 8
"""Channels of an alarm, at most."""
_FIRST_DATE, _LAST_DATE = 946_684_800.0, 4_102_444_800.0  # the years 2000 to 2100

AlarmMoment = Literal["began", "muted", "unmuted", "ended"]


def is_date(seconds: float) -> bool:
    """Return whether a time is epoch seconds, rather than seconds of some other clock."""
    return _FIRST_DATE <= seconds < _LAST_DATE


@dataclass(frozen=True)
class BlamedReading:
    """A channel that an alarm blames, in the channel's own unit.

    value: of all its readings while it was blamed, the one furthest from what was expected; None
    when all were missing. low, high: what was expected, the range of healthy rows with a margin
    (the range limit of the fallback); None where that is unknown.
    """

    channel: str
    value: float | None = None
    low: float | None = None
    high: float | None = None

    def or_further(self, other: BlamedReading) -> BlamedReading:
        """Return the one of the two that is further from what `other` expects."""
        return self if self._distance(other) > other._distance(other) else other

    def _distance(self, expected: BlamedReading) -> float:
        if self.value is None:
            return -1.0
        if expected.low is None or expected.high is None:
            return 0.0
        return abs(self.value - (expected.low + expected.high) / 2)


@dataclass(frozen=True)
class Alarm:
    """One alarm, also while it goes on.

    machine: the name of the bundle, empty when it is unknown.
    index, last: of its first and its last record in alarm, counted from the start of their run.
    start, end: times of these records in seconds, by the host's clock where they have none.
    began: epoch seconds of the first, by the host's clock; 0 in a run over a recording.
    blamed: by any of its records, the first ones first, at most `MOST_BLAMED`.
    kind, probability, sensor: as its records named them last; None where none did.
    valid: whether a healthy model gave its last record in alarm; None when that is unknown.
    recurring: such alarms began at this time of day before. muted: by the owner, at its last record
    in alarm. over: it has ended and cannot come back (`edge_runtime.detector.alarm`).
    """

    machine: str
    index: int
    last: int
    start: float
    end: float
    began: float
    blamed: tuple[BlamedReading, ...]
    kind: str | None
    probability: float | None = None
    sensor: bool | None = None
    valid: bool | None = None
    recurring: bool = False
    muted: bool = False
    over: bool = False

    @property
    def id(self) -> str:
        """The name of the alarm: `20261201T130210-464`, in UTC; in a recording `464`."""
        if not is_date(self.began):
            return str(self.index)
        return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(self.began))}-{self.index}"

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the blamed channels."""
        return tuple(each.channel for each in self.blamed)

    @property
    def key(self) -> tuple[int, float]:
        """What two moments of the same alarm have in common."""
        return self.index, self.began

    def is_of(self, other: Alarm) -> bool:
        """Whether both are the same alarm, maybe at two moments."""
        return self.key == other.key

    def fields(self) -> dict[str, Any]:
        """Return plain JSON types: `id`, the fields, names as `blamed` and values as `readings`."""
        content = {name: _rounded(value) for name, value in vars(self).items() if name != "blamed"}
        readings = [
            {name: _rounded(value) for name, value in vars(each).items()} for each in self.blamed
        ]
        return {"id": self.id, **content, "blamed": list(self.channels), "readings": readings}


def upgraded(fields: Any) -> Any:
    """Return a stored alarm, in which an older version named the channels only, as one of today."""
    if not isinstance(fields, dict) or "machine" in fields:
        return fields
    names = fields.get("blamed")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return fields  # it is damaged; `build` says how
    known = asdict(Alarm("", 0, 0, 0.0, 0.0, 0.0, (), None, over=True))
    return known | fields | {"blamed": [asdict(BlamedReading(name)) for name in names]}


@dataclass(frozen=True)
class AlarmEvent:
    """A moment of an alarm that is announced. text: the alarm in words, in the run's language."""

    moment: AlarmMoment
    alarm: Alarm
    text: str

    def fields(self) -> dict[str, Any]:
        """Return plain JSON types: the moment, the text, and the fields of the alarm."""
        return {"moment": self.moment, "text": self.text, **self.alarm.fields()}


def _rounded(value: Any) -> Any:
    """Return a float with 9 digits, or 16 for a date, which needs them; None if not finite."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return value if abs(value) >= _FIRST_DATE else float(f"{value:.9g}")
