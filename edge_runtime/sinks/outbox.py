"""The sink for networks: records wait, in memory or in a journal, until a carrier has sent them.

`message` makes the bytes that are sent of a record. `Outbox` puts them where they wait. `Sender`
passes them to a `Transport` in a thread of its own.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from edge_runtime.detector.alarm import AlarmCourse
from edge_runtime.errors import LimitedLog
from edge_runtime.journal.frames import Entry
from edge_runtime.journal.journal import Backlog, Cursor, Journal, Reader
from edge_runtime.record import Record
from edge_runtime.threads import BEAT, MonitoredThread

Wanted = Callable[[bytes], bool]
"""Whether to send a message; called once for each message, in order.

Raises ValueError for a message that `fields_of` refuses.
"""
FAREWELL = 5.0
"""Seconds that `close` waits for messages to be sent."""
_KEEP_EVERY = 10.0  # seconds between two cursor writes; a crash sends the messages since then twice
_LOOK_AGAIN = 1.0  # seconds, while a message is under way
_ATTEMPTS = 3  # of sending a message; one that breaks its carrier must not block the others

_FIELDS = {"run": str, "index": int, "tier": int, "valid": bool, "alarm": bool}


def message(run: str, record: Record) -> bytes:
    """Return the record's JSON with `run` as its first field.

    `run` and `index` identify a message that is sent twice: `run` is new after every start.
    """
    return f'{{"run":"{run}",{record.to_json()[1:]}'.encode()


def fields_of(message: bytes) -> Mapping[str, Any]:
    """Return the fields of a message, of this or any other version.

    Raises ValueError when it is not strict JSON or lacks a field that all versions have.
    """
    try:
        fields = json.loads(message, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("no JSON object")
    for name, kind in _FIELDS.items():
        if type(fields.get(name)) is not kind:
            raise ValueError(f"no field {name} of type {kind.__name__}")
    return fields


def everything(message: bytes) -> bool:
    """Want every message of a record."""
    fields_of(message)
    return True


class Changes:
    """Wants the first message of a run, and those with an event: the beginning and the end of an
    alarm, and where one that goes on is muted or no longer muted.

    Records of versions without events may wait in a journal, so the alarms are followed here, too.
    """

    def __init__(self) -> None:
        self._last: tuple[object, ...] | None = None
        self._course = AlarmCourse()
        self._muted = False  # the last message in alarm

    def __call__(self, message: bytes) -> bool:
        """See `Wanted`."""
        fields = fields_of(message)
        run, alarm = fields["run"], fields["alarm"]
        fresh = self._last is None or self._last[0] != run
        self._course = (AlarmCourse() if fresh else self._course).after(alarm)
        if alarm:
            flags = fields.get("flags")
            self._muted = isinstance(flags, list) and "MUTED" in flags
        going_on = self._course.going_on
        state = run, going_on, going_on and self._muted
        wanted, self._last = state != self._last, state
        return wanted


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of strict JSON")


class Transport(Protocol):
    """Sends messages to one receiver, in order, several at a time, without waiting for it.

    The carrier sends a message again until the receiver confirms it.
    """

    threads: tuple[MonitoredThread, ...]

    def start(self, wake: Callable[[], None]) -> None:
        """Start to connect. Call `wake` whenever `room` or `oldest` change."""

    def room(self) -> int:
        """Return how many more messages may be sent now."""

    def send(self, message: bytes, sequence: int) -> None:
        """Send one message; call only when there is room."""

    def oldest(self) -> int | None:
        """Return the number of the first unconfirmed message, None when all are confirmed."""

    def stop(self) -> None:
        """Disconnect, within about a second."""


class Sender:
    """Sends the messages of `reader` until it is closed.

    cursor: keeps on disk what was confirmed; None without a journal.
    log: takes one line when messages were lost or skipped, and when some wait at the end.
    skipped: messages that cannot be parsed or sent; they count as delivered, so that the next run
    does not meet them again.
    """

    def __init__(
        self,
        name: str,
        reader: Reader,
        carrier: Transport,
        log: Callable[[str], None],
        cursor: Cursor | None = None,
        wanted: Wanted = everything,
    ) -> None:
        self.name = name
        self.skipped = 0
        self._reader, self._carrier = reader, carrier
        self._log = LimitedLog(log, time.monotonic)
        self._final_log = log
        self._cursor, self._wanted = cursor, wanted
        self._taken: deque[Entry] = deque()  # wanted, not yet passed to the carrier
        self._attempts = 0  # of the first of them
        self._lost_logged = 0
        self._kept_at = time.monotonic()
        self._wake = threading.Event()
        self._closing, self._stopped = threading.Event(), threading.Event()
        self._thread = MonitoredThread(f"{name}, sending", self._serve)

    def start(self) -> None:
        """Start to send."""
        self._carrier.start(self.wake)
        self._thread.start()

    @property
    def threads(self) -> tuple[MonitoredThread, ...]:
        """The threads that send, keep the connection, and obey the owner."""
        return self._thread, *self._carrier.threads

    @property
    def dropped(self) -> int:
        """Unconfirmed messages that will not be sent again; exact after `close`."""
        waits = self._unconfirmed() if self._closing.is_set() and self._cursor is None else 0
        return self._reader.lost + waits

    def wake(self) -> None:
        """Wake the thread: there is something to send."""
        self._wake.set()

    def close(self) -> None:
        """Send what waits, for `FAREWELL` seconds at most, and disconnect."""
        self._closing.set()
        self._wake.set()
        self._thread.join(FAREWELL)
        self._stopped.set()
        self._wake.set()
        self._carrier.stop()
        self._thread.join(_LOOK_AGAIN)
        if self._cursor is not None and (waits := self._unconfirmed()):
            self._final_log(f"{self.name}: the last {waits} records wait in the journal")

    def _serve(self) -> None:
        while not self._finished():
            self._thread.beat()
            if not self._send_some():
                self._wake.wait(BEAT if self._settled() else _LOOK_AGAIN)
            self._wake.clear()
            self._keep_when_due()
        self._keep()

    def _finished(self) -> bool:
        done = self._closing.is_set() and not self._unconfirmed()
        return done or self._stopped.is_set()

    def _settled(self) -> bool:
        kept = self._cursor is None or self._cursor.kept == self._reader.position
        return kept and not self._unconfirmed()

    def _unconfirmed(self) -> int:
        return self._reader.waiting + self._reader.position - self._confirmed()

    def _confirmed(self) -> int:
        oldest = self._carrier.oldest()
        if oldest is None:
            oldest = self._taken[0].sequence if self._taken else self._reader.position + 1
        return oldest - 1

    def _send_some(self) -> bool:
        """Return whether any message was read. Can be called again after an exception."""
        taken = self._take() if not self._taken else 0
        while self._taken and self._carrier.room() > 0:
            entry = self._taken[0]
            self._attempts += 1
            if self._attempts > _ATTEMPTS:
                self._skip(entry, "it cannot be sent")
            else:
                self._carrier.send(entry.message, entry.sequence)
            self._taken.popleft()
            self._attempts = 0
        return taken > 0

    def _take(self) -> int:
        """Read the next messages and return how many."""
        entries = self._reader.read(self._carrier.room())
        if lost := self._reader.lost - self._lost_logged:
            self._log.trouble("lost", f"{self.name}: back; {lost} records were dropped")
            self._lost_logged = self._reader.lost
        for entry in entries:
            try:
                if self._wanted(entry.message):
                    self._taken.append(entry)
            except ValueError as error:
                self._skip(entry, f"it is no record of this version: {error}")
        return len(entries)

    def _skip(self, entry: Entry, why: str) -> None:
        self.skipped += 1
        self._log.trouble("skipped", f"{self.name}: entry {entry.sequence} is skipped; {why}")

    def _keep_when_due(self) -> None:
        if time.monotonic() - self._kept_at >= _KEEP_EVERY:
            self._keep()

    def _keep(self) -> None:
        self._kept_at = time.monotonic()
        if self._cursor is None:
            return
        try:
            self._cursor.keep(self._confirmed())
        except OSError as error:
            self._log.trouble(
                "cursor", f"journal: cannot keep what {self.name} has taken ({error.strerror})"
            )
        else:
            self._log.over(f"journal: keeps what {self.name} has taken again", "cursor")


class Outbox:
    """Records wait in memory or in a journal until each posting has sent them.

    waiting: a Backlog, where the oldest are dropped, or a Journal.
    wanted: the records to keep; None for all.
    """

    def __init__(
        self,
        run: str,
        waiting: Backlog | Journal,
        postings: Sequence[Sender],
        wanted: Wanted | None = None,
    ) -> None:
        self._run, self._waiting, self._wanted = run, waiting, wanted
        self._journal = waiting if isinstance(waiting, Journal) else None
        self._postings = tuple(postings)
        for posting in self._postings:
            waiting.wake_on_append(posting.wake)
            posting.start()

    @property
    def dropped(self) -> int:
        """Records missing on the disk, unconfirmed or dropped unsent; exact after `close`."""
        missing = self._journal.dropped if self._journal else 0
        return missing + sum(posting.dropped for posting in self._postings)

    @property
    def skipped(self) -> int:
        """Records that cannot be parsed or sent."""
        return sum(posting.skipped for posting in self._postings)

    @property
    def threads(self) -> Sequence[MonitoredThread]:
        """The threads that write, send, and keep the connections."""
        writing = [self._journal.thread] if self._journal else []
        return [*writing, *(thread for posting in self._postings for thread in posting.threads)]

    def write(self, record: Record) -> None:
        """Add one record, if it is wanted."""
        text = message(self._run, record)
        if self._wanted is None or self._wanted(text):
            self._waiting.append(text)

    def close(self) -> None:
        """Send what waits, for `FAREWELL` seconds at most; a journal keeps the rest."""
        for posting in self._postings:
            posting.close()
        if self._journal:
            self._journal.close()
