"""Follow the alarms of a run: announce them in its records, and remember the last ones.

The last alarms are in `alarms.json` in the state folder, sealed (`edge_runtime.plain`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.alarm import (
    MOST_BLAMED,
    Alarm,
    AlarmEvent,
    AlarmMoment,
    BlamedReading,
    upgraded,
)
from edge_runtime.detector.alarm import AlarmCourse
from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.plain import LARGEST, LARGEST_INTEGER, read_sealed, write_sealed
from edge_runtime.words import ENGLISH, alarm_text

if TYPE_CHECKING:  # the commands need no numpy
    from edge_runtime.bundle.manifest import FallbackConstants, Manifest
    from edge_runtime.record import Float32, Record

ALARMS = "alarms.json"
"""Name of the file in the state folder."""
CAPACITY = 64
"""Alarms that are remembered."""
BEGUN_EVERY, WRITE_EVERY = 10.0, 60.0
"""Seconds between two writes where an alarm has begun, and while one goes on."""


@dataclass(frozen=True)
class PastAlarms:
    """The last alarms, at most `CAPACITY`, oldest first."""

    alarms: tuple[Alarm, ...] = ()


@dataclass(frozen=True)
class KnownMachine:
    """The machine of a run. name: of its bundle; expected: lowest and highest reading by channel.

    `BlamedReading` says what is expected.
    """

    name: str = ""
    expected: Mapping[str, tuple[float, float]] | None = None

    @staticmethod
    def of(source: Manifest | FallbackConstants) -> KnownMachine:
        """Return the machine that a bundle describes."""
        from edge_runtime.bundle.manifest import UNLIMITED

        ranges = {}
        for channel, limit in zip(source.channels, source.fallback.range, strict=True):
            if limit < UNLIMITED:
                reach = limit * channel.scale
                ranges[channel.name] = (channel.center - reach, channel.center + reach)
        return KnownMachine(source.name, ranges)

    def reading(self, channel: str, value: float | None) -> BlamedReading:
        """Return a reading of a blamed channel, with what was expected."""
        low, high = (self.expected or {}).get(channel, (None, None))
        return BlamedReading(channel, value, low, high)


NO_MACHINE = KnownMachine()
"""What is watched while no bundle is known."""


def ignore_event(event: AlarmEvent) -> None:
    """Do nothing; the default `tell` callback."""


class AlarmLog:
    """Follows the records of a run.

    folder: where the alarms are kept; None keeps none. channels: of the samples, in their order.
    clock: monotonic seconds; wall: epoch seconds, None for a recording. log takes one line per
    event. tell takes each announced moment, once its record is out. machine: what is watched; a
    bundle that takes over replaces it. current: the alarm that goes on, None without one. No method
    raises.
    """

    def __init__(
        self,
        folder: Path | None,
        channels: Sequence[str],
        clock: Callable[[], float],
        wall: Callable[[], float] | None,
        log: Callable[[str], None],
        tell: Callable[[AlarmEvent], None] = ignore_event,
        language: str = ENGLISH,
    ) -> None:
        self.machine = NO_MACHINE
        self.current: Alarm | None = None
        self._file = None if folder is None else folder / ALARMS
        self._places = {name: place for place, name in enumerate(channels)}
        self._clock, self._wall, self._log = clock, wall, LimitedLog(log, clock)
        self._tell, self._language = tell, language
        self._course = AlarmCourse()
        self._written = self._load()
        # What was on when its run ended cannot go on: this run counts its records anew.
        self._alarms = PastAlarms(tuple(replace(a, over=True) for a in self._written.alarms))
        if self._alarms == self._written:
            self._alarms = self._written
        self._tried = clock() - WRITE_EVERY  # the last write

    def mark(self, record: Record, values: Float32) -> Record:
        """Return `record`, with an event where an alarm begins, has ended, or is muted or not.

        values: float32 [channels], the readings of its sample, NaN where missing.
        """
        before = self.current
        self._course = self._course.after(record.alarm)
        if record.alarm:
            self.current = self._with(before, record, values)
            self._keep(self.current, new=before is None)
        elif before is not None and not self._course.going_on:
            self._keep(replace(before, over=True), new=False)
            self.current = None
        moment = _moment(before, self.current)
        if moment is None:
            return record
        alarm = self._alarms.alarms[-1]
        event = AlarmEvent(moment, alarm, alarm_text(alarm, self._language))
        return replace(record, event=event)

    def tend(self, record: Record) -> None:
        """Tell of the event of `record`, which is out; write what changed, where that is due."""
        if record.event is not None:
            self._tell(record.event)
        if self._file is not None and self._alarms is not self._written:
            wait = WRITE_EVERY if self._is_known else BEGUN_EVERY
            if self._clock() - self._tried >= wait:
                self._write(self._file)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._file is not None and self._alarms is not self._written:
            self._write(self._file)

    @property
    def _is_known(self) -> bool:
        """Whether the last alarm is in the file, though maybe not its end."""
        written = self._written.alarms
        return bool(written) and self._alarms.alarms[-1].is_of(written[-1])

    def _with(self, alarm: Alarm | None, record: Record, values: Float32) -> Alarm:
        """Return the alarm after one more record in alarm; None: it begins with this one."""
        from edge_runtime.record import Flag

        now = 0.0 if self._wall is None else self._wall()
        at = _time_of(record, now)
        if alarm is None:
            name, index = self.machine.name, record.index
            alarm = Alarm(name, index, index, at, at, now, (), None)
        diagnosed = record.kind is not None
        return replace(
            alarm,
            last=record.index,
            end=at,
            blamed=self._blamed(alarm, record, values),
            kind=record.kind if diagnosed else alarm.kind,
            probability=record.probability if diagnosed else alarm.probability,
            sensor=record.sensor if diagnosed else alarm.sensor,
            valid=record.valid,
            recurring=Flag.RECURRING in record.flags,
            muted=Flag.MUTED in record.flags,
        )

    def _blamed(self, alarm: Alarm, record: Record, values: Float32) -> tuple[BlamedReading, ...]:
        found = {each.channel: each for each in alarm.blamed}
        for name in record.blamed:
            reading = self.machine.reading(name, self._value(name, values))
            found[name] = found[name].or_further(reading) if name in found else reading
        return tuple(found.values())[:MOST_BLAMED]

    def _value(self, name: str, values: Float32) -> float | None:
        place = self._places.get(name)
        value = math.nan if place is None else float(values[place])
        return value if abs(value) <= LARGEST else None  # also false for NaN

    def _keep(self, alarm: Alarm, new: bool) -> None:
        earlier = self._alarms.alarms if new else self._alarms.alarms[:-1]
        self._alarms = PastAlarms((*earlier, alarm)[-CAPACITY:])

    def _load(self) -> PastAlarms:
        try:
            return (self._file and _read(self._file)) or PastAlarms()
        except GruardError as error:
            self._log.trouble("load", f"{error}; alarms before this start cannot be marked")
            return PastAlarms()

    def _write(self, file: Path) -> None:
        self._tried, alarms = self._clock(), self._alarms
        lost = "alarms cannot be marked"
        if self._log.attempt_write(file, lambda: write_sealed(file, alarms), lost):
            self._written = alarms


def read_alarms(folder: Path) -> tuple[Alarm, ...]:
    """Return the alarms that a run keeps in its state folder, oldest first. Raises GruardError."""
    return (_read(folder / ALARMS) or PastAlarms()).alarms


def _read(file: Path) -> PastAlarms | None:
    return read_sealed(file, PastAlarms, upgrade=_upgraded)


def _upgraded(fields: dict[str, Any]) -> dict[str, Any]:
    alarms = fields.get("alarms")
    return fields | {"alarms": list(map(upgraded, alarms))} if isinstance(alarms, list) else fields


def _moment(before: Alarm | None, after: Alarm | None) -> AlarmMoment | None:
    """Return what is announced between two records, None for nothing."""
    if after is None:
        return None if before is None else "ended"
    if before is None:
        return "began"
    if before.muted is after.muted:
        return None
    return "muted" if after.muted else "unmuted"


def _time_of(record: Record, now: float) -> float:
    time = record.time
    # Also false for NaN; a larger double cannot represent every second.
    return time if time is not None and abs(time) <= LARGEST_INTEGER else now
