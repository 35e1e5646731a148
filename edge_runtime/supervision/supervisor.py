"""The loop that never goes silent: every sample gets exactly one record, whoever gives it.

The fallback shadows every sample. The worker answers while it is in service; when it is late,
gone or on probation, the fallback's record is written instead, and says so.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_runtime.record import Flag, Record, Sample
from edge_runtime.sinks.json_lines import Sink, SinkClosedError
from edge_runtime.sources.csv_sources import GapWatch, Reading, Source
from edge_runtime.supervision.injection import Injections
from edge_runtime.supervision.listener import Listener
from edge_runtime.supervision.policy import Phase
from edge_runtime.supervision.summary import Console, Summary
from edge_runtime.supervision.worker_care import WorkerCare
from edge_runtime.supervision.worker_process import WorkerProcess

LONGEST_GAP = 1000
"""Gap records written for one gap of the source; a longer one is told in the log."""


class ShadowDetector(Protocol):
    """The part of the fallback that the supervisor needs: cheap, and never failing."""

    def step(self, sample: Sample) -> Record:
        """The tier 3 record of one sample."""


@dataclass(frozen=True)
class Settings:
    """How a run is timed, all in seconds.

    period: between samples, by the source's clock; None when unknown.
    deadline: for the model's answer to one sample.
    interval: pace the source to one sample per interval; None takes them as they come.
    """

    period: float | None
    deadline: float
    interval: float | None = None


@dataclass(frozen=True)
class Surroundings:
    """The outside world of a run: monotonic clock, sleep, terminal, and who hears how it goes."""

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    console: Console
    listener: Listener


def answer_deadline(period: float | None) -> float:
    """Seconds the model may take: one period, but at least 0.05 and at most 1 second.

    The lower bound is the scheduling noise of a busy small device; the upper one keeps the
    promise that a hang is noticed within seconds even where samples are minutes apart.
    """
    return 1.0 if period is None else min(max(period, 0.05), 1.0)


class Supervisor:
    """Answers a whole source. `summary` is up to date at any time, also after an exception."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        worker: WorkerProcess,
        fallback: ShadowDetector,
        injections: Injections,
        settings: Settings,
        surroundings: Surroundings,
    ) -> None:
        self.summary = Summary()
        self._source, self._sink = source, sink
        self._fallback, self._injections = fallback, injections
        self._settings, self._world = settings, surroundings
        self._log = surroundings.console.log
        self._model = WorkerCare(worker, settings.deadline, surroundings.clock, self._log)
        self._gaps = GapWatch(settings.period)
        self._index = 0
        self._time: float | None = None

    def run(self) -> None:
        """Answer every sample until the source ends or the sink's reader leaves.

        The worker has ended when this returns or raises, also on KeyboardInterrupt.
        """
        try:
            self._model.await_first()
            self._world.listener.ready(f"model {self._model.phase.value}")
            for reading in self._paced():
                self._bridge_gap(reading)
                values = self._injections.spoil(self._index, reading.values)
                self._answer(Sample(self._index, reading.time, values))
        except SinkClosedError:
            pass  # nobody is left to read; that is how `| head` says thank you
        finally:
            self._world.listener.stopping()
            self._model.stop()
            self._count_losses()

    def tell(self, as_json: bool) -> None:
        """Write the summary to the console, for people or as one JSON line."""
        summary = self.summary
        self._world.console.finish(summary.to_json() if as_json else summary.to_text())

    def ended(self) -> None:
        """Tell that the run ended in good order; not to be called after an error."""
        self._world.listener.ended()

    def _paced(self) -> Iterator[Reading]:
        start, interval = None, self._settings.interval
        for count, reading in enumerate(self._source):
            if interval is not None:
                now = self._world.clock()
                start = now if start is None else start
                self._world.sleep(max(0.0, start + count * interval - now))
            yield reading

    def _bridge_gap(self, reading: Reading) -> None:
        """Answer for the samples the source left out, so that no index is silent."""
        missing = self._gaps.missing(reading.time)
        nothing = np.full_like(reading.values, np.nan)
        for _ in range(min(missing, LONGEST_GAP)):
            self._answer(Sample(self._index, self._next_time(), nothing), gap=True)
        if missing > LONGEST_GAP:
            self._log(
                f"sample {self._index}: {missing} samples were missing before it; "
                f"{LONGEST_GAP} gap records were written and the model starts afresh"
            )
            self._model.reset()

    def _next_time(self) -> float | None:
        if self._time is None or self._settings.period is None:
            return None
        return self._time + self._settings.period

    def _answer(self, sample: Sample, gap: bool = False) -> None:
        arrived = self._world.clock()
        self._model.tend(fresh=sample.index == 0)
        self._inject(sample.index)
        shadow = self._fallback.step(sample)
        record = self._gap_record(sample, shadow) if gap else self._choose(sample, shadow)
        self._sink.write(record)
        self.summary.add(record, self._world.clock() - arrived)
        self._index, self._time = sample.index + 1, sample.time
        self._world.listener.beat(sample.index, self.summary.status)
        self._world.console.progress(self.summary.status)
        self._model.recover()  # after the record is out: ending a process can take a second

    def _choose(self, sample: Sample, shadow: Record) -> Record:
        serving = self._model.phase is Phase.SERVING
        answer = self._model.ask(sample)
        if answer is None:
            return _flagged(shadow, Flag.LATE) if serving and self._model.late else shadow
        if serving:
            return answer
        if self._model.takes_over(answer, shadow):
            return _flagged(answer, Flag.RESTARTED)
        return shadow

    def _gap_record(self, sample: Sample, shadow: Record) -> Record:
        """Nothing was measured, so nothing is judged: an alarm neither rises nor clears."""
        self._model.ask(sample)  # only to let the model's time pass as the machine's did
        last = self.summary.last
        return dataclasses.replace(
            _flagged(shadow, Flag.FALLBACK | Flag.GAP),
            tier=3,
            valid=False,
            score=None,
            threshold=None,
            alarm=last.alarm if last else False,
            blamed=last.blamed if last else (),
        )

    def _inject(self, index: int) -> None:
        for fault in self._injections.starting(index):
            self._log(f"sample {index}: injected {fault}")
        if kind := self._injections.process_fault(index):
            reached = "" if self._model.inject(kind) else " in vain: no model is running"
            self._log(f"sample {index}: injected {kind}{reached}")

    def _count_losses(self) -> None:
        self.summary.restarts = self._model.restarts
        self.summary.dropped = self._sink.dropped
        self.summary.bad_cells = self._source.bad_cells
        self.summary.bad_rows = self._source.bad_rows


def _flagged(record: Record, flags: Flag) -> Record:
    return dataclasses.replace(record, flags=record.flags | flags)
