"""What is sent, what is confirmed, and that the cursor is never ahead of the latter."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from made_journal import PATIENCE, Log, journal_in

from edge_runtime.journal.journal import Cursor
from edge_runtime.journal.segments import JournalDisk
from edge_runtime.sinks.outbox import Changes, Sender, Wanted, everything
from edge_runtime.threads import MonitoredThread


def of(index: int, alarm: bool = False, run: str = "a", tier: int = 1) -> bytes:
    """A message with the fields that every version has."""
    fields = {"run": run, "index": index, "tier": tier, "valid": True, "alarm": alarm, "new": [1]}
    return json.dumps(fields).encode()


class FakeCarrier:
    """Has room for so many under way, and a receiver that confirms when the test says so."""

    def __init__(self, window: int) -> None:
        self.threads = (MonitoredThread("carrier", lambda: None),)
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
    monkeypatch.setattr("edge_runtime.sinks.outbox.FAREWELL", 0.1)
    monkeypatch.setattr("edge_runtime.sinks.outbox._KEEP_EVERY", keep_every)
    log, carrier, journal = Log(), FakeCarrier(4), journal_in(tmp_path)
    reader, cursor = journal.reader("a")
    posting = Sender("a", reader, carrier, log, cursor, lambda message: True)
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
    assert Cursor(JournalDisk(tmp_path), "a").found == 2
    assert log.lines == ["a: the last 8 records wait in the journal"] and posting.dropped == 0
    journal.close()


FOREIGN = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[1]",
    b"{}",
    b'{"record":7}',
    b"[" * 100_000,
    b'{"run":"a","index":"7","tier":1,"valid":true,"alarm":false}',
    b'{"run":"a","index":7,"tier":1,"valid":true,"alarm":false,"score":NaN}',
    b'{"run":"a","index":7,"tier":1,"valid":true}',
]


@pytest.mark.parametrize("wanted", [everything, Changes()])
def test_entries_that_are_no_records_are_skipped_and_delivery_goes_on(
    tmp_path: Path, wanted: Wanted
) -> None:
    log, carrier, journal = Log(), FakeCarrier(1000), journal_in(tmp_path)
    reader, cursor = journal.reader("a")
    posting = Sender("a", reader, carrier, log, cursor, wanted)
    posting.start()
    for message in (of(0), *FOREIGN, of(1, alarm=True)):
        journal.append(message)
    posting.wake()
    carrier.wait_for_sent(2)
    carrier.confirm(1, len(FOREIGN) + 2)
    posting.close()
    assert carrier.sent == [1, len(FOREIGN) + 2] and posting.skipped == len(FOREIGN)
    assert posting.dropped == 0 and len(log.lines) == 1
    assert "a: entry 2 is skipped; it is no record of this version" in log.lines[0]
    assert (
        Cursor(JournalDisk(tmp_path), "a").found == len(FOREIGN) + 2
    )  # the next run has none of them
    journal.close()


class PoisonedCarrier(FakeCarrier):
    """Raises whenever it is given one of these."""

    def __init__(self, *poisoned: int) -> None:
        super().__init__(1000)
        self.poisoned, self.tried = poisoned, 0

    def send(self, message: bytes, sequence: int) -> None:
        if sequence in self.poisoned:
            self.tried += 1
            raise KeyError("a bug of somebody's")
        super().send(message, sequence)


def test_an_entry_that_ends_the_thread_each_time_is_skipped_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.threads.BACK_OFF", (0.0,))
    log, carrier, journal = Log(), PoisonedCarrier(3), journal_in(tmp_path)
    reader, cursor = journal.reader("a")
    posting = Sender("a", reader, carrier, log, cursor, lambda message: True)
    posting.start()
    for index in range(5):
        journal.append(of(index, tier=1 + index % 2))
    posting.wake()
    carrier.wait_for_sent(4)
    carrier.confirm(1, 2, 4, 5)
    posting.close()
    assert carrier.sent == [1, 2, 4, 5] and carrier.tried == 3
    thread = posting.threads[0]
    assert (thread.restarts, thread.ended) == (3, True) and "KeyError" in str(thread.error)
    assert posting.skipped == 1 and "a: entry 3 is skipped; it cannot be sent" in log.lines
    assert Cursor(JournalDisk(tmp_path), "a").found == 5
    journal.close()


def test_what_nobody_wants_counts_as_taken(tmp_path: Path) -> None:
    log, carrier, journal = Log(), FakeCarrier(4), journal_in(tmp_path)
    reader, cursor = journal.reader("a")
    posting = Sender("a", reader, carrier, log, cursor, lambda message: message == b"7")
    posting.start()
    for number in range(1, 101):
        journal.append(b"%d" % number)
    posting.wake()
    carrier.wait_for_sent(1)
    carrier.confirm(7)
    posting.close()
    assert carrier.sent == [7] and log.lines == []
    assert Cursor(JournalDisk(tmp_path), "a").found == 100
    journal.close()
