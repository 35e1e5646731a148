"""Keeps an inference process in service: the policy decides, the process handle does."""

import dataclasses
from collections.abc import Callable
from contextlib import suppress

from edge_runtime.detector.delegate_failures import explained
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision import wire
from edge_runtime.supervision.catch_up import CatchUp
from edge_runtime.supervision.policy import BACK_OFF, LOAD_LIMIT, Phase, Terms, WorkerPolicy
from edge_runtime.supervision.worker_process import WorkerGoneError, WorkerProcess

_TOO_SLOW = f"did not load within {LOAD_LIMIT:g} s"


class WorkerCare:
    """A worker that comes back by itself, as often as the policy allows.

    clock: monotonic seconds; log: takes one line per event.
    may_start: asked before every start of a process; while it says no, none is started.
    late: whether the last `ask` ran into the deadline, which counts from there. kernel: what the
    model ran on last.
    failure: what became of the last process that broke, None while none did.
    understudy: who answers without this model, for the log.
    A process that begins anew first catches up with the last samples.
    A process with a second command has an accelerator, which its first failure puts out of use for
    good: from then on the CPU runs the model, with flagged records.
    No method raises for a broken worker. `tell` and `ask` only remember that it broke; `recover`
    acts.
    """

    def __init__(
        self,
        process: WorkerProcess,
        terms: Terms,
        clock: Callable[[], float],
        log: Callable[[str], None],
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        self.late, self.kernel = False, ""
        self.failure: str | None = None
        self.understudy = "the fallback"
        self._process, self._terms = process, terms
        self._past = CatchUp(process, terms, clock)
        self._clock = clock
        self._log = log
        self._may_start = may_start
        self._policy = WorkerPolicy()
        self._trouble: str | None = None
        self._on_cpu = False  # in place of an accelerator
        self._told = False  # the process has the sample at hand

    @property
    def phase(self) -> Phase:
        """What the worker is good for at the moment."""
        return self._policy.phase

    @property
    def restarts(self) -> int:
        """How often the worker was restarted so far."""
        return self._policy.restarts

    @property
    def caught_up(self) -> int:
        """How many samples were computed once more after restarts."""
        return self._past.samples

    def await_first(self) -> None:
        """Start the first worker and give it time to load, so that it can answer sample 0.

        Where an accelerator does not load, the CPU gets the same time.
        """
        self._start_and_wait()
        if self._on_cpu:
            self._start_and_wait()

    def tend(self, fresh: bool) -> None:
        """Do what is due before a sample; `fresh` before the very first one.

        Does not wait, unless samples wait for a process that begins anew.
        """
        if self._policy.start_due(self._clock()):
            self._start()
        self._welcome(fresh, LOAD_LIMIT if self._terms.waits and not fresh else 0.0)
        if self._policy.load_overdue(self._clock()):
            self._fail(_TOO_SLOW)

    def tell(self, sample: Sample) -> None:
        """Let the model begin with `sample`, while others do their part before `ask`."""
        self.late = self._told = False
        if not self._policy.asking:
            return
        try:
            if not self._behind():
                self._process.tell(sample)
                self._told = True
        except WorkerGoneError as gone:
            self._trouble = str(gone)

    def ask(self, sample: Sample, shadow: Record) -> Record | None:
        """The model's answer, None when there is no model or it did not answer in time.

        sample: the last that was told. shadow: the fallback's record of it.
        """
        self._past.keep(sample, shadow.alarm)
        if not self._policy.asking or self._trouble is not None:
            return None
        try:
            if not self._told:
                self._past.give(sample, shadow.alarm)
                return None
            record = self._process.answer(sample, self._terms.deadline)
        except WorkerGoneError as gone:
            self._trouble = str(gone)
            return None
        if record is not None:
            self._policy.answered()
            return _on_cpu(record) if self._on_cpu else record
        self.late = True
        if self._policy.missed():
            stage = self._process.stage
            self._trouble = (
                f"does not answer within {self._terms.deadline:g} s (not come to {stage})"
            )
        return None

    def takes_over(self, answer: Record, shadow: Record) -> bool:
        """Judge an answer of a worker on probation against the fallback's."""
        agrees = answer.alarm == shadow.alarm
        if not self._policy.shadowed(self._clock(), _settled(answer), agrees):
            return False
        self._log(f"sample {answer.index}: the model answers again")
        return True

    def recover(self) -> None:
        """End a worker that broke during `ask`, and start the next one if that is due now."""
        if self._trouble is not None:
            self._fail(self._trouble)
            self._trouble = None
            if self._policy.start_due(self._clock()):
                self._start()

    def inject(self, kind: wire.Fault) -> bool:
        """Break the worker for a demonstration; False when none is being asked."""
        if self._policy.asking:
            self._send(wire.Inject(kind))
        return self._policy.asking

    def reset(self) -> None:
        """Let the model start afresh, with flagged warm-up records."""
        self._past.forget()
        if self._policy.asking:
            self._send(wire.Reset())

    def follow(self, other: "WorkerCare") -> bool:
        """Compute what `other` answers, too; whether the next sample can be answered instead of it.

        To be called after every sample, once the model is loaded.
        """
        try:
            through = self._past.given > 0 and not self._behind()
            self._past.follow(other._past)
        except WorkerGoneError as gone:
            self._fail(str(gone))
            return False
        return through

    def stop(self) -> None:
        """End the worker in good order; no more of it is needed."""
        self._process.stop()

    def _send(self, message: wire.Reset | wire.Inject) -> None:
        with suppress(WorkerGoneError):  # the next `ask` will meet the same trouble and act on it
            self._process.send(message)

    def _start_and_wait(self) -> None:
        self._start()
        self._welcome(fresh=True, timeout=LOAD_LIMIT)
        if self.phase is Phase.LOADING:
            self._fail(_TOO_SLOW)

    def _start(self) -> None:
        if not self._may_start():
            return
        self._policy.started(self._clock())
        try:
            self._process.start()
        except WorkerGoneError as gone:
            self._fail(str(gone))

    def _welcome(self, fresh: bool, timeout: float) -> None:
        if self.phase is not Phase.LOADING:
            return
        try:
            hello = self._process.poll_ready(timeout)
        except WorkerGoneError as gone:
            self._fail(str(gone))
            return
        if hello is not None:
            self.kernel = hello.kernel
            self._policy.ready(fresh)
            self._log(f"model loaded in {hello.load_seconds:.1f} s on {hello.kernel}")
            if not fresh:
                with suppress(WorkerGoneError):  # as in `_send`
                    self._past.begin()

    def _behind(self) -> bool:
        """Whether the process has still to catch up; counts what it has answered meanwhile."""
        if not self._past.behind:
            return False
        for answer, alarm in self._past.answers():
            self._policy.counted(_settled(answer), answer.alarm == alarm)
        if not self._past.behind:
            self._log(f"the model has caught up with the last {self._past.given} samples")
        return self._past.behind

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self._past.failed()
        self._process.kill()
        self._policy.failed(self._clock())
        if self._process.fall_back():
            self._on_cpu = True
            reason = explained(reason)
            then = "from here on the CPU runs the model, without the accelerator"
        elif self.phase is Phase.GIVEN_UP:
            then = f"restarted {len(BACK_OFF)} times already: {self.understudy} stays"
        else:
            then = f"{self.understudy} answers until it is back"
        self._log(f"the inference process {reason}; {then}")


def _settled(answer: Record) -> bool:
    return not answer.flags & (Flag.WARMUP | Flag.FALLBACK)


def _on_cpu(record: Record) -> Record:
    return dataclasses.replace(record, flags=record.flags | Flag.CPU)
