"""Records readings: one thread hands them over and never waits, another one writes them.

A full disk, a slow card or a card that fails costs readings, which are counted, and nothing else.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.journal.segments import JournalDisk
from edge_runtime.plain import UNPRINTABLE, write_sealed
from edge_runtime.readings.part_writer import PartWriter, refuse_other_channels, spare_room
from edge_runtime.readings.parts import CHANNELS_FILE, Contents, Part, read_channels
from edge_runtime.record import Record
from edge_runtime.sources.source import Reading, Source
from edge_runtime.threads import MonitoredThread

if TYPE_CHECKING:  # a recording without a run needs nothing of it
    from edge_runtime.supervision.supervisor import Observe, RunState

LENGTH = 10_000
"""Readings that wait for the disk; some 10 MB."""
FLUSH_EVERY = 5.0
"""Seconds of readings that a power cut may cost."""
FAREWELL = 5.0
"""Seconds that the disk may take at the end for what still waits."""
_DRAIN_LOOK = 0.005
"""Seconds between two looks at what still waits."""
_BATCH = 1000
"""Readings that are written at once."""
_LARGEST = 3.4e38  # of a float32
_LAST_SECOND = 253_402_300_799.0
_LOCK = "readings.lock"
_OWN_NAMES = re.compile(r"time|monotonic|label|anomaly|is_anomaly", re.IGNORECASE)


@dataclass(frozen=True)
class _Waiting:
    """A reading with the time it is recorded with; monotonic and wall: its arrival, in seconds."""

    time: float
    monotonic: float
    wall: float
    values: npt.NDArray[np.floating[Any]]


class Recorder:
    """Takes readings from one thread, and writes them in its own every `FLUSH_EVERY` seconds.

    A reading without a time gets the time of the last one that had one and what has passed since;
    a source that never tells times, the device's.
    order: indices of a reading's values that give the order of the folder's channels.
    clock: monotonic seconds; wall: epoch seconds. written: readings that are on the disk.
    lost: readings that found no place to wait in. Both are exact after `close`.
    """

    def __init__(
        self,
        parts: PartWriter,
        order: Sequence[int],
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.written = self.lost = 0
        self._parts, self._order, self._wall, self._release = parts, list(order), wall, release
        self._log = LimitedLog(log, clock)
        self._waiting: deque[_Waiting] = deque()
        self._lock = threading.Lock()
        self._told: tuple[float, float] | None = None  # the last time of the source, its arrival
        self._alarm = False
        self._works = True  # the disk took what was written last
        self._told_lost = 0
        self._wake, self._closing = threading.Event(), threading.Event()
        self.thread = MonitoredThread("readings", self._serve)
        self.thread.start()

    @property
    def full(self) -> bool:
        """Whether the next reading would be lost."""
        return len(self._waiting) >= LENGTH

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return self._parts.size

    def add(self, reading: Reading, now: float) -> None:
        """Record one reading that came at `now`, or count it as lost; never waits for the disk."""
        wall = self._wall()
        if reading.time is not None:
            self._told = reading.time, now
        told = (round(wall, 6), now) if self._told is None else self._told
        row = _Waiting(told[0] + (now - told[1]), now, wall, reading.values)
        with self._lock:
            if self.full:
                self.lost += 1
            else:
                self._waiting.append(row)
        if len(self._waiting) >= _BATCH or not self.written:  # the first shows that it works
            self._wake.set()

    def drain(self, most: int) -> None:
        """Wait until at most `most` readings wait, unless the disk does not take them."""
        while len(self._waiting) > most and self._works:
            self._wake.set()
            time.sleep(_DRAIN_LOOK)

    def alarm(self) -> None:
        """There is an alarm: keep the readings of this time longer."""
        with self._lock:
            self._alarm = True

    def before(self, observe: Observe) -> Observe:
        """What sees every record of a run, here and then in `observe`."""

        def see(record: Record, state: Callable[[], RunState]) -> None:
            if record.alarm:
                self.alarm()
            observe(record, state)

        return see

    def close(self) -> None:
        """Write what waits, for some seconds at most, and let others have the folder."""
        self._closing.set()
        self._wake.set()
        if self.thread.join(FAREWELL):
            self._parts.close()
            self._release()
        self.lost += len(self._waiting)
        self._waiting.clear()

    def _serve(self) -> None:
        while not self._closing.is_set():
            if self._works:
                self._wake.wait(FLUSH_EVERY)
            else:
                self._closing.wait(FLUSH_EVERY)
            self._wake.clear()
            self.thread.beat()
            self._works = self._write_out()
        self._write_out()

    def _write_out(self) -> bool:
        """Write all that waits; whether the disk took it."""
        while rows := self._batch():
            with self._lock:
                alarm, self._alarm = self._alarm, False
            try:
                self._parts.append("".join(map(self._line, rows)), utc_day(rows[0].wall), alarm)
            except OSError as error:
                if alarm:
                    self.alarm()
                waiting = f"{len(self._waiting)} wait in memory, {self.lost} are lost"
                self._log.trouble(
                    "write", f"readings: cannot be written ({error.strerror}); {waiting}"
                )
                return False
            with self._lock:
                for _ in rows:
                    self._waiting.popleft()
            self.written += len(rows)
            self.thread.beat()
            self._tell_of_losses()
        return True

    def _tell_of_losses(self) -> None:
        again = self._log.over(f"readings: are written again; {self.lost} are lost", "write")
        if self.lost > self._told_lost and not again:
            self._log.trouble("lost", f"readings: the disk is too slow; {self.lost} are lost")
        self._told_lost = self.lost

    def _batch(self) -> list[_Waiting]:
        with self._lock:
            return [*islice(self._waiting, _BATCH)]

    def _line(self, row: _Waiting) -> str:
        values = row.values[self._order]
        cells = ["" if math.isnan(value) else _text(value) for value in values.tolist()]
        return f"{row.time!r},{row.monotonic:.3f},{','.join(cells)}\n"


def _text(value: float) -> str:
    """The shortest text of a reading; of a float32 the shortest that gives the same float32."""
    small = abs(value) <= _LARGEST
    narrow = small and struct.unpack("f", struct.pack("f", value))[0] == value
    return str(np.float32(value)) if narrow else repr(value)


class RecordedSource:
    """`source`, whose readings are recorded as they come; a file waits for the disk.

    see: called with every reading and its monotonic time.
    """

    def __init__(
        self,
        source: Source,
        recorder: Recorder,
        clock: Callable[[], float] = time.monotonic,
        see: Callable[[Reading, float], None] = lambda reading, now: None,
    ) -> None:
        self.live = source.live
        self._source, self._recorder, self._clock, self._see = source, recorder, clock, see

    @property
    def threads(self) -> tuple[MonitoredThread, ...]:
        """Who reads, and who writes."""
        return (*getattr(self._source, "threads", ()), self._recorder.thread)

    def read(self, timeout: float | None) -> Reading | None:
        """The next reading; see Source."""
        reading = self._source.read(timeout)
        if reading is not None:
            if not self.live:
                self._recorder.drain(LENGTH - 1)
            now = self._clock()
            self._recorder.add(reading, now)
            self._see(reading, now)
        return reading

    def close(self) -> None:
        """Close the source, and write what waits."""
        self._source.close()
        self._recorder.close()


def open_recorder(
    folder: Path, channels: Sequence[str], capacity: int, log: Callable[[str], None]
) -> Recorder:
    """A recorder into `folder`, which is made if need be and is nobody else's until it is closed.

    capacity: bytes. Raises GruardError when another process records there, when it has readings of
    other channels, when it cannot be written, and for names that cannot be columns.
    """
    check_names(channels)
    try:
        folder.mkdir(exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        raise GruardError(
            f"{folder}: folder {folder.parent} does not exist; create it first"
        ) from None
    except OSError as error:
        raise GruardError(
            f"{folder}: cannot be a folder of readings ({error.strerror}); name another"
        ) from None
    try:
        return _locked_recorder(folder, channels, capacity, log, lock)
    except OSError as error:
        os.close(lock)
        raise GruardError(f"{folder}: cannot be read or written ({error.strerror})") from None
    except BaseException:
        os.close(lock)
        raise


def _locked_recorder(
    folder: Path, channels: Sequence[str], capacity: int, log: Callable[[str], None], lock: int
) -> Recorder:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise GruardError(
            f"{folder}: another process records here; give each a folder of its own"
        ) from None
    before = read_channels(folder)
    refuse_other_channels(folder, before, channels)
    kept = channels if before is None else before
    try:
        write_sealed(folder / CHANNELS_FILE, Contents(tuple(kept)))
    except OSError:
        if before is None:  # else the parts say them, and a full disk may have room again
            raise
    limited = LimitedLog(log, time.monotonic)

    def dropped(part: Part) -> None:
        limited.trouble(
            "full", f"{folder}: {capacity / 1e6:.0f} MB are full; dropped the oldest, {part.name}"
        )

    writer = PartWriter(
        JournalDisk(folder), kept, capacity, partial(spare_room, folder), log, dropped
    )
    order = [list(channels).index(name) for name in kept]
    return Recorder(writer, order, log, release=partial(os.close, lock))


def check_names(channels: Sequence[str]) -> None:
    """Raise GruardError unless the channels can be the columns of a recording."""
    if not channels:
        raise GruardError("the source has no channels to record; name them with --channels")
    for name in channels:
        if not name.strip() or name != name.strip() or UNPRINTABLE.search(name):
            raise GruardError(f"channel {name!r}: is not a name for a column; rename it")
        if _OWN_NAMES.fullmatch(name):
            raise GruardError(f"channel {name!r}: means something else in a recording; rename it")
    if twice := {name for name in channels if list(channels).count(name) > 1}:
        raise GruardError(f"channel {min(twice)!r}: is there twice; rename one")


def utc_day(wall: float) -> str:
    """The UTC day of an epoch time, between the years 1970 and 9999."""
    return time.strftime("%Y-%m-%d", time.gmtime(min(max(wall, 0.0), _LAST_SECOND)))
