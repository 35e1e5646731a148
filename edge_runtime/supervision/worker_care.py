"""Keeps an inference process in service: the policy decides, the process handle does."""

import dataclasses
from collections.abc import Callable
from contextlib import suppress

from edge_runtime.detector.delegate_failures import explained
from edge_runtime.detector.lasting_change import LastingChange
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision import wire
from edge_runtime.supervision.catch_up import CatchUp
from edge_runtime.supervision.hang_watch import Work
from edge_runtime.supervision.policy import LOAD_LIMIT, Phase, Terms, WorkerPolicy
from edge_runtime.supervision.worker_process import WorkerGoneError, WorkerProcess


class WorkerCare:
    """A worker that comes back by itself, at the rate that the policy allows.

    clock: monotonic seconds. Where samples wait for the worker, the time of back-offs is that of
    the recording, so that the same samples always give the same records.
    log: takes one line per event.
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
        self._samples = 0
        self._loading_since = 0.0

    @property
    def phase(self) -> Phase:
        """What the worker is good for at the moment."""
        return self._policy.phase

    @property
    def restarts(self) -> int:
        """How often the worker was restarted so far."""
        return self._policy.restarts

    @property
    def failures(self) -> int:
        """How often in a row the worker failed."""
        return self._policy.failures

    @property
    def waiting(self) -> str:
        """Why there is no worker, and when the next one starts; empty while there is one."""
        if self.phase is not Phase.WAITING or self.failure is None or self._policy.due is None:
            return ""
        left = max(self._policy.due - self._now(), 0.0)
        return f"worker {self.failure}; next attempt in {rounded(left)}"

    @property
    def bundle(self) -> str:
        """Digest of the bundle that the worker loads."""
        return self._process.bundle

    @property
    def change(self) -> LastingChange | None:
        """Where the machine stands, as a worker told last; None while none has."""
        return self._process.change

    def accept(self, yes: bool) -> None:
        """Pass on the owner's word on a lasting change."""
        with suppress(WorkerGoneError):  # as in `_send`; the next process goes on from there
            self._process.accept(yes)

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

        To be called once for every sample. Does not wait, unless samples wait for a process that
        begins anew.
        """
        self._samples += 1
        if self._policy.start_due(self._now()):
            self._start()
        waits = self._terms.waits and not fresh
        self._welcome(fresh, self._terms.load_limit if waits else 0.0)
        overdue = self._clock() - self._loading_since > LOAD_LIMIT
        if self.phase is Phase.LOADING and (waits or overdue):
            self._fail(self._too_slow())

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
            record = self._process.answer(sample, self._terms.answer_limit)
        except WorkerGoneError as gone:
            self._trouble = str(gone)
            return None
        if record is not None:
            self._policy.answered()
            return _on_cpu(record) if self._on_cpu else record
        self.late = True
        if self._terms.waits or self._policy.missed():
            self._trouble = (
                f"stuck before stage '{self._process.stage}' for {_words(self._terms.answer_limit)}"
            )
        return None

    def takes_over(self, answer: Record, shadow: Record) -> bool:
        """Judge an answer of a worker on probation against the fallback's."""
        agrees = answer.alarm == shadow.alarm
        if not self._policy.shadowed(self._now(), _settled(answer), agrees):
            return False
        self._log(f"sample {answer.index}: the model answers again")
        return True

    def recover(self) -> None:
        """End a worker that broke during `ask`, and start the next one if that is due now."""
        if self._trouble is not None:
            self._fail(self._trouble)
            self._trouble = None
            if self._policy.start_due(self._now()):
                self._start()

    def inject(self, kind: wire.Fault) -> bool:
        """Break the worker for a demonstration; False when none is being asked."""
        if self._policy.asking:
            self._send(wire.Inject(kind))
        return self._policy.asking

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
        self._welcome(fresh=True, timeout=self._terms.load_limit)
        if self.phase is Phase.LOADING:
            self._fail(self._too_slow())

    def _start(self) -> None:
        if not self._may_start():
            return
        self._policy.started()
        self._loading_since = self._clock()
        try:
            self._process.start()
        except WorkerGoneError as gone:
            self._fail(str(gone))

    def _welcome(self, fresh: bool, timeout: float | Work) -> None:
        if self.phase is not Phase.LOADING:
            return
        try:
            hello = self._process.poll_ready(timeout)
        except WorkerGoneError as gone:
            self._fail(str(gone))
            return
        if hello is not None:
            self.kernel = hello.kernel
            self._policy.ready(self._now(), fresh)
            self._log(f"model loaded in {hello.load_seconds:.1f} s on {hello.kernel}")
            with suppress(WorkerGoneError):  # as in `_send`
                self._process.resume()
                if not fresh:
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

    def _now(self) -> float:
        """The time of the policy, in seconds."""
        return self._samples * self._terms.period if self._terms.waits else self._clock()

    def _too_slow(self) -> str:
        return f"did not load within {_words(self._terms.load_limit)}"

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self._past.failed()
        self._process.kill()
        self._policy.failed(self._now())
        if self._process.fall_back():
            self._on_cpu = True
            reason = explained(reason)
            then = "from here on the CPU runs the model, without the accelerator"
        else:
            assert self._policy.due is not None
            wait = self._policy.due - self._now()
            when = f" in {rounded(wait)}" if wait > 0 else ""
            then = f"{self.understudy} answers until it restarts{when}"
        self._log(f"worker {reason}; {then}")


def _settled(answer: Record) -> bool:
    return not answer.flags & (Flag.WARMUP | Flag.FALLBACK)


def _on_cpu(record: Record) -> Record:
    return dataclasses.replace(record, flags=record.flags | Flag.CPU)


def _words(limit: float | Work) -> str:
    return str(limit) if isinstance(limit, Work) else rounded(limit)


def rounded(seconds: float) -> str:
    """For people: `50 ms`, `5 s`, `5 min`."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 60 else f"{seconds / 60:.3g} min"
