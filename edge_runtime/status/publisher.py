"""Observe a run from inside its loop, and publish a snapshot once a second.

A record costs a few microseconds: what takes longer happens once a second, and what may hang
happens in a thread of an outlet. `ScoreHistory` keeps the recent scores for `gruard top`, `TierLog`
logs the changes of tier, and `StatusPublisher` makes the snapshots.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

from edge_runtime.record import Flag, Record, flag_names
from edge_runtime.status.board import BoardMonitor, changes
from edge_runtime.status.health import start_ticks
from edge_runtime.status.snapshot import (
    SCHEMA,
    Answer,
    BoardHealth,
    ChannelStatus,
    Counts,
    Input,
    LearningStatus,
    ModelStatus,
    ProcessStatus,
    Snapshot,
)
from edge_runtime.supervision.policy import TIERS, WorkerPhase
from edge_runtime.supervision.summary import Summary
from edge_runtime.supervision.supervisor import RunState
from edge_runtime.threads import Threads

LENGTH = 120
"""Points of the curve."""
_LARGEST_SHARE = 1e6  # thresholds; strict JSON has no infinity
LINES, WINDOW = 6, 60.0
"""Log at most so many changes of tier within so many seconds: a fluttering detector must not fill
the system's log."""
EVERY = 1.0
"""Seconds between two snapshots, at least."""
LOADING_PATIENCE = 60.0
"""Seconds until a run without a first record counts as hung; loading may take 20 of them."""
PATIENCE, PATIENCE_PERIODS = 10.0, 3.0
"""Seconds until a silent run counts as hung, but at least so many of its periods."""


class ScoreHistory:
    """One point per call of `point`: the score's highest share of its threshold since the last.

    A share, because model and fallback score on different scales. The highest, because a mean would
    hide a single strange sample.
    """

    def __init__(self) -> None:
        self._points: deque[float | None] = deque(maxlen=LENGTH)
        self._highest: float | None = None

    def add(self, score: float | None, threshold: float | None) -> None:
        """Add the score of one record."""
        if score is None or threshold is None or score != score or not threshold > 0:
            return
        share = max(-_LARGEST_SHARE, min(score / threshold, _LARGEST_SHARE))
        if self._highest is None or share > self._highest:
            self._highest = share

    def point(self) -> tuple[float | None, ...]:
        """Close the latest point; return all, oldest first, None where there was no score."""
        highest, self._highest = self._highest, None
        self._points.append(None if highest is None else round(highest, 4))
        return tuple(self._points)


class TierLog:
    """Logs the changes of tier. log takes one line; clock gives monotonic seconds."""

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._log, self._clock = log, clock
        self._last: Record | None = None
        self._logged: deque[float] = deque([float("-inf")] * LINES, maxlen=LINES)  # when
        self._skipped = 0

    def note(self, record: Record) -> None:
        """Compare a record with the one before; call for each of them."""
        before, self._last = self._last, record
        changed = before is not None and before.tier != record.tier
        if not changed and not self._skipped:
            return
        now = self._clock()
        if now - self._logged[0] < WINDOW:
            self._skipped += changed
            return
        self._logged.append(now)
        self._log_change(record, before if changed else None)

    def end(self) -> None:
        """Log the changes that were skipped last: a recording of days may run within the window."""
        if self._last is not None and self._skipped:
            self._log_change(self._last, None)

    def _log_change(self, record: Record, before: Record | None) -> None:
        tier = record.tier if before is None else f"{before.tier}→{record.tier}"
        flags = ", ".join(flag_names(record.flags))
        why, others = f" ({flags})" if flags else "", ""
        if self._skipped:
            changes = "change" if self._skipped == 1 else "changes"
            others = f"; {self._skipped} earlier {changes} not logged"
        self._log(f"sample {record.index}: tier {tier}, {TIERS[record.tier]}{why}{others}")
        self._skipped = 0


class Outlet(Protocol):
    """Takes snapshots. No method waits or raises."""

    def publish(self, snapshot: Snapshot) -> None:
        """Take the latest one."""

    def close(self) -> None:
        """End; no more snapshots will come."""


class StatusPublisher:
    """Publishes a run's snapshots; a context that publishes the last one at its end.

    name, version, hash: of the bundle. slowest: the longest time between samples or for an answer,
    in seconds. clock: monotonic seconds; wall: epoch seconds. threads: those of the run.
    no_bundle: why no bundle runs and only the fallback answers; empty while one does.
    """

    def __init__(
        self,
        name: str,
        version: int,
        model_hash: str,
        channels: Sequence[str],
        slowest: float,
        outlets: Sequence[Outlet],
        log: Callable[[str], None],
        board: BoardMonitor,
        threads: Threads,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._version, self._hash = name, version, model_hash
        self.no_bundle = ""
        self.learning: Callable[[], LearningStatus | None] = lambda: None
        self._channels, self._outlets = tuple(channels), tuple(outlets)
        self._patience = max(PATIENCE, PATIENCE_PERIODS * slowest)
        self._log, self._clock, self._wall = log, clock, wall
        self._board, self._threads = board, threads
        self._health: BoardHealth | None = None
        self._tiers, self._trail = TierLog(log, clock), ScoreHistory()
        self._masked: Counter[str] = Counter()
        self._imputed: Counter[str] = Counter()
        self._state: Callable[[], RunState] = lambda: RunState(Summary(), WorkerPhase.LOADING, "")
        self._pid, self._ticks = os.getpid(), start_ticks(os.getpid())
        self._started, self._begun = wall(), clock()
        self._heard = self._begun  # when the last reading was answered
        self._phase, self._phase_begun = WorkerPhase.LOADING, self._begun
        self._next = float("-inf")
        self._before: tuple[float, int] | None = None  # time and records of the last snapshot

    def __enter__(self) -> StatusPublisher:
        self._publish(self._clock(), ended=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tiers.end()
        # An ending by signal is in good order.
        self._publish(self._clock(), ended=not isinstance(error, Exception))
        for outlet in self._outlets:
            outlet.close()
        self._board.close()

    def answered_by(self, name: str, version: int, model_hash: str) -> None:
        """Note that another bundle answers from now on."""
        self._name, self._version, self._hash = name, version, model_hash
        self.no_bundle = ""

    def observe(self, record: Record, state: Callable[[], RunState]) -> None:
        """Count one record that is out; ask for the state only when a snapshot is due."""
        self._tiers.note(record)
        self._trail.add(record.score, record.threshold)
        if record.masked:
            self._masked.update(record.masked)
        if record.imputed:
            self._imputed.update(record.imputed)
        if Flag.GAP not in record.flags:
            self._heard = self._clock()
        self.turn(state)

    def turn(self, state: Callable[[], RunState]) -> None:
        """Publish once a second; call once per turn of the loop, also without a record."""
        now = self._clock()
        if now >= self._next:
            self._state, self._next = state, now + EVERY
            self._threads.look()
            self._publish(now, ended=False)

    def _publish(self, now: float, ended: bool) -> None:
        health = self._board.latest()
        for line in changes(self._health, health):
            self._log(line)
        self._health = health or self._health
        if self._outlets:
            snapshot = self._snapshot(now, ended)
            for outlet in self._outlets:
                outlet.publish(snapshot)

    def _snapshot(self, now: float, ended: bool) -> Snapshot:
        state = self._state()
        last, counts = state.summary.last, Counts.of(state.summary)
        if state.phase is not self._phase:
            self._phase, self._phase_begun = state.phase, now
        learning = self.learning()
        no_bundle = self.no_bundle and f"model has no usable bundle: {self.no_bundle}"
        if learning and learning.active:
            no_bundle = ""  # the learning says why
        return Snapshot(
            SCHEMA,
            self._process(now, ended, begun=last is not None),
            ModelStatus(
                self._name,
                self._version,
                self._hash,
                state.kernel,
                state.phase.value,
                state.waiting or no_bundle,
                self._epoch(self._phase_begun, now),
            ),
            Input(self._silent_since(now, last), state.away),
            None if last is None else Answer.of(last),
            state.alarm,
            state.finding,
            state.mute,
            learning,
            counts,
            self._channel_states(last),
            self._trail.point() if last else (),
            self._rate(now, counts.records),
            self._board.latest(),
            self._threads.states(),
        )

    def _silent_since(self, now: float, last: Record | None) -> float | None:
        missing = last is None or (Flag.GAP in last.flags and not last.valid)
        silent = missing or now - self._heard > self._patience
        return self._epoch(self._heard, now) if silent else None

    def _epoch(self, moment: float, now: float) -> float:
        """Return a monotonic moment in epoch seconds, by the present wall clock."""
        return self._wall() - (now - moment)

    def _process(self, now: float, ended: bool, begun: bool) -> ProcessStatus:
        patience = self._patience if begun else max(self._patience, LOADING_PATIENCE)
        uptime = now - self._begun
        return ProcessStatus(self._pid, self._ticks, self._started, uptime, now, patience, ended)

    def _channel_states(self, last: Record | None) -> tuple[ChannelStatus, ...]:
        states = (last.masked, last.imputed, last.blamed) if last else ((), (), ())
        masked, imputed, blamed = map(set, states)
        counts = self._masked, self._imputed
        return tuple(
            ChannelStatus(n, n in masked, n in imputed, n in blamed, *(c[n] for c in counts))
            for n in self._channels
        )

    def _rate(self, now: float, records: int) -> float | None:
        before, self._before = self._before, (now, records) if records else None
        if before is None or now <= before[0]:
            return None
        return (records - before[1]) / (now - before[0])
