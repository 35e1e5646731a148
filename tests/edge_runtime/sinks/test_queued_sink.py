"""The queue before a sink: the loop goes on whatever the sink does, and every loss is counted."""

import threading
from dataclasses import replace

import faulty_worker
import numpy as np
import pytest

from edge_runtime.record import Record, Sample
from edge_runtime.sinks.sink import Queued, Several, SinkClosedError

RECORD = faulty_worker.model_record(Sample(0, 0.0, np.zeros(1, np.float32)))


class SlowSink:
    """Writes when it is let through; `entered` tells that it is waiting for that."""

    dropped = 0

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.closed = self.leaving = False

    def write(self, record: Record) -> None:
        self.entered.set()
        self.gate.wait()
        if self.leaving:
            raise SinkClosedError
        self.records.append(record)

    def close(self) -> None:
        self.closed = True


def numbered(index: int) -> Record:
    return replace(RECORD, index=index)


def test_a_slow_sink_loses_the_newest_and_says_so_when_it_is_back() -> None:
    sink, log = SlowSink(), list[str]()
    queued = Queued(sink, log.append, length=3)
    queued.write(numbered(0))
    sink.entered.wait()
    for index in range(1, 8):  # 0 is in the sink's hands, 1 to 3 wait, the others find no room
        queued.write(numbered(index))
    assert queued.dropped == 4
    assert log == ["a sink does not keep up: records from 4 on are dropped"]
    sink.gate.set()
    while queued.waiting:
        sink.entered.wait()
    queued.write(numbered(8))
    assert log[1] == "the sink is back: 4 records were dropped"
    queued.close()
    assert [record.index for record in sink.records] == [0, 1, 2, 3, 8]
    assert queued.dropped == 4 and sink.closed


def test_what_waits_is_written_at_the_end() -> None:
    sink = SlowSink()
    queued = Queued(sink, lambda _: None)
    for index in range(100):
        queued.write(numbered(index))
    sink.gate.set()
    queued.close()
    assert [record.index for record in sink.records] == list(range(100))
    assert sink.closed and queued.dropped == 0


def test_a_sink_that_hangs_for_ever_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge_runtime.sinks.sink.FAREWELL", 0.01)
    sink = SlowSink()
    queued = Queued(sink, lambda _: None, length=5)
    queued.write(numbered(0))
    sink.entered.wait()
    for index in range(1, 4):
        queued.write(numbered(index))
    queued.close()
    assert queued.dropped == 4
    assert not sink.closed
    sink.gate.set()


def test_a_thread_that_never_began_has_lost_what_waits_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge_runtime.sinks.sink.FAREWELL", 0.01)
    # The system took it, and it found no memory to begin with.
    monkeypatch.setattr("_thread.start_new_thread", lambda *begin: 1)
    queued = Queued(SlowSink(), lambda _: None)
    for index in range(30):
        queued.write(numbered(index))
    queued.close()
    assert queued.dropped == 30


def test_a_reader_that_leaves_ends_the_run() -> None:
    sink = SlowSink()
    sink.leaving = True
    queued = Queued(sink, lambda _: None)
    sink.gate.set()
    queued.write(numbered(0))
    queued.close()
    with pytest.raises(SinkClosedError):
        queued.write(numbered(1))


def test_several_sinks_get_every_record_and_count_together() -> None:
    first, second = SlowSink(), SlowSink()
    first.gate.set(), second.gate.set()
    first.dropped = second.dropped = 2
    both = Several([first, second])
    both.write(numbered(7))
    both.close()
    assert first.records == second.records == [numbered(7)]
    assert both.dropped == 4 and first.closed and second.closed
