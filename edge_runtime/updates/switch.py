"""The hot switch: the model that the store names takes over between two samples.

The store's pointers are looked at once a second, after a record is out. A model that is to take
over is loaded in a process of its own while the old one goes on answering, and computes its state
from the last samples, because the old one's stays behind. A model on trial is judged by its
records, kept when it is healthy, and gone back from when it is not.

Nothing here waits for the store's lock. An outcome that cannot be written holds in this run, and is
written later.

Is the model on trial healthy? Judged by its records, in time that counts; pure.

Only the model itself is judged. While it warms up, while the source delivers nothing, or while a
reading is unusable, time counts neither for it nor against it. Alarms are no ill health.
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
from edge_runtime.supervision.worker_care import Serving, WorkerCare
from edge_runtime.updates.disk import Hold
from edge_runtime.updates.pointers import Pointers
from edge_runtime.updates.slots import SHORT, label
from edge_runtime.updates.store import Stamp, Store

PATIENCE = 60.0
"""Seconds that a model may be unhealthy at least, however short the trial."""


class TrialVerdict(enum.Enum):
    """What is known so far."""

    OPEN = "not known yet"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class Probation:
    """Seconds that counted so far, for and against the model.

    limit: seconds of either that give the verdict; last: monotonic seconds of the last record.
    """

    limit: float
    healthy: float = 0.0
    unhealthy: float = 0.0
    last: float | None = None
    verdict: TrialVerdict = TrialVerdict.OPEN

    def judged(self, record: Record, now: float) -> Probation:
        """With the time from the last record to this one put to the account of this one."""
        passed = 0.0 if self.last is None else now - self.last
        seen = replace(self, last=now)
        if record.masked or record.flags & (Flag.WARMUP | Flag.GAP):
            return seen
        if record.valid:
            healthy = self.healthy + passed
            verdict = TrialVerdict.HEALTHY if healthy >= self.limit else TrialVerdict.OPEN
            return replace(seen, healthy=healthy, verdict=verdict)
        unhealthy = self.unhealthy + passed
        over = unhealthy >= max(self.limit, PATIENCE)
        verdict = TrialVerdict.UNHEALTHY if over else TrialVerdict.OPEN
        return replace(seen, unhealthy=unhealthy, verdict=verdict)


LOOK_EVERY = 1.0
"""Seconds between two looks at the store."""
HOPELESS = 4
"""A model that failed so often in a row is passed over: another one is there to answer."""
RETRY = 60.0
"""Seconds between two attempts to begin with a model, while there is none."""
WRITE_AGAIN = 10.0
"""Seconds between two attempts to write an outcome to a disk that refuses; each reads a bundle."""
SHORTLY = 1.0
"""Seconds that a command may keep the store locked before the log says so."""

Event = Callable[[Pointers], Pointers]


def _announce_nothing(bundle: Bundle) -> None:
    """Default of `Workshop.announce`; does nothing."""


@dataclass(frozen=True)
class Workshop:
    """How to make a model ready.

    read: the checked bundle in a slot, or GruardError. serve: a model and a fallback for it, not
    yet started; its model asks the given function before each start. announce: is given the bundle
    that answers from the next sample on.
    """

    read: Callable[[Path], Bundle]
    serve: Callable[[Bundle, Callable[[], bool]], Serving]
    announce: Callable[[Bundle], None] = _announce_nothing


@dataclass(frozen=True)
class FallbackOnly:
    """No bundle runs: the fallback answers for these channels, `period` seconds apart."""

    channels: tuple[str, ...]
    period: float | None


@dataclass
class _Contender:
    """A bundle with its slot held, or the fallback alone, without a slot.

    serving: None for the one that the supervisor made.
    """

    bundle: Bundle | FallbackOnly
    hold: Hold | None
    serving: Serving | None = None
    refused: bool = False  # its trial allows no further start, or there is no model to start
    loads: int = 0  # attempts of its trial that this run took
    held_up: bool = False  # its next attempt cannot be counted while the store is locked

    @property
    def slot(self) -> str:
        return "" if isinstance(self.bundle, FallbackOnly) else self.bundle.digest

    @property
    def name(self) -> str:
        return "the fallback" if isinstance(self.bundle, FallbackOnly) else label(self.bundle)

    @property
    def samples(self) -> FallbackOnly:
        """The channels and the period of what it answers."""
        if isinstance(self.bundle, FallbackOnly):
            return self.bundle
        return FallbackOnly(self.bundle.manifest.channel_names, self.bundle.manifest.period)

    def release(self) -> None:
        if self.hold is not None:
            self.hold.release()


@dataclass(frozen=True)
class _Outcome:
    """What became of a trial. told: what the log says once it is written, empty for nothing."""

    event: Event
    told: str = ""


class ModelSwitch:
    """The Exchange of a run from the store (`edge_runtime.supervision.worker_care`).

    running: the bundle that the run begins with. healthy: seconds until a trial is over.
    While only the fallback runs, what the store names is tried again every RETRY seconds.
    """

    def __init__(
        self,
        store: Store,
        running: Bundle | FallbackOnly,
        workshop: Workshop,
        healthy: float,
        clock: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self._store, self._workshop = store, workshop
        self._healthy, self._clock, self._log = healthy, clock, log
        self._troubles = LimitedLog(log, clock)
        hold = None if isinstance(running, FallbackOnly) else store.slots.hold(running.digest)
        self._running = _Contender(running, hold, refused=hold is None)
        self._candidate: _Contender | None = None
        self._passed_over: set[str] = set()  # slots that cannot take over as things are
        self._unreadable: dict[str, str] = {}  # slots, and why, as the log was told
        self._pointers = store.pointers()  # with the outcomes that are not written yet
        self._outcomes: list[_Outcome] = []
        self._busy_since: float | None = None
        self._stamp: Stamp | None = None
        self._next_look = self._next_retry = self._next_write = clock()
        self._probation = Probation(healthy)
        self._sound = False

    def may_start(self) -> bool:
        """Take an attempt of the trial, durably, if the run began with the one on trial."""
        return self._may_load(self._running)

    def after(self, record: Record, model: WorkerCare) -> Serving | None:
        """Look at the store, judge the trial, and hand over once the candidate is ready."""
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
        """End the candidate, and let go of the slots."""
        self._drop_candidate()
        self._running.release()

    def spare(self) -> None:
        """Give an attempt back: the run ended in good order, and the trial is still open."""
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
        self._passed_over.clear()  # somebody wants something: whatever was wrong may be mended
        try:
            self._pointers = self._with_outcomes(self._store.pointers())
        except GruardError as error:
            self._troubles.trouble("read", f"{error}; {self._running.name} goes on")
            return
        self._aim()

    def _aim(self) -> None:
        """Make the model ready that the store names, unless it is the running one."""
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
        begun = {self._running.slot, self._candidate.slot if self._candidate else None}
        return trial.slot if trial.attempts or trial.slot in begun else self._pointers.current

    def _prepare(self, slot: str) -> None:
        try:
            bundle = self._workshop.read(self._store.slots.path(slot))
            hold = self._store.slots.hold(slot)
        except BusyError:
            self._stamp = None  # the next look tries again
            return
        except GruardError as error:
            told, self._unreadable[slot] = self._unreadable.get(slot), str(error)
            self._give_up(slot, slot[:SHORT], str(error), quiet=told == str(error))
            return
        if difference := _difference(self._running, _Contender(bundle, hold)):
            self._log(f"{label(bundle)}: {difference}; restart needed: it waits for the next start")
            hold.release()
            self._passed_over.add(slot)
            self._aim()
            return
        contender = _Contender(bundle, hold)
        contender.serving = self._workshop.serve(bundle, partial(self._may_load, contender))
        contender.serving.model.understudy = self._running.name
        self._log(f"{label(bundle)}: is being loaded; {self._running.name} goes on")
        self._candidate = contender

    def _may_load(self, contender: _Contender) -> bool:
        """Whether the model may be loaded now; an attempt of a trial is durably counted."""
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

    def _judge(self, record: Record, model: WorkerCare, now: float) -> None:
        slot, name = self._running.slot, self._running.name
        if _lost(self._running, model):
            self._give_up(slot, name, _why("used up its attempts", model))
            return
        if self._running.held_up:  # not by its own fault
            self._probation = replace(self._probation, last=now)
            return
        self._probation = self._probation.judged(record, now)
        if self._probation.verdict is TrialVerdict.UNHEALTHY:
            minutes = self._probation.unhealthy / 60
            self._give_up(slot, name, f"was not healthy for {minutes:.1f} minutes")
        elif self._probation.verdict is TrialVerdict.HEALTHY:
            self._probation = Probation(self._healthy)
            told = f"sample {record.index}: {name} has proven itself and is current now"
            self._settle(_Outcome(lambda pointers: pointers.proven(slot), told))

    def _handed_over(self, index: int, old: WorkerCare) -> Serving | None:
        candidate = self._candidate
        if candidate is None or candidate.serving is None:
            return None
        model = candidate.serving.model
        model.tend(fresh=True)
        if _lost(candidate, model):
            self._drop_candidate()
            self._give_up(candidate.slot, candidate.name, _why("could not take over", model))
        if model.phase is not WorkerPhase.SERVING or not model.follow(old):
            return None
        model.understudy = "the fallback"
        self._running.release()
        self._running, self._candidate = candidate, None
        self._probation = Probation(self._healthy)
        self._log(f"sample {index + 1}: {candidate.name} answers from here on")
        if isinstance(candidate.bundle, Bundle):
            self._workshop.announce(candidate.bundle)
        return candidate.serving

    def _give_up(self, slot: str, name: str, reason: str, quiet: bool = False) -> None:
        """Go back from a trial; any other model that cannot be had is passed over in this run.

        quiet: the log knows already.
        """
        on_trial = self._pointers.on_trial(slot)
        if on_trial or not quiet:
            self._log(f"{name}: {reason}; {'going back' if on_trial else 'passed over'}")
        if on_trial:
            self._settle(_Outcome(lambda pointers: pointers.failed(slot, reason)))
        else:
            self._passed_over.add(slot)
        self._aim()

    def _settle(self, outcome: _Outcome) -> None:
        """Let an outcome hold from now on, and write it as soon as that is possible."""
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
        """Move the pointers durably, by the outcomes that are not written yet, and by `event`.

        Raises what `Store.change` and `event` do; the log has a line then, unless a command has the
        store locked for a moment only.
        """
        try:
            self._pointers = self._store.change(
                lambda found: event(self._with_outcomes(found)), waits
            )
        except BusyError as error:
            now = self._clock()
            self._busy_since = now if self._busy_since is None else self._busy_since
            if now - self._busy_since >= SHORTLY:
                self._troubles.trouble("write", f"{error}; until then this run tries again")
            raise
        except GruardError as error:
            self._troubles.trouble("write", str(error))
            self._next_write = self._clock() + WRITE_AGAIN
            raise
        self._busy_since = None
        self._troubles.over(f"{self._store.root}: can be written again", "write")
        outcomes, self._outcomes = self._outcomes, []
        for line in (outcome.told for outcome in outcomes if outcome.told):
            self._log(line)

    def _drop_candidate(self) -> None:
        candidate, self._candidate = self._candidate, None
        if candidate and candidate.serving:
            candidate.serving.model.stop()
            candidate.release()


def _lost(contender: _Contender, model: WorkerCare) -> bool:
    """Whether the model is not worth, or not allowed, another start."""
    waiting = model.phase is WorkerPhase.WAITING
    return waiting and (contender.refused or model.failures >= HOPELESS)


def _why(what: str, model: WorkerCare) -> str:
    return f"{what}: {model.failure}" if model.failure else what


def _difference(running: _Contender, other: _Contender) -> str:
    """Why `other` cannot answer the samples that are being read for `running`; empty if it can."""
    if running.samples.channels != other.samples.channels:
        return f"its channels are not those of {running.name}"
    if running.samples.period != other.samples.period:
        return f"its sample period is not that of {running.name}"
    return ""
