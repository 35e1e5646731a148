"""A thread that takes messages from where they wait and hands them to a carrier."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from edge_runtime.journal.cursor import Cursor
from edge_runtime.journal.reader import Reader
from edge_runtime.sinks.message import Wanted, everything

FAREWELL = 5.0
"""Seconds at the end for what still waits."""
_KEEP_EVERY = 10.0  # seconds between two cursors: what a crash may cause to be sent twice
_LOOK_AGAIN = 1.0  # seconds, while something is under way


class Carrier(Protocol):
    """Brings messages to one receiver, in order, several at a time, and never waits for it.

    A message under way is sent again by the carrier until the receiver has confirmed it.
    """

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
    log: takes one line when messages were lost, and when they wait at the end.
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
        self._reader, self._carrier, self._log = reader, carrier, log
        self._cursor, self._wanted = cursor, wanted
        self._told = 0  # lost messages that were told of
        self._kept_at = time.monotonic()
        self._cursor_fails = False
        self._wake = threading.Event()
        self._closing, self._given_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, name="posting", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

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
            self._log(f"{self.name}: the last {waits} records wait in the journal")

    def _serve(self) -> None:
        self._carrier.start(self.wake)
        while not self._finished():
            if not self._send_some():
                self._wake.wait(None if self._settled() else _LOOK_AGAIN)
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
        return self._reader.position if oldest is None else oldest - 1

    def _send_some(self) -> bool:
        entries = self._reader.read(self._carrier.room())
        if self._reader.lost > self._told:
            self._log(f"{self.name}: back; {self._reader.lost - self._told} records were dropped")
            self._told = self._reader.lost
        for entry in entries:
            if self._wanted(entry.message):
                self._carrier.send(entry.message, entry.sequence)
        return bool(entries)

    def _keep_when_due(self) -> None:
        if time.monotonic() - self._kept_at >= _KEEP_EVERY:
            self._keep()

    def _keep(self) -> None:
        self._kept_at = time.monotonic()
        if self._cursor is None:
            return
        try:
            self._cursor.keep(self._confirmed())
            self._cursor_fails = False
        except OSError as error:
            if not self._cursor_fails:
                self._log(f"journal: cannot keep what {self.name} has taken ({error.strerror})")
            self._cursor_fails = True
