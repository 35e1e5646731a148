"""A thread that takes messages from where they wait and hands them to a carrier."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from edge_runtime.journal.cursor import Cursor
from edge_runtime.journal.frames import Entry
from edge_runtime.journal.reader import Reader
from edge_runtime.limited_log import LimitedLog
from edge_runtime.sinks.message import Wanted, everything
from edge_runtime.threads import BEAT, WatchedThread

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
