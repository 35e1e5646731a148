"""One supervised run in a test: real or scripted worker, fake clock, and what must always hold."""

import io
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import faulty_worker
import numpy as np
import pytest

from edge_runtime.errors import Complaints
from edge_runtime.mute import MuteKeeper
from edge_runtime.record import Flag, Float32, Record, Sample
from edge_runtime.sinks.sink import SinkClosedError
from edge_runtime.sources.source import Reading
from edge_runtime.supervision import wire
from edge_runtime.supervision.change_keeper import ChangeKeeper
from edge_runtime.supervision.injection import Injections
from edge_runtime.supervision.liveness import Notifier
from edge_runtime.supervision.policy import AGREEING
from edge_runtime.supervision.summary import Console
from edge_runtime.supervision.supervisor import (
    Observe,
    RunEnvironment,
    RunTiming,
    ShadowDetector,
    Supervisor,
)
from edge_runtime.supervision.worker_manager import Exchange
from edge_runtime.supervision.worker_process import BundleIdentity, WorkerGoneError, WorkerProcess

PATIENT = 30.0  # no healthy answer takes so long, however busy the machine
HASTY = 0.3  # for faults that only a deadline can find
BACK = faulty_worker.WARMUP + AGREEING  # shadow samples until the model answers again


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class ListSink:
    dropped = 0

    def __init__(self, room: int | None = None) -> None:
        self.records: list[Record] = []
        self.room = room

    def write(self, record: Record) -> None:
        if len(self.records) == self.room:
            raise SinkClosedError
        self.records.append(record)

    def close(self) -> None:
        pass


class ListSource:
    """Readings one by one; `before(row)` runs before each, to move the clock or to wait."""

    def __init__(self, readings: list[Reading], before: Callable[[int], None], live: bool) -> None:
        self.readings, self.before, self.live, self.row = readings, before, live, 0

    def read(self, timeout: float | None) -> Reading | None:
        if self.row == len(self.readings):
            raise EOFError
        self.before(self.row)
        self.row += 1
        return self.readings[self.row - 1]

    def close(self) -> None:
        pass


class FakeFallback:
    repaired = 0

    def stand_at(self, centre: Sequence[float]) -> None:
        pass

    def step(self, sample: Sample) -> Record:
        alarm = faulty_worker.alarming(sample)
        blamed = ("a",) if alarm else ()
        return Record(
            sample.index, sample.time, 3, Flag.FALLBACK, False, 0.5, 1.0, alarm, (), (), blamed, ""
        )


class RememberingProcess(WorkerProcess):
    """Remembers every process it ever started."""

    def __init__(self, *commands: tuple[str, ...], identity: BundleIdentity) -> None:
        super().__init__(*commands, identity=identity)
        self.pids: list[int] = []

    def start(self) -> None:
        super().start()
        self.pids.append(self.pid)

    def wait_until_loaded(self) -> None:
        if self.pid:
            with suppress(WorkerGoneError):
                self.poll_ready(PATIENT)

    def wait_for_a_word(self) -> None:
        """Until the loading process has said something or ended; leaves it to be read."""
        if self.pid and self.hello is None:
            select.select([self._reply_fd], [], [], PATIENT)


class WatchedProcess(RememberingProcess):
    """Runs fake workers, each with its plan."""

    def __init__(self, *plans: str) -> None:
        super().__init__(
            *((sys.executable, faulty_worker.__file__, plan) for plan in plans),
            identity=faulty_worker.identity_of(plans[0]),
        )
        self.plan = plans[0]


class Run:
    """One supervised run with everything it left behind.

    values: a row each, one reading or the readings of all channels.
    """

    def __init__(
        self,
        process: WorkerProcess,
        rows: int = 12,
        deadline: float = PATIENT,
        times: list[float | None] | None = None,
        values: Sequence[float | Float32] | None = None,
        before: Callable[[int], None] = lambda row: None,
        room: int | None = None,
        injections: Injections | None = None,
        clock: Clock | None = None,
        interval: float | None = None,
        fallback: ShadowDetector | None = None,
        exchange: Exchange | None = None,
        observe: Observe = lambda record, state: None,
        live: bool = False,
        changes: ChangeKeeper | None = None,
        warmup: int = faulty_worker.WARMUP,
        mutes: MuteKeeper | None = None,
    ) -> None:
        times = [float(row) for row in range(rows)] if times is None else times
        values = [0.0] * len(times) if values is None else values
        readings = [
            Reading(t, np.array(v, np.float32, ndmin=1)) for t, v in zip(times, values, strict=True)
        ]
        self.process, self.clock = process, clock or Clock()
        self.sink, self.stderr = ListSink(room), io.StringIO()
        self.supervisor = Supervisor(
            ListSource(readings, before, live),
            Complaints(),
            self.sink,
            process,
            fallback or FakeFallback(),
            injections or Injections([], []),
            RunTiming(1, warmup, 1.0, deadline, interval),
            RunEnvironment(
                self.clock,
                self.clock.sleep,
                Console(self.stderr, self.clock),
                (Notifier({}, self.clock),),
                observe,
            ),
            exchange,
            changes,
            mutes=mutes,
        )

    def __call__(self) -> list[Record]:
        self.supervisor.run()
        check_promises(self.records)
        assert_gone(self.process)
        return self.records

    @property
    def records(self) -> list[Record]:
        return self.sink.records

    @property
    def log(self) -> str:
        return self.stderr.getvalue()


def check_promises(records: list[Record]) -> None:
    """I1 to I3: one record per index in order, and nothing that hides who answered."""
    assert [record.index for record in records] == list(range(len(records)))
    for record in records:
        if record.tier == 3:
            assert Flag.FALLBACK in record.flags and not record.valid
        else:
            assert record.model == faulty_worker.MODEL and record.score == record.index


def assert_gone(process: WorkerProcess) -> None:
    assert process.pid is None
    for pid in getattr(process, "pids", []):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def fallback_indices(records: list[Record]) -> list[int]:
    return [record.index for record in records if record.tier == 3]


HELLO = wire.Hello("scripted", 0.0, faulty_worker.DIGEST, faulty_worker.MODEL)


class ScriptedProcess:
    """A worker made of drawn outcomes, for properties over many runs."""

    def __init__(self, outcomes: Iterator[str], accelerated: bool = False) -> None:
        self.outcomes, self.pid, self.accelerated = outcomes, None, accelerated
        self.stage, self.told = "invoke", []
        self.bundle, self.change = faulty_worker.DIGEST, None

    def fall_back(self) -> bool:
        moved, self.accelerated = self.accelerated, False
        return moved

    def start(self) -> None:
        assert self.pid is None
        self.pid = 1
        self.told = []
        if next(self.outcomes) == "gone":
            self.pid = None
            raise WorkerGoneError("could not be started")

    def poll_ready(self, timeout: float = 0.0) -> wire.Hello | None:
        outcome = next(self.outcomes)
        if outcome == "gone":
            raise WorkerGoneError("ended")
        return None if outcome == "late" else HELLO

    def answer(self, sample: Sample, timeout: float) -> Record | None:
        outcome = next(self.outcomes)
        self.told = [each for each in self.told if each.index != sample.index]
        if outcome == "gone":
            raise WorkerGoneError("ended")
        return None if outcome == "late" else faulty_worker.model_record(sample)

    def tell(self, sample: Sample) -> None:
        self.told.append(sample)

    def hear(self, timeout: float) -> list[Record]:
        outcome = next(self.outcomes)
        if outcome == "gone":
            raise WorkerGoneError("ended")
        told, self.told = self.told, []
        return [] if outcome == "late" else [faulty_worker.model_record(s) for s in told]

    def send(self, message: wire.Reset | wire.Inject) -> None:
        if next(self.outcomes) == "gone":
            raise WorkerGoneError("ended")

    def resume(self) -> None:
        pass

    def accept(self, yes: bool) -> None:
        pass

    def stop(self) -> None:
        self.pid = None

    kill = stop
