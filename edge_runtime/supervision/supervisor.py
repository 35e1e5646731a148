"""The main loop: every sample gets exactly one record, from the worker or from the fallback.

The fallback shadows every sample. The worker answers while it is in service; while it is late,
gone or on probation, the fallback's record is written instead, flagged as such.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_runtime.alarm import Alarm
from edge_runtime.alarms.log import AlarmLog
from edge_runtime.detector.lasting_change import Finding, LastingChange
from edge_runtime.errors import Complaints
from edge_runtime.mute import Mute, MuteKeeper
from edge_runtime.record import Flag, Record, Sample, unjudged
from edge_runtime.recurring_alarms import RecurringKeeper
from edge_runtime.sinks.sink import Sink, SinkClosedError
from edge_runtime.sources.sample_clock import SampleClock, TimeSlot
from edge_runtime.sources.source import Source
from edge_runtime.supervision.change_keeper import ChangeKeeper
from edge_runtime.supervision.injection import Injections
from edge_runtime.supervision.liveness import Listener
from edge_runtime.supervision.policy import Terms, WorkerPhase
from edge_runtime.supervision.summary import Console, Summary
from edge_runtime.supervision.worker_manager import (
    Exchange,
    NoExchange,
    ShadowDetector,
    WorkerManager,
)
from edge_runtime.supervision.worker_process import WorkerProcess

STEP_LINES = 60.0
"""Seconds between two log lines about steps of the source's clock."""


@dataclass(frozen=True)
class RunTiming:
    """The times of a run, in seconds, and what the bundle says about its samples.

    channels: their number. warmup: samples until the model's state has settled.
    period: between samples, by the source's clock; None when unknown.
    deadline: for the model's answer to one sample.
    interval: between two readings of a paced source; None takes them as they come.
    """

    channels: int
    warmup: int
    period: float | None
    deadline: float
    interval: float | None = None

    def terms(self, live: bool) -> Terms:
        """Return the time limits of a worker, for a source that is `live` or not."""
        waits = not live and self.interval is None
        return Terms(self.deadline, self.warmup, waits, self.period or 1.0)


@dataclass(frozen=True)
class RunState:
    """The state of a run after a record. kernel: of the model, empty before its HELLO.

    waiting: why there is no worker, and when the next one starts; empty while there is one.
    away: which source is away and why, None while it is not.
    finding: the lasting change that was reported, None without one. mute: that holds now, or None.
    alarm: that goes on, None without one.
    The summary is the run's own object and keeps changing.
    """

    summary: Summary
    phase: WorkerPhase
    kernel: str
    waiting: str = ""
    away: str | None = None
    finding: Finding | None = None
    mute: Mute | None = None
    alarm: Alarm | None = None


Observe = Callable[[Record, Callable[[], RunState]], None]
"""Called with every record that is out; may ask for the state. Must neither wait nor raise."""
Turn = Callable[[Callable[[], RunState]], None]
"""Called once per turn of the loop, at least once a second. Must neither wait nor raise."""
TURN_EVERY = 1.0
"""Seconds to wait for the source in one turn of the loop, at most."""


@dataclass(frozen=True)
class RunEnvironment:
    """The outside world of a run: clock, sleep, terminal, listeners, and observers of records."""

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    console: Console
    listeners: Sequence[Listener]
    observe: Observe = lambda record, state: None
    turn: Turn = lambda state: None


def answer_deadline(period: float | None) -> float:
    """Return the seconds that the model may take: one period, but at least 0.05 and at most 1.

    The lower bound allows for scheduling noise on a busy small device. With the upper one a hang is
    noticed within seconds, even if samples are minutes apart.
    """
    return 1.0 if period is None else min(max(period, 0.05), 1.0)


class Supervisor:
    """Answers all samples of a source. `summary` is always up to date, also after an exception."""

    def __init__(
        self,
        source: Source,
        complaints: Complaints,
        sink: Sink,
        worker: WorkerProcess,
        fallback: ShadowDetector,
        injections: Injections,
        settings: RunTiming,
        surroundings: RunEnvironment,
        exchange: Exchange | None = None,
        changes: ChangeKeeper | None = None,
        recurring: RecurringKeeper | None = None,
        mutes: MuteKeeper | None = None,
        alarms: AlarmLog | None = None,
    ) -> None:
        self.summary = Summary()
        self._source, self._complaints, self._sink = source, complaints, sink
        self._fallback, self._injections = fallback, injections
        self._settings, self._world = settings, surroundings
        self._nothing = np.full(settings.channels, np.nan, np.float32)
        self._log = surroundings.console.log
        self._exchange = exchange or NoExchange(has_model=True)
        self._changes = changes or ChangeKeeper(None, surroundings.clock, time.time, self._log)
        self._recurring = recurring or RecurringKeeper(
            None, settings.period, None, surroundings.clock, self._log
        )
        self._mutes = mutes or MuteKeeper(None, surroundings.clock, time.time, self._log)
        self._alarms = alarms or AlarmLog(None, (), surroundings.clock, None, self._log)
        self._model = WorkerManager(
            worker,
            settings.terms(source.live),
            surroundings.clock,
            self._log,
            self._exchange.may_start,
        )
        # Counts of the models that answered before this one, and of their fallbacks.
        self._restarts = self._caught_up = self._repaired = 0
        self._timing = self._new_sample_clock()
        self._judged_from: LastingChange | None = None  # by the fallback
        self._index = 0
        self._started: float | None = None  # when a paced source gave its first reading
        self._readings = 0
        self._steps, self._step_line = 0, -math.inf  # steps of the source's clock: logged, and when

    def run(self) -> None:
        """Answer every sample until the source ends or the sink's reader closes its pipe.

        When this returns or raises, also on KeyboardInterrupt, the worker has ended and source and
        sink are closed.
        """
        try:
            self._model.await_first()
            for listener in self._world.listeners:
                listener.ready(f"model {self._model.phase.value}")
            self._timing = self._new_sample_clock()  # it starts now, after the load
            self._follow_source()
        except SinkClosedError:
            pass  # the reader has gone, as in `gruard run … | head`
        finally:
            for listener in self._world.listeners:
                listener.stopping()
            self._exchange.stop()
            self._model.stop()
            self._changes.close()
            self._recurring.close()
            self._mutes.close()
            self._alarms.close()
            self._source.close()
            self._sink.close()
            self._count_losses()

    def print_summary(self, as_json: bool) -> None:
        """Print the summary on the console, for people or as one JSON line."""
        summary = self.summary
        self._world.console.finish(summary.to_json() if as_json else summary.to_text())

    def ended(self) -> None:
        """Tell the listeners that the run ended in good order; not to be called after an error."""
        for listener in self._world.listeners:
            listener.ended()

    def _new_sample_clock(self) -> SampleClock:
        return SampleClock(self._settings.period, self._source.live, self._world.clock())

    def _follow_source(self) -> None:
        """Answer the source's readings, and the slots without one, until it ends."""
        while True:
            timeout = self._timing.timeout(self._world.clock())
            timeout = TURN_EVERY if timeout is None else min(timeout, TURN_EVERY)
            try:
                reading = self._source.read(timeout)
            except EOFError:
                return self._fill(self._timing.finish(self._world.clock()))
            now = self._world.clock()
            if reading is None:
                self._fill(self._timing.overdue(now))
            else:
                self._pace(now)
                self._fill(self._timing.place(reading, now))
            self._mutes.tend()
            self._world.turn(self._state)

    def _fill(self, slots: list[TimeSlot]) -> None:
        """Answer `slots`, each with or without a reading."""
        self._log_steps()
        for slot in slots:
            flags = Flag.TIMING if slot.irregular else Flag(0)
            if slot.values is None:
                sample = Sample(self._index, slot.time, self._nothing)
                self._answer(sample, flags | Flag.GAP, slot.slots)
            else:
                values = self._injections.spoil(self._index, slot.values)
                self._answer(Sample(self._index, slot.time, values), flags, slot.slots)

    def _log_steps(self) -> None:
        steps, now = self._timing.events["clock stepped"] - self._steps, self._world.clock()
        if steps and now - self._step_line >= STEP_LINES:
            times = "" if steps == 1 else f" {steps} times"
            self._log(f"sample {self._index}: the source's clock was set{times}; followed")
            self._steps, self._step_line = self._steps + steps, now

    def _pace(self, now: float) -> None:
        if self._settings.interval is not None:
            start = self._started = now if self._started is None else self._started
            self._world.sleep(max(0.0, start + self._readings * self._settings.interval - now))
            self._readings += 1

    def _answer(self, sample: Sample, flags: Flag, slots: int) -> None:
        """Write the record of `sample`, which covers so many `slots`, with `flags` added."""
        arrived = self._world.clock()
        self._model.tend(fresh=sample.index == 0)
        self._inject(sample.index)
        self._model.tell(sample)  # both compute at the same time
        self._pass_change_to_fallback()
        shadow = self._fallback.step(sample)
        record = self._choose(sample, shadow)
        if Flag.GAP in flags and record.tier == 3:
            record = unjudged(record, self.summary.last)
        if flags or slots > 1:
            record = dataclasses.replace(record, flags=record.flags | flags, slots=slots)
        record = self._recurring.mark(record)
        if record.alarm and self._mutes.on:
            record = _flagged(record, Flag.MUTED)
        record = self._alarms.mark(record, sample.values)
        self._sink.write(record)
        self.summary.add(record, self._world.clock() - arrived, self._alarms.current)
        self._changes.after(record, self._model)
        self._recurring.tend()
        self._alarms.tend(record)
        self._world.observe(record, self._state)
        self._index = sample.index + 1
        for listener in self._world.listeners:
            listener.beat(sample.index, self.summary.status)
        self._world.console.progress(self.summary.status)
        self._model.recover()  # after the record is out: ending a process can take a second
        self._exchange_model(record)

    def _exchange_model(self, record: Record) -> None:
        """Let another model answer from the next sample on, if the exchange has one."""
        other = self._exchange.after(record, self._model)
        if other is not None:
            self._restarts += self._model.restarts
            self._caught_up += self._model.caught_up
            self._repaired += self._fallback.repaired
            self._model.stop()
            self._model, self._fallback = other.model, other.fallback
            if self._settings.period is None and other.period is not None:
                self._settings = dataclasses.replace(self._settings, period=other.period)
                self._timing = self._new_sample_clock()

    def _pass_change_to_fallback(self) -> None:
        """Let the fallback judge the machine against the lasting change that the model found."""
        change = self._model.change
        if change is not None and change is not self._judged_from:
            self._judged_from = change
            self._fallback.stand_at(change.centre)

    def _choose(self, sample: Sample, shadow: Record) -> Record:
        serving = self._model.phase is WorkerPhase.SERVING
        answer = self._model.ask(sample, shadow)
        if answer is None:
            return _flagged(shadow, Flag.LATE) if serving and self._model.late else shadow
        if serving:
            return answer
        if self._model.takes_over(answer, shadow):
            return _flagged(answer, Flag.RESTARTED)
        return shadow

    def _inject(self, index: int) -> None:
        for fault in self._injections.starting(index):
            self._log(f"sample {index}: injected {fault}")
        if kind := self._injections.process_fault(index):
            missed = "" if self._model.inject(kind) else " without effect: no model is running"
            self._log(f"sample {index}: injected {kind}{missed}")

    def _state(self) -> RunState:
        self._count_losses()
        model = self._model
        phase, kernel, waiting = model.phase, model.kernel, model.waiting
        away, finding, mute = self._complaints.away, self._changes.finding, self._mutes.mute
        alarm = self._alarms.current
        return RunState(self.summary, phase, kernel, waiting, away, finding, mute, alarm)

    def _count_losses(self) -> None:
        self.summary.restarts = self._restarts + self._model.restarts
        self.summary.caught_up = self._caught_up + self._model.caught_up
        self.summary.repaired = self._repaired + self._fallback.repaired
        self.summary.dropped = self._sink.dropped
        self.summary.bad_cells = self._complaints.cells
        self.summary.bad_rows = self._complaints.rows
        self.summary.outages = self._complaints.outages
        self.summary.timing = {str(what): count for what, count in self._timing.events.items()}


def _flagged(record: Record, flags: Flag) -> Record:
    return dataclasses.replace(record, flags=record.flags | flags)
