"""Sinks whose records wait, in memory or in a journal, for who sends them.

What is sent over a network: a record's JSON, and which run it is of.

A thread that takes messages from where they wait and hands them to a carrier.
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
from edge_runtime.threads import BEAT, WatchedThread

Wanted = Callable[[bytes], bool]
"""Whether a message is to be sent; asked of each message once, in order.

Raises ValueError for one that `fields_of` does not understand.
"""

_FIELDS = {"run": str, "index": int, "tier": int, "valid": bool, "alarm": bool}


def message(run: str, record: Record) -> bytes:
    """The record's JSON with `run` before its fields. Both together tell a message that is sent
    again from a new one: `run` is another one after every start, `index` counts within it.
    """
    return f'{{"run":"{run}",{record.to_json()[1:]}'.encode()


def fields_of(message: bytes) -> Mapping[str, Any]:
    """The fields of a message, which may be of another version as long as it has those of every.

    Raises ValueError when it is none: damaged, not strict JSON, or of something else.
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
    """Wants all messages that are understood."""
    fields_of(message)
    return True


class Changes:
    """Wants the first message of a run, those with another tier or validity than the one before,
    and those where an alarm begins or is over.

    An alarm that clears is over once it can no longer come back (`edge_runtime.detector.alarm`).
    Where the receiver was last sent a message without alarm meanwhile, it is sent the return too.
    """

    def __init__(self) -> None:
        self._last: tuple[object, ...] | None = None
        self._course, self._told = AlarmCourse(), False

    def __call__(self, message: bytes) -> bool:
        """Whether something changed."""
        fields = fields_of(message)
        run, alarm = fields["run"], fields["alarm"]
        fresh = self._last is None or self._last[0] != run
        self._course = (AlarmCourse() if fresh else self._course).after(alarm)
        state = run, self._course.going_on, fields["tier"], fields["valid"]
        wanted = state != self._last or (alarm and not self._told)
        self._last = state
        if wanted:
            self._told = alarm
        return wanted


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of strict JSON")


FAREWELL = 5.0
"""Seconds at the end for what still waits."""
_KEEP_EVERY = 10.0  # seconds between two cursors: what a crash may cause to be sent twice
_LOOK_AGAIN = 1.0  # seconds, while something is under way
_ATTEMPTS = 3  # of sending a message; one that breaks its carrier must not hold up the others


class Carrier(Protocol):
    """Brings messages to one receiver, in order, several at a time, and never waits for it.

    A message under way is sent again by the carrier until the receiver has confirmed it.
    """

    thread: WatchedThread

    def start(self, wake: Callable[[], None]) -> None:
        """Begin to look for the receiver. `wake` is called whenever `room` or `oldest` change."""

    def room(self) -> int:
        """How many more messages may be under way now."""

    def send(self, message: bytes, sequence: int) -> None:
        """Send one message. Only when there is room."""

    def oldest(self) -> int | None:
        """The number of the first message that is not confirmed; None when all are."""

    def stop(self) -> None:
        """Take leave of the receiver, within about a second."""


class Posting:
    """Sends what `reader` finds until it is closed.

    cursor: where to keep on disk what was confirmed; None without a journal.
    log: takes one line when messages were lost or skipped, and when they wait at the end.
    skipped: messages that could not be understood, or that no carrier could take; they count as
    delivered, so that the next run does not meet them again.
    """

    def __init__(
        self,
        name: str,
        reader: Reader,
        carrier: Carrier,
        log: Callable[[str], None],
        cursor: Cursor | None = None,
        wanted: Wanted = everything,
    ) -> None:
        self.name = name
        self.skipped = 0
        self._reader, self._carrier = reader, carrier
        self._log = LimitedLog(log, time.monotonic)
        self._last_word = log
        self._cursor, self._wanted = cursor, wanted
        self._taken: deque[Entry] = deque()  # wanted, and not yet with the carrier
        self._attempts = 0  # of the first of them
        self._told = 0  # lost messages that were told of
        self._kept_at = time.monotonic()
        self._wake = threading.Event()
        self._closing, self._given_up = threading.Event(), threading.Event()
        self._thread = WatchedThread(f"{name}, sending", self._serve)

    def start(self) -> None:
        """Begin to send."""
        self._carrier.start(self.wake)
        self._thread.start()

    @property
    def threads(self) -> tuple[WatchedThread, ...]:
        """Who sends, and who keeps the connection."""
        return self._thread, self._carrier.thread

    @property
    def dropped(self) -> int:
        """Messages that were not confirmed and will not be sent again; exact after `close`."""
        waits = self._unconfirmed() if self._closing.is_set() and self._cursor is None else 0
        return self._reader.lost + waits

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()

    def close(self) -> None:
        """Send what waits, for some seconds at most, and take leave."""
        self._closing.set()
        self._wake.set()
        self._thread.join(FAREWELL)
        self._given_up.set()
        self._wake.set()
        self._carrier.stop()
        self._thread.join(_LOOK_AGAIN)
        if self._cursor is not None and (waits := self._unconfirmed()):
            self._last_word(f"{self.name}: the last {waits} records wait in the journal")

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
        return done or self._given_up.is_set()

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
        """Whether there was anything to do. After an exception it can be called again."""
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
        """Read the next messages; how many there were."""
        entries = self._reader.read(self._carrier.room())
        if lost := self._reader.lost - self._told:
            self._log.trouble("lost", f"{self.name}: back; {lost} records were dropped")
            self._told = self._reader.lost
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
    """Records wait in memory; the oldest give way. Only those that `wanted` wants get in."""

    def __init__(self, run: str, wanted: Wanted, backlog: Backlog, posting: Posting) -> None:
        self._run, self._wanted = run, wanted
        self._backlog, self._posting = backlog, posting
        backlog.wake_on_append(posting.wake)
        posting.start()

    @property
    def dropped(self) -> int:
        """Records that the receiver did not confirm; exact after `close`."""
        return self._posting.dropped

    @property
    def skipped(self) -> int:
        """Records that no carrier could take."""
        return self._posting.skipped

    @property
    def threads(self) -> Sequence[WatchedThread]:
        """Who sends, and who keeps the connection."""
        return self._posting.threads

    def write(self, record: Record) -> None:
        """Put one record where it waits."""
        text = message(self._run, record)
        if self._wanted(text):
            self._backlog.append(text)

    def close(self) -> None:
        """Send what waits, for some seconds at most."""
        self._posting.close()


class JournalSink:
    """All records go into the journal, and from there to everyone who sends them."""

    def __init__(self, run: str, journal: Journal, postings: Sequence[Posting]) -> None:
        self._run, self._journal, self._postings = run, journal, tuple(postings)
        for posting in self._postings:
            journal.wake_on_append(posting.wake)
            posting.start()

    @property
    def dropped(self) -> int:
        """Records missing on the disk, and those that gave way unsent; exact after `close`."""
        return self._journal.dropped + sum(posting.dropped for posting in self._postings)

    @property
    def skipped(self) -> int:
        """Entries that were not understood, or that no carrier could take."""
        return sum(posting.skipped for posting in self._postings)

    @property
    def threads(self) -> Sequence[WatchedThread]:
        """Who writes, who sends, and who keeps the connections."""
        sending = (thread for posting in self._postings for thread in posting.threads)
        return self._journal.thread, *sending

    def write(self, record: Record) -> None:
        """Put one record into the journal."""
        self._journal.append(message(self._run, record))

    def close(self) -> None:
        """Send what waits, for some seconds at most; what is left is sent by the next run."""
        for posting in self._postings:
            posting.close()
        self._journal.close()
