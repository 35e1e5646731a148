"""The loop that never goes silent: every sample gets exactly one record, whoever gives it.

The fallback shadows every sample. The worker answers while it is in service; when it is late,
gone or on probation, the fallback's record is written instead, and says so.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_runtime import wire
from edge_runtime.injection import Injections
from edge_runtime.notify import Notifier
from edge_runtime.policy import LOAD_LIMIT, Phase, WorkerPolicy
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.sinks import Sink, SinkClosed
from edge_runtime.sources import GapWatch, Reading, Source
from edge_runtime.summary import Console, Summary
from edge_runtime.worker_process import WorkerGone, WorkerProcess

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
    """The outside world of a run: monotonic clock, sleep, terminal and service manager."""

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    console: Console
    notifier: Notifier


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
        settings: Settings,
        surroundings: Surroundings,
        injections: Injections,
    ) -> None:
        self.summary = Summary()
        self._source, self._sink = source, sink
        self._worker, self._fallback = worker, fallback
        self._settings, self._world = settings, surroundings
        self._injections = injections
        self._policy = WorkerPolicy()
        self._gaps = GapWatch(settings.period)
        self._log = surroundings.console.log
        self._index = 0
        self._time: float | None = None
        self._width = 0

    def run(self) -> None:
        """Answer every sample until the source ends or the sink's reader leaves.

        The worker has ended when this returns or raises, also on KeyboardInterrupt.
        """
        try:
            self._await_first_hello()
            self._world.notifier.ready(self._policy.phase.value)
            for reading in self._paced():
                self._bridge_gap(reading)
                self._answer(reading)
        except SinkClosed:
            pass  # nobody is left to read; that is how `| head` says thank you
        finally:
            self._world.notifier.stopping()
            self._worker.stop()
            self._count_losses()
