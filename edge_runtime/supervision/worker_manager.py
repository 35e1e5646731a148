"""Keep a worker in service: the policy decides, the process handle acts.

`CatchUp` replays the last samples to a restarted worker. The state that a broken process left
cannot be trusted, but the samples can: a healthy process computes the state from them again, faster
than they came. Each of them has its record already, so the answers only count as shadow answers.

`WorkerManager` restarts a broken worker. With `Exchange` another model takes over between samples.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.detector.kernels import explained
from edge_runtime.detector.lasting_change import LastingChange
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision import wire
from edge_runtime.supervision.policy import LOAD_LIMIT, Terms, Work, WorkerPhase, WorkerPolicy
from edge_runtime.supervision.worker_process import WorkerGoneError, WorkerProcess


class CatchUp:
    """Keeps the last samples, each with the fallback's alarm, and replays them to `process`.

    clock: monotonic seconds. given: samples given to this process; 0 before `begin`.
    behind: whether it is still at work on them. samples: replayed by all processes so far.
    """

    def __init__(self, process: WorkerProcess, terms: Terms, clock: Callable[[], float]) -> None:
        self.behind = False
        self.samples = self.given = 0
        self._process, self._terms, self._clock = process, terms, clock
        self._kept: deque[tuple[Sample, bool]] = deque(maxlen=terms.memory)
        self._owed: dict[int, bool] = {}  # what the process has yet to answer, by index
        self._outrun = False  # samples come faster than the process computes
        self._heard = 0.0  # when it last answered one of them

    def keep(self, sample: Sample, alarm: bool) -> None:
        """Keep one sample, and whether the fallback alarmed at it."""
        self._kept.append((sample, alarm))

    def follow(self, other: "CatchUp") -> None:
        """Give the process the samples that `other` keeps, later only its last.

        Raises WorkerGoneError.
        """
        if self.given:
            self.keep(*other._kept[-1])
            self.give(*other._kept[-1])
        else:
            self._kept = deque(other._kept, self._terms.memory)
            self.begin()

    def begin(self) -> None:
        """Give a new process all samples that are kept. Raises WorkerGoneError."""
        self._owed.clear()
        self.given, self._outrun, self._heard = 0, False, self._clock()
        self.behind = bool(self._kept)
        self._process.send(wire.Reset())  # its records are flagged until its state has settled
        for sample, alarm in self._kept:
            self.give(sample, alarm)

    def give(self, sample: Sample, alarm: bool) -> None:
        """Give the process one more sample, without waiting. Raises WorkerGoneError."""
        self._process.tell(sample)
        self._owed[sample.index] = alarm
        self.given += 1

    def answers(self) -> list[tuple[Record, bool]]:
        """Return the new answers of the process, each with the fallback's alarm at that sample.

        Where samples wait for the worker, wait for all answers. In a live run, wait a deadline per
        sample only once samples come faster than the process computes: else it would never catch
        up. Raises WorkerGoneError when it has stopped answering.
        """
        waits, clock = self._terms.waits, self._clock
        self._outrun |= len(self._owed) > 2 * self._terms.memory
        end = clock() + (self._terms.deadline if self._outrun else 0.0)
        answers: list[tuple[Record, bool]] = []
        while self._owed:
            limit = self._terms.answer_limit if waits else max(end - clock(), 0.0)
            if not (records := self._process.hear(limit)):
                break
            answers += ((record, self._owed.pop(record.index)) for record in records)
            self._heard = clock()
        if self._owed and (waits or clock() - self._heard >= self._terms.patience):
            raise WorkerGoneError(f"did not catch up: stands still at sample {min(self._owed)}")
        self.behind = len(self._owed) > 1  # the answer to the last one comes before the next one's
        self.samples += 0 if self.behind else self.given
        return answers

    def failed(self) -> None:
        """Note that the process broke; drop the samples if one of them may have broken it."""
        if self.behind:
            self._kept.clear()
        self.behind, self.given = False, 0


class WorkerManager:
    """A worker that is restarted when it breaks, at the rate that the policy allows.

    clock: monotonic seconds. Where samples wait for the worker, back-offs count the time of the
    recording, so that the same samples always give the same records.
    log: takes one line per event.
    may_start: asked before every start of a process; while it says no, none is started.
    late: whether the last `ask` missed the deadline, which counts from that call. kernel: of the
    model that was loaded last.
    failure: why the last process broke, None while none did.
    understudy: who answers without this model, for the log.
    A restarted process first catches up with the last samples.
    A process with a second command runs on an accelerator. After its first failure the CPU runs the
    model for good, with flagged records.
    No method raises for a broken worker. `tell` and `ask` only note that it broke; `recover` acts.
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
        self._on_cpu = False  # after the accelerator failed
        self._told = False  # the process has the current sample
        self._samples = 0
        self._loading_since = 0.0

    @property
    def phase(self) -> WorkerPhase:
        """The state of the worker."""
        return self._policy.phase

    @property
    def restarts(self) -> int:
        """Restarts of the worker so far."""
        return self._policy.restarts

    @property
    def failures(self) -> int:
        """Failures of the worker in a row."""
        return self._policy.failures

    @property
    def waiting(self) -> str:
        """Why there is no worker, and when the next one starts; empty while there is one."""
        due = self._policy.due
        if self.phase is not WorkerPhase.WAITING or self.failure is None or due is None:
            return ""
        return f"worker {self.failure}; next attempt in {rounded(max(due - self._now(), 0.0))}"

    @property
    def bundle(self) -> str:
        """Digest of the bundle that the worker loads."""
        return self._process.bundle

    @property
    def change(self) -> LastingChange | None:
        """The lasting change that a worker reported last; None while none has."""
        return self._process.change

    def accept(self, yes: bool) -> None:
        """Pass on the owner's word on a lasting change."""
        with suppress(WorkerGoneError):  # as in `inject`; the next process resumes from it
            self._process.accept(yes)

    @property
    def caught_up(self) -> int:
        """Samples that were replayed after restarts."""
        return self._past.samples

    def await_first(self) -> None:
        """Start the first worker and wait until it has loaded, so that it can answer sample 0.

        If an accelerator does not load, the CPU gets the same time.
        """
        self._start_and_wait()
        if self._on_cpu:
            self._start_and_wait()

    def tend(self, fresh: bool, awaited: bool = False) -> None:
        """Start or welcome a worker where due; call before every sample, `fresh` for the first.

        Waits only where samples wait for a worker that restarts, or that is `awaited`.
        """
        self._samples += 1
        if self._policy.start_due(self._now()):
            self._start()
        waits = self._terms.waits and (awaited or not fresh)
        self._welcome(fresh, self._terms.load_limit if waits else 0.0)
        overdue = self._clock() - self._loading_since > LOAD_LIMIT
        if self.phase is WorkerPhase.LOADING and (waits or overdue):
            self._fail(self._too_slow())

    def tell(self, sample: Sample) -> None:
        """Send `sample` to the model; it computes until `ask` collects its answer."""
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
        """Return the model's answer, None when there is no model or it did not answer in time.

        sample: the last one passed to `tell`. shadow: the fallback's record of it.
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
        """Judge an answer of a worker on probation; return whether the model answers from now."""
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
        """Break the worker for a demonstration; False when it gets no samples."""
        if self._policy.asking:
            with suppress(WorkerGoneError):  # the next `ask` raises it again and acts on it
                self._process.send(wire.Inject(kind))
        return self._policy.asking

    def follow(self, other: "WorkerManager") -> bool:
        """Compute the samples of `other`, too; return whether this model can answer the next one.

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
        """End the worker in good order, for good."""
        self._process.stop()

    def _start_and_wait(self) -> None:
        self._start()
        self._welcome(fresh=True, timeout=self._terms.load_limit)
        if self.phase is WorkerPhase.LOADING:
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
        if self.phase is not WorkerPhase.LOADING:
            return
        try:
            hello = self._process.poll_ready(timeout)
        except WorkerGoneError as gone:
            self._fail(str(gone))
            return
        if hello is not None:
            self.kernel = hello.kernel
            self._policy.ready(self._now(), fresh)
            because = f", because {hello.refusal}" if hello.refusal else ""
            self._log(f"model loaded in {hello.load_seconds:.1f} s on {hello.kernel}{because}")
            with suppress(WorkerGoneError):  # as in `inject`
                self._process.resume()
                if not fresh:
                    self._past.begin()

    def _behind(self) -> bool:
        """Return whether the process still has to catch up; count its new answers."""
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
    """Return seconds for people: `50 ms`, `5 s`, `5 min`."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 60 else f"{seconds / 60:.3g} min"


class ShadowDetector(Protocol):
    """The part of the fallback that the supervisor needs: cheap, and it never fails.

    repaired: how often damaged memory was repaired.
    """

    @property
    def repaired(self) -> int: ...

    def step(self, sample: Sample) -> Record:
        """Return the tier 3 record of one sample."""

    def stand_at(self, centre: Sequence[float]) -> None:
        """Judge deviations from `centre` from now on, in standardised units [channels]."""


@dataclass(frozen=True)
class Serving:
    """A model and the fallback that goes with it.

    period: seconds between its samples, None when unknown.
    """

    model: WorkerManager
    fallback: ShadowDetector
    period: float | None = None


class Exchange(Protocol):
    """Decides which model answers. No method raises, and none waits for a model to load."""

    def may_start(self) -> bool:
        """Return whether a process may load the run's first model now."""

    def after(self, record: Record, model: WorkerManager) -> Serving | None:
        """Return who answers after `record`, None for still `model`. The caller ends the other."""

    def stop(self) -> None:
        """End a model that is being prepared."""


class NoExchange:
    """One model for the whole run; where it has none, the fallback answers."""

    def __init__(self, has_model: bool) -> None:
        self._has_model = has_model

    def may_start(self) -> bool:
        """Return whether there is a model."""
        return self._has_model

    def after(self, record: Record, model: WorkerManager) -> None:
        """Return None: the same model answers."""

    def stop(self) -> None:
        """Do nothing."""
