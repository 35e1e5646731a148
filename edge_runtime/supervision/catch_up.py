"""The way back to a settled state for a process that begins anew: the last samples, once more.

A state that a broken process left behind can't be trusted, but the samples can: a healthy process
computes the state afresh from them, in a fraction of the time that they took to come. Its answers
to them are no records, because each of these samples already has its own; they only count.
"""

from collections import deque
from collections.abc import Callable

from edge_runtime.record import Record, Sample
from edge_runtime.supervision import wire
from edge_runtime.supervision.policy import Terms
from edge_runtime.supervision.worker_process import WorkerGoneError, WorkerProcess


class CatchUp:
    """Remembers the last samples, each with the fallback's alarm, and gives them to `process`.

    samples: how many a process has caught up with, over all times. clock: monotonic seconds.
    """

    def __init__(self, process: WorkerProcess, terms: Terms, clock: Callable[[], float]) -> None:
        self.samples = 0
        self._process, self._terms, self._clock = process, terms, clock
        self._kept: deque[tuple[Sample, bool]] = deque(maxlen=terms.memory)
        self._owed: dict[int, bool] = {}  # what the process has yet to answer, by index
        self._given = 0
        self._outrun = False
        self._heard = 0.0  # when it last answered one of them

    @property
    def behind(self) -> bool:
        """Whether the process is still at work on samples that are over."""
        return bool(self._owed)

    @property
    def given(self) -> int:
        """How many samples the process was given since `begin`."""
        return self._given

    def keep(self, sample: Sample, alarm: bool) -> None:
        """Remember one sample, and whether the fallback alarmed at it."""
        self._kept.append((sample, alarm))

    def inherit(self, other: "CatchUp") -> None:
        """Remember what `other` does: the samples are the same for every model."""
        self._kept.extend(other._kept)

    def begin(self) -> None:
        """Give the process all that is remembered. Raises WorkerGoneError."""
        self._process.send(wire.Reset())  # its records are flagged until its state has settled
        self._given, self._outrun, self._heard = 0, False, self._clock()
        for sample, alarm in self._kept:
            self.give(sample, alarm)

    def give(self, sample: Sample, alarm: bool) -> None:
        """Give it one sample more, that nobody waits for. Raises WorkerGoneError."""
        self._process.tell(sample)
        self._owed[sample.index] = alarm
        self._given += 1

    def answers(self) -> list[tuple[Record, bool]]:
        """What the process has answered meanwhile, each with the fallback's alarm at that sample.

        Where samples wait, all that it owes. Others do so, for a deadline each, once the process
        has fallen so far behind that they come faster than it computes: it would never be through.
        Raises WorkerGoneError when it has come to a stop.
        """
        self._outrun |= len(self._owed) > 2 * self._terms.memory
        end = self._clock() + (self._terms.deadline if self._outrun else 0.0)
        answers: list[tuple[Record, bool]] = []
        while self._owed and (records := self._process.hear(self._timeout(end))):
            answers += ((record, self._owed.pop(record.index)) for record in records)
            self._heard = self._clock()
        if self._owed and self._stands_still():
            raise WorkerGoneError(f"did not catch up: stands still at sample {min(self._owed)}")
        self.samples += 0 if self._owed else self._given
        return answers

    def failed(self) -> None:
        """The process broke; if at one of these samples, it must not break the next one, too."""
        if self._owed:
            self.forget()
        self._owed.clear()

    def forget(self) -> None:
        """Remember nothing of what was so far."""
        self._kept.clear()

    def _timeout(self, end: float) -> float:
        return self._terms.patience if self._terms.waits else max(end - self._clock(), 0.0)

    def _stands_still(self) -> bool:
        return self._terms.waits or self._clock() - self._heard >= self._terms.patience
