"""The way back to a settled state for a process that begins anew: the last samples, once more.

A state that a broken process left behind can't be trusted, but the samples can: a healthy process
computes the state afresh from them, in a fraction of the time that they took to come. Its answers
to them are no records, because each of these samples already has its own; they only count.
"""

from collections import deque
from collections.abc import Callable

from edge_runtime.record import Record, Sample
from edge_runtime.supervision import wire
from edge_runtime.supervision.hang_watch import Work
from edge_runtime.supervision.policy import Terms
from edge_runtime.supervision.worker_process import WorkerGoneError, WorkerProcess


class CatchUp:
    """Remembers the last samples, each with the fallback's alarm, and gives them to `process`.

    clock: monotonic seconds. given: how many samples this process was given; 0 before `begin`.
    behind: whether it is still at work on them. samples: with how many any process caught up.
    """

    def __init__(self, process: WorkerProcess, terms: Terms, clock: Callable[[], float]) -> None:
        self.behind = False
        self.samples = self.given = 0
        self._process, self._terms, self._clock = process, terms, clock
        self._kept: deque[tuple[Sample, bool]] = deque(maxlen=terms.memory)
        self._owed: dict[int, bool] = {}  # what the process has yet to answer, by index
        self._outrun = False
        self._heard = 0.0  # when it last answered one of them

    def keep(self, sample: Sample, alarm: bool) -> None:
        """Remember one sample, and whether the fallback alarmed at it."""
        self._kept.append((sample, alarm))

    def follow(self, other: "CatchUp") -> None:
        """Give the process what `other` remembers, after that only the last; WorkerGoneError."""
        if self.given:
            self.keep(*other._kept[-1])
            self.give(*other._kept[-1])
        else:
            self._kept = deque(other._kept, self._terms.memory)
            self.begin()

    def begin(self) -> None:
        """Give a new process all that is remembered. Raises WorkerGoneError."""
        self._owed.clear()
        self.given, self._outrun, self._heard = 0, False, self._clock()
        self.behind = bool(self._kept)
        self._process.send(wire.Reset())  # its records are flagged until its state has settled
        for sample, alarm in self._kept:
            self.give(sample, alarm)

    def give(self, sample: Sample, alarm: bool) -> None:
        """Give it one sample more, that nobody waits for. Raises WorkerGoneError."""
        self._process.tell(sample)
        self._owed[sample.index] = alarm
        self.given += 1

    def answers(self) -> list[tuple[Record, bool]]:
        """What the process has answered meanwhile, each with the fallback's alarm at that sample.

        Where samples wait, all that it owes. Others do so, for a deadline each, once the process
        has fallen so far behind that they come faster than it computes: it would never be through.
        Raises WorkerGoneError when it has come to a stop.
        """
        self._outrun |= len(self._owed) > 2 * self._terms.memory
        end = self._clock() + (self._terms.deadline if self._outrun else 0.0)
        answers: list[tuple[Record, bool]] = []
        while self._owed and (records := self._process.hear(self._limit(end))):
            answers += ((record, self._owed.pop(record.index)) for record in records)
            self._heard = self._clock()
        if self._owed and self._stands_still():
            raise WorkerGoneError(f"did not catch up: stands still at sample {min(self._owed)}")
        self.behind = len(self._owed) > 1  # the answer to the last one comes before the next one's
        self.samples += 0 if self.behind else self.given
        return answers

    def failed(self) -> None:
        """The process broke; if at one of these samples, it must not break the next one, too."""
        if self.behind:
            self.forget()
        self.behind, self.given = False, 0

    def forget(self) -> None:
        """Remember nothing of what was so far."""
        self._kept.clear()

    def _limit(self, end: float) -> float | Work:
        if self._terms.waits:
            return self._terms.answer_limit
        return max(end - self._clock(), 0.0)

    def _stands_still(self) -> bool:
        return self._terms.waits or self._clock() - self._heard >= self._terms.patience
