"""The hot switch: the model that the store names takes over between two samples.

After a record is out, once a second, the switch looks at the store's pointers. It loads a new model
in a process of its own while the running one goes on answering; the new model computes its own
state from the last samples. A trial is judged by its records (`TrialHealth`): the bundle becomes
current when the model was healthy for long enough, and is rolled back when it was not.

Nothing here waits for the store's lock. An outcome that cannot be written holds in this run and is
written later.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge_runtime.bundle.reader import Bundle
from edge_runtime.errors import BusyError, GruardError, LimitedLog
from edge_runtime.record import Flag, Record
from edge_runtime.supervision.policy import WorkerPhase
from edge_runtime.supervision.worker_manager import Serving, WorkerManager
from edge_runtime.updates.disk import StoreLock
from edge_runtime.updates.pointers import Pointers
from edge_runtime.updates.slots import SHORT, label
from edge_runtime.updates.store import Stamp, Store

PATIENCE = 60.0
"""Least seconds of bad health that fail a trial, however short the trial."""
LOOK_EVERY = 1.0
"""Seconds between two looks at the store."""
HOPELESS = 4
"""Failures in a row after which a model is passed over, since another one answers."""
RETRY = 60.0
"""Seconds between two attempts to start a model while only the fallback runs."""
WRITE_AGAIN = 10.0
"""Seconds between two attempts to write an outcome to a failing disk; each reads a bundle."""
LOCK_PATIENCE = 1.0
"""Seconds that a command may keep the store locked before it is logged."""

Event = Callable[[Pointers], Pointers]


class TrialOutcome(enum.Enum):
    """The state of a trial."""

    OPEN = "open"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class TrialHealth:
    """Seconds that counted so far, for and against the model.

    limit: seconds of either that give the verdict; last: monotonic seconds of the last record.
    """

    limit: float
    healthy: float = 0.0
    unhealthy: float = 0.0
    last: float | None = None
    verdict: TrialOutcome = TrialOutcome.OPEN

    def judged(self, record: Record, now: float) -> TrialHealth:
        """Count the time since the last record for or against the model, by this record."""
        seconds = 0.0 if self.last is None else now - self.last
        seen = replace(self, last=now)
        if record.masked or record.flags & (Flag.WARMUP | Flag.GAP):
            return seen
        if record.valid:
            healthy = self.healthy + seconds
            verdict = TrialOutcome.HEALTHY if healthy >= self.limit else TrialOutcome.OPEN
            return replace(seen, healthy=healthy, verdict=verdict)
        unhealthy = self.unhealthy + seconds
        over = unhealthy >= max(self.limit, PATIENCE)
        verdict = TrialOutcome.UNHEALTHY if over else TrialOutcome.OPEN
        return replace(seen, unhealthy=unhealthy, verdict=verdict)


def _announce_nothing(bundle: Bundle) -> None:
    """Default of `ModelLoader.announce`; does nothing."""


@dataclass(frozen=True)
class ModelLoader:
    """How to load a model.

    read: returns the checked bundle in a slot, or raises GruardError. serve: returns a model, not
    yet started, and its fallback; the model calls the given function before each start. announce:
    called with the bundle that answers from the next sample on.
    """

    read: Callable[[Path], Bundle]
    serve: Callable[[Bundle, Callable[[], bool]], Serving]
    announce: Callable[[Bundle], None] = _announce_nothing


@dataclass(frozen=True)
class FallbackOnly:
    """No bundle runs: the fallback answers for these channels, every `period` seconds."""

    channels: tuple[str, ...]
    period: float | None
    counters: frozenset[str] = frozenset()


@dataclass
class _Contender:
    """A bundle with a hold on its slot, or only the fallback, without a slot.

    serving: None for the one that the supervisor made.
    """

    bundle: Bundle | FallbackOnly
    hold: StoreLock | None
    serving: Serving | None = None
    refused: bool = False  # no attempt of its trial is left, or there is no model to start
    loads: int = 0  # attempts of its trial that this run counted
    held_up: bool = False  # its next attempt waits for the store's lock

    @property
    def slot(self) -> str:
        return "" if isinstance(self.bundle, FallbackOnly) else self.bundle.digest

    @property
    def name(self) -> str:
        return "the fallback" if isinstance(self.bundle, FallbackOnly) else label(self.bundle)

    @property
    def samples(self) -> FallbackOnly:
        """The channels, the period and the counters of its samples."""
        if isinstance(self.bundle, FallbackOnly):
            return self.bundle
        manifest = self.bundle.manifest
        counters = frozenset(manifest.columns.counters)
        return FallbackOnly(manifest.channel_names, manifest.period, counters)

    def release(self) -> None:
        if self.hold is not None:
            self.hold.release()


@dataclass(frozen=True)
class _Outcome:
    """The result of a trial. line: what to log once it is written; empty for nothing."""

    event: Event
    line: str = ""


class ModelSwitch:
    """The Exchange of a run from the store (`edge_runtime.supervision.worker_manager`).

    running: the bundle that the run starts with. healthy: seconds of good health that end a trial.
    samples: what the run reads, None for what that bundle needs; another bundle takes over if its
    channels are among them.
    While only the fallback runs, the bundle that the store names is tried every RETRY seconds.
    """

    def __init__(
        self,
        store: Store,
        running: Bundle | FallbackOnly,
        loader: ModelLoader,
        healthy: float,
        clock: Callable[[], float],
        log: Callable[[str], None],
        samples: FallbackOnly | None = None,
    ) -> None:
        self._store, self._loader = store, loader
        self._healthy, self._clock, self._log = healthy, clock, log
        self._troubles = LimitedLog(log, clock)
        hold = None if isinstance(running, FallbackOnly) else store.slots.hold(running.digest)
        self._running = _Contender(running, hold, refused=hold is None)
        self._samples = samples or self._running.samples
        self._candidate: _Contender | None = None
        self._passed_over: set[str] = set()  # slots that cannot take over until the store changes
        self._unreadable: dict[str, str] = {}  # slots, and why, as logged
        self._pointers = store.pointers()  # with the outcomes that are not written yet
        self._outcomes: list[_Outcome] = []
        self._busy_since: float | None = None
        self._stamp: Stamp | None = None
        self._next_look = self._next_retry = self._next_write = clock()
        self._probation = TrialHealth(healthy)
        self._sound = False

    def may_start(self) -> bool:
        """See `_may_load`; for the bundle that the run started with."""
        return self._may_load(self._running)

    def look_soon(self) -> None:
        """Look at the store after the next record: it was changed."""
        self._next_look = self._clock()

    def after(self, record: Record, model: WorkerManager) -> Serving | None:
        """Look at the store, judge the trial, and return the candidate once it takes over."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            if now >= self._next_write:
                self._write_outcomes()
            self._look(now)
        self._sound = model.failure is None
        if self._pointers.on_trial(self._running.slot):
            self._judge(record, model, now)
        return self._handed_over(record.index, model)

    def stop(self) -> None:
        """Stop the candidate and release the slots."""
        self._drop_candidate()
        self._running.release()

    def spare(self) -> None:
        """Give an attempt back when the run ends in good order before the trial does."""
        running = self._running
        if self._sound and running.loads and self._pointers.on_trial(running.slot):
            self._outcomes.append(_Outcome(lambda pointers: pointers.spared(running.slot)))
        self._write_outcomes(waits=True)

    def _look(self, now: float) -> None:
        stamp = self._store.stamp()
        retry = not self._running.slot and not self._candidate and now >= self._next_retry
        if stamp == self._stamp and not retry:
            return
        self._stamp, self._next_retry = stamp, now + RETRY
        self._passed_over.clear()  # the store changed: their faults may be repaired
        try:
            self._pointers = self._with_outcomes(self._store.pointers())
        except GruardError as error:
            self._troubles.trouble("read", f"{error}; {self._running.name} goes on")
            return
        self._aim()

    def _aim(self) -> None:
        """Load the model that the store names, unless it runs already."""
        wanted = self._wanted()
        if self._candidate and self._candidate.slot != wanted:
            self._drop_candidate()
        if wanted is None or self._candidate or wanted in {self._running.slot, *self._passed_over}:
            return
        self._prepare(wanted)

    def _wanted(self) -> str | None:
        trial = self._pointers.trial
        if trial is None or trial.slot in self._passed_over:
            return self._pointers.current
        started = {self._running.slot, self._candidate.slot if self._candidate else None}
        return trial.slot if trial.attempts or trial.slot in started else self._pointers.current

    def _prepare(self, slot: str) -> None:
        try:
            bundle = self._loader.read(self._store.slots.path(slot))
            hold = self._store.slots.hold(slot)
        except BusyError:
            self._stamp = None  # the next look tries again
            return
        except GruardError as error:
            logged, self._unreadable[slot] = self._unreadable.get(slot), str(error)
            self._reject(slot, slot[:SHORT], str(error), quiet=logged == str(error))
            return
        if difference := _difference(self._samples, bundle, self._running.name):
            self._log(f"{label(bundle)}: {difference}; restart needed: it waits for the next start")
            hold.release()
            self._passed_over.add(slot)
            self._aim()
            return
        contender = _Contender(bundle, hold)
        contender.serving = self._loader.serve(bundle, partial(self._may_load, contender))
        contender.serving.model.understudy = self._running.name
        self._log(f"{label(bundle)}: is being loaded; {self._running.name} goes on")
        self._candidate = contender

    def _may_load(self, contender: _Contender) -> bool:
        """Return whether the model may be loaded now; count an attempt of a trial durably."""
        if self._pointers.on_trial(contender.slot) and not contender.refused:
            contender.held_up = False
            try:
                self._record(lambda pointers: pointers.attempted(contender.slot))
            except BusyError:
                contender.held_up = True  # asked again with the next sample
                return False
            except (GruardError, ValueError):
                contender.refused = True
            else:
                contender.loads += 1
        return not contender.refused

    def _judge(self, record: Record, model: WorkerManager, now: float) -> None:
        slot, name = self._running.slot, self._running.name
        if _lost(self._running, model):
            self._reject(slot, name, _why("used up its attempts", model))
            return
        if self._running.held_up:  # the lock is not the model's fault
            self._probation = replace(self._probation, last=now)
            return
        self._probation = self._probation.judged(record, now)
        if self._probation.verdict is TrialOutcome.UNHEALTHY:
            minutes = self._probation.unhealthy / 60
            self._reject(slot, name, f"was not healthy for {minutes:.1f} minutes")
        elif self._probation.verdict is TrialOutcome.HEALTHY:
            self._probation = TrialHealth(self._healthy)
            line = f"sample {record.index}: {name} has proven itself and is current now"
            self._settle(_Outcome(lambda pointers: pointers.proven(slot), line))

    def _handed_over(self, index: int, old: WorkerManager) -> Serving | None:
        candidate = self._candidate
        if candidate is None or candidate.serving is None:
            return None
        model = candidate.serving.model
        model.tend(fresh=True, awaited=True)
        if _lost(candidate, model):
            self._drop_candidate()
            self._reject(candidate.slot, candidate.name, _why("could not take over", model))
        if model.phase is not WorkerPhase.SERVING or not model.follow(old):
            return None
        model.understudy = "the fallback"
        self._running.release()
        self._running, self._candidate = candidate, None
        period = self._samples.period or candidate.samples.period
        self._samples = replace(self._samples, period=period)
        self._probation = TrialHealth(self._healthy)
        self._log(f"sample {index + 1}: {candidate.name} answers from here on")
        if isinstance(candidate.bundle, Bundle):
            self._loader.announce(candidate.bundle)
        return candidate.serving

    def _reject(self, slot: str, name: str, reason: str, quiet: bool = False) -> None:
        """Roll a trial back; pass over any other bundle that cannot run.

        quiet: the reason is logged already.
        """
        on_trial = self._pointers.on_trial(slot)
        if on_trial or not quiet:
            self._log(f"{name}: {reason}; {'rolled back' if on_trial else 'passed over'}")
        if on_trial:
            self._settle(_Outcome(lambda pointers: pointers.failed(slot, reason)))
        else:
            self._passed_over.add(slot)
        self._aim()

    def _settle(self, outcome: _Outcome) -> None:
        """Apply an outcome in this run, and write it as soon as possible."""
        self._pointers = outcome.event(self._pointers)
        self._outcomes.append(outcome)
        self._write_outcomes()

    def _write_outcomes(self, waits: bool = False) -> None:
        if self._outcomes:
            with suppress(GruardError):  # a later look tries again
                self._record(lambda pointers: pointers, waits)

    def _with_outcomes(self, pointers: Pointers) -> Pointers:
        for outcome in self._outcomes:
            pointers = outcome.event(pointers)
        return pointers

    def _record(self, event: Event, waits: bool = False) -> None:
        """Change the pointers durably, by the outcomes that are not written yet and by `event`.

        Logs and raises what `Store.change` and `event` raise; a short lock is not logged.
        """
        try:
            self._pointers = self._store.change(
                lambda latest: event(self._with_outcomes(latest)), waits
            )
        except BusyError as error:
            now = self._clock()
            self._busy_since = now if self._busy_since is None else self._busy_since
            if now - self._busy_since >= LOCK_PATIENCE:
                self._troubles.trouble("write", f"{error}; until then this run tries again")
            raise
        except GruardError as error:
            self._troubles.trouble("write", str(error))
            self._next_write = self._clock() + WRITE_AGAIN
            raise
        self._busy_since = None
        self._troubles.over(f"{self._store.root}: can be written again", "write")
        outcomes, self._outcomes = self._outcomes, []
        for outcome in outcomes:
            if outcome.line:
                self._log(outcome.line)

    def _drop_candidate(self) -> None:
        candidate, self._candidate = self._candidate, None
        if candidate and candidate.serving:
            candidate.serving.model.stop()
            candidate.release()


def _lost(contender: _Contender, model: WorkerManager) -> bool:
    """Whether the model may not start again, or failed too often."""
    waiting = model.phase is WorkerPhase.WAITING
    return waiting and (contender.refused or model.failures >= HOPELESS)


def _why(what: str, model: WorkerManager) -> str:
    return f"{what}: {model.failure}" if model.failure else what


def _difference(samples: FallbackOnly, bundle: Bundle, name: str) -> str:
    """Return why `bundle` cannot answer the samples read for `name`; empty if it can."""
    if not {*bundle.manifest.channel_names} <= {*samples.channels}:
        return f"its channels are not those of {name}"
    if samples.period not in (None, bundle.manifest.period):
        return f"its sample period is not that of {name}"
    if samples.counters != frozenset(bundle.manifest.columns.counters):
        return f"its counters are not those of {name}"
    return ""
