"""What is sent, what is confirmed, and that the cursor is never ahead of the latter."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from test_journal import PATIENCE, Log, journal_in

from edge_runtime.journal.cursor import Cursor
from edge_runtime.journal.disk import Disk
from edge_runtime.sinks.message import everything
from edge_runtime.sinks.posting import Posting


class FakeCarrier:
    """Has room for so many under way, and a receiver that confirms when the test says so."""

    def __init__(self, window: int) -> None:
        self.window, self.sent, self.open = window, list[int](), list[int]()
        self.changed = threading.Condition()
        self.wake: Callable[[], None] = lambda: None
        self.stopped = False

    def start(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def room(self) -> int:
        return self.window - len(self.open)

    def send(self, message: bytes, sequence: int) -> None:
        with self.changed:
            self.sent.append(sequence)
            self.open.append(sequence)
            self.changed.notify_all()

    def oldest(self) -> int | None:
        return min(self.open, default=None)

    def stop(self) -> None:
        self.stopped = True

    def wait_for_sent(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.sent) >= count, PATIENCE), self.sent

    def confirm(self, *sequences: int) -> None:
        for sequence in sequences:
            self.open.remove(sequence)
        self.wake()


@pytest.mark.parametrize("keep_every", [0.0, 1000.0])
def test_the_cursor_stays_behind_the_first_message_that_is_not_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_every: float
) -> None:
    monkeypatch.setattr("edge_runtime.sinks.posting.FAREWELL", 0.1)
    monkeypatch.setattr("edge_runtime.sinks.posting._KEEP_EVERY", keep_every)
    log, carrier, journal = Log(), FakeCarrier(4), journal_in(tmp_path)
    reader, cursor = journal.reader("a")
    posting = Posting("a", reader, carrier, log, cursor, everything)
    journal.wake_on_append(posting.wake)
    posting.start()
    for number in range(1, 11):
        journal.append(b"%d" % number)
    carrier.wait_for_sent(4)
    carrier.confirm(1, 2, 4)  # not 3
    carrier.wait_for_sent(7)
    assert carrier.sent == [1, 2, 3, 4, 5, 6, 7]
    posting.close()
    assert carrier.stopped
    assert Cursor(Disk(tmp_path), "a").found == 2
    assert log.lines == ["a: the last 8 records wait in the journal"] and posting.dropped == 0
    journal.close()


def test_what_nobody_wants_counts_as_taken(tmp_path: Path) -> None:
    log, carrier, journal = Log(), FakeCarrier(4), journal_in(tmp_path)
    reader, cursor = journal.reader("a")
    posting = Posting("a", reader, carrier, log, cursor, lambda message: message == b"7")
    posting.start()
    for number in range(1, 101):
        journal.append(b"%d" % number)
    posting.wake()
    carrier.wait_for_sent(1)
    carrier.confirm(7)
    posting.close()
    assert carrier.sent == [7] and log.lines == []
    assert Cursor(Disk(tmp_path), "a").found == 100
    journal.close()
