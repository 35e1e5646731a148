"""The last alarms of a run, and what the owner says of them: a false alarm, or a real one.

The run keeps its last alarms in `alarms.json`, sealed (`edge_runtime.plain`). The owner's marks are
lines of `marks.jsonl`, each sealed by itself. Lines are only ever added; the last mark of an alarm
counts. A line that a power cut tore is skipped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.detector.alarm import AlarmCourse
from edge_runtime.errors import BusyError, GruardError, LimitedLog, reason
from edge_runtime.files import open_regular, read_regular, sync
from edge_runtime.plain import (
    LARGEST_INTEGER,
    SCHEMA,
    build,
    parse_json,
    read_sealed,
    seal,
    unseal,
    write_sealed,
)

if TYPE_CHECKING:  # the commands need no numpy
    from edge_runtime.record import Record

ALARMS, MARKS = "alarms.json", "marks.jsonl"
"""Names of the files in the state folder."""
CAPACITY, MOST_BLAMED = 64, 8
"""Alarms that are remembered, and channels of each."""
LARGEST_MARKS = 1 << 20
"""Bytes of all marks, some 2,000."""
BEGUN_EVERY, WRITE_EVERY = 10.0, 60.0
"""Seconds between two writes where an alarm has begun, and while one goes on."""


@dataclass(frozen=True)
class PastAlarm:
    """One alarm, also while it goes on.

    index, last: of its first and its last record in alarm, counted from the start of their run.
    start, end: times of these records in seconds, by the host's clock where they have none.
    began: epoch seconds of the first, by the host's clock.
    blamed: by any of its records, the first ones first. kind: named last, or None.
    """

    index: int
    last: int
    start: float
    end: float
    began: float
    blamed: tuple[str, ...]
    kind: str | None

    def is_of(self, other: PastAlarm) -> bool:
        """Whether both are the same alarm, maybe at two moments."""
        return (self.index, self.began) == (other.index, other.began)


@dataclass(frozen=True)
class PastAlarms:
    """The last alarms, at most `CAPACITY`, oldest first."""

    alarms: tuple[PastAlarm, ...] = ()


@dataclass(frozen=True)
class AlarmMark:
    """The owner's mark on an alarm: real or false. note: may be empty. told: epoch seconds."""

    alarm: PastAlarm
    real: bool
    note: str
    told: float


class AlarmLog:
    """Remember the last alarms over restarts.

    folder: where they are kept; None keeps none. clock: monotonic seconds; wall: epoch seconds. log
    takes one line per event. No method raises.
    """

    def __init__(
        self,
        folder: Path | None,
        clock: Callable[[], float],
        wall: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self._file = None if folder is None else folder / ALARMS
        self._clock, self._wall, self._log = clock, wall, LimitedLog(log, clock)
        self._course = AlarmCourse()
        self._alarms = self._written = self._load()
        self._tried = clock() - WRITE_EVERY  # the last write

    def after(self, record: Record) -> None:
        """Follow one record; write what changed, where that is due."""
        before, self._course = self._course.going_on, self._course.after(record.alarm)
        if self._file is None:
            return
        if record.alarm:
            earlier = self._alarms.alarms
            alarm = _extended(earlier[-1], record, self._wall) if before else None
            kept = earlier[:-1] if before else earlier
            alarm = alarm or _begun(record, self._wall())
            self._alarms = PastAlarms((*kept, alarm)[-CAPACITY:])
        if self._alarms is not self._written:
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

    def _load(self) -> PastAlarms:
        try:
            return (self._file and read_sealed(self._file, PastAlarms)) or PastAlarms()
        except GruardError as error:
            self._log.trouble("load", f"{error}; alarms before this start cannot be marked")
            return PastAlarms()

    def _write(self, file: Path) -> None:
        self._tried, alarms = self._clock(), self._alarms
        lost = "alarms cannot be marked"
        if self._log.attempt_write(file, lambda: write_sealed(file, alarms), lost):
            self._written = alarms


def _begun(record: Record, now: float) -> PastAlarm:
    time = _time_of(record, now)
    blamed = record.blamed[:MOST_BLAMED]
    return PastAlarm(record.index, record.index, time, time, now, blamed, record.kind)


def _extended(alarm: PastAlarm, record: Record, wall: Callable[[], float]) -> PastAlarm:
    blamed = tuple(dict.fromkeys((*alarm.blamed, *record.blamed)))[:MOST_BLAMED]
    return replace(
        alarm,
        last=record.index,
        end=_time_of(record, wall()),
        blamed=blamed,
        kind=record.kind or alarm.kind,
    )


def _time_of(record: Record, now: float) -> float:
    time = record.time
    # Also false for NaN; a larger double cannot represent every second.
    return time if time is not None and abs(time) <= LARGEST_INTEGER else now


def read_alarms(folder: Path) -> tuple[PastAlarm, ...]:
    """Return the alarms that a run keeps in its state folder, oldest first. Raises GruardError."""
    return (read_sealed(folder / ALARMS, PastAlarms) or PastAlarms()).alarms


def read_marks(folder: Path) -> tuple[list[AlarmMark], int]:
    """Return all marks, oldest first, and how many lines are damaged. Raises GruardError."""
    file, marks, damaged = folder / MARKS, list[AlarmMark](), 0
    try:
        lines = read_regular(file, 2 * LARGEST_MARKS).splitlines()
    except FileNotFoundError:
        return [], 0
    except (OSError, ValueError) as error:
        raise GruardError(f"{file}: cannot be read ({reason(error)})") from None
    for line in filter(None, lines):
        try:
            fields = unseal(parse_json(line))
            if fields.pop("schema", None) != SCHEMA:
                raise ValueError("of another version")
            marks.append(build(AlarmMark, fields, str(file)))
        except (ValueError, GruardError):
            damaged += 1
    return marks, damaged


def append_mark(folder: Path, mark: AlarmMark) -> None:
    """Add one mark, durably. Raises GruardError, BusyError while another process adds one."""
    file = folder / MARKS
    line = seal({"schema": SCHEMA, **asdict(mark)}).encode() + b"\n"
    try:
        descriptor = open_regular(file, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            _append(file, descriptor, line)
        finally:
            os.close(descriptor)
    except BlockingIOError:
        raise BusyError(f"{file}: another process adds a mark; try again") from None
    except OSError as error:
        raise GruardError(f"{file}: cannot be written ({reason(error)})") from None


def _append(file: Path, descriptor: int, line: bytes) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    size = os.fstat(descriptor).st_size
    if size + len(line) > LARGEST_MARKS:
        raise GruardError(f"{file}: is full; move it to where you keep recordings, and mark again")
    if size == 0 and os.geteuid() == 0:  # a service that is not root adds marks, too
        owner = file.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    data = b"\n" * torn + line
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError(None, "the disk is full")
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
    sync(file.parent)
