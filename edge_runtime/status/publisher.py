"""Watches a run from inside its loop, and publishes a snapshot once a second.

A few microseconds a record: everything that takes longer happens once a second, and whatever may
hang happens in a thread of an outlet.

The score's recent course in a few points, for a curve on a terminal.

Log lines about changes of tier: all are counted, at most a few a minute are logged.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

from edge_runtime.record import Flag, Record, flag_names
from edge_runtime.status.board import changes
from edge_runtime.status.health import start_ticks
from edge_runtime.status.snapshot import (
    SCHEMA,
    Answer,
    BoardHealth,
    ChannelStatus,
    Counts,
    Input,
    ModelStatus,
    ProcessStatus,
    Snapshot,
)
from edge_runtime.supervision.policy import TIERS, WorkerPhase
from edge_runtime.supervision.summary import Summary
from edge_runtime.supervision.supervisor import RunState
from edge_runtime.threads import Threads

LENGTH = 120
_BEYOND = 1e6  # thresholds; strict JSON has no infinity


class Trail:
    """One point per call of `point`: the highest share of its threshold a score has had since.

    A share and not the score, because model and fallback score on different scales. The highest
    and not the mean, because a single strange sample is what the curve is looked at for.
    """

    def __init__(self) -> None:
        self._points: deque[float | None] = deque(maxlen=LENGTH)
        self._highest: float | None = None

    def add(self, score: float | None, threshold: float | None) -> None:
        """Take the score of one record."""
        if score is None or threshold is None or score != score or not threshold > 0:
            return
        share = max(-_BEYOND, min(score / threshold, _BEYOND))
        if self._highest is None or share > self._highest:
            self._highest = share

    def point(self) -> tuple[float | None, ...]:
        """Close the latest point; all points, oldest first, None where there was no score."""
        highest, self._highest = self._highest, None
        self._points.append(None if highest is None else round(highest, 4))
        return tuple(self._points)


LINES, WINDOW = 6, 60.0
"""So many lines within so many seconds: a detector that flutters must not fill the journal."""


class TierLog:
    """Logs who vouches from now on.

    log takes one line; clock gives monotonic seconds.
    """

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._log, self._clock = log, clock
        self._last: Record | None = None
        self._told: deque[float] = deque([float("-inf")] * LINES, maxlen=LINES)
        self._untold = 0

    def note(self, record: Record) -> None:
        """Look at one record; call for each of them."""
        before, self._last = self._last, record
        changed = before is not None and before.tier != record.tier
        if not changed and not self._untold:
            return
        now = self._clock()
        if now - self._told[0] < WINDOW:
            self._untold += changed
            return
        self._told.append(now)
        self._log(self._line(record, before if changed else None))
        self._untold = 0

    def end(self) -> None:
        """Tell what is still untold: a recording of days may take less than the window."""
        if self._last is not None and self._untold:
            self._log(self._line(self._last, None))
            self._untold = 0

    def _line(self, record: Record, before: Record | None) -> str:
        tier = record.tier if before is None else f"{before.tier}→{record.tier}"
        why = ", ".join(flag_names(record.flags))
        untold = (
            "1 change before was" if self._untold == 1 else f"{self._untold} changes before were"
        )
        others = f"; {untold} not told" if self._untold else ""
        line = f"sample {record.index}: tier {tier}, {TIERS[record.tier]}"
        return line + (f" ({why})" if why else "") + others


EVERY = 1.0
"""Seconds between two snapshots, at least."""
LOADING_PATIENCE = 60.0
"""Seconds until a run without a first record is suspect; loading may take 20 of them."""
PATIENCE, PATIENCE_PERIODS = 10.0, 3.0
"""Seconds until a silent run is suspect, but at least so many of its periods."""


class Outlet(Protocol):
    """Takes snapshots without waiting or raising."""

    def publish(self, snapshot: Snapshot) -> None:
        """Take the latest one."""

    def close(self) -> None:
        """No more will come."""


class HealthSource(Protocol):
    """The board, as far as it is needed here."""

    def latest(self) -> BoardHealth | None:
        """The last look at it."""

    def close(self) -> None:
        """Look no more."""


class StatusPublisher:
    """What a supervisor calls after every record; a context that publishes the last word too.

    name, version, hash: of the bundle. slowest: seconds between samples, and for an answer, at
    their longest. clock: monotonic seconds; wall: epoch seconds. threads: those of the run.
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
        board: HealthSource,
        threads: Threads,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._version, self._hash = name, version, model_hash
        self.no_bundle = ""
        self._channels, self._outlets = tuple(channels), tuple(outlets)
        self._patience = max(PATIENCE, PATIENCE_PERIODS * slowest)
        self._log, self._clock, self._wall = log, clock, wall
        self._board, self._threads = board, threads
        self._health: BoardHealth | None = None
        self._tiers, self._trail = TierLog(log, clock), Trail()
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
        self._publish(self._clock(), ended=not isinstance(error, Exception))  # a signal is an order
        for outlet in self._outlets:
            outlet.close()
        self._board.close()

    def answered_by(self, name: str, version: int, model_hash: str) -> None:
        """Take note that another bundle answers from now on."""
        self._name, self._version, self._hash = name, version, model_hash
        self.no_bundle = ""

    def _no_bundle(self) -> str:
        return self.no_bundle and f"model has no usable bundle: {self.no_bundle}"

    def observe(self, record: Record, state: Callable[[], RunState]) -> None:
        """Look at one record that is out; ask for the state only when a snapshot is due."""
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
        """Do what is due once a second; call once per turn of the loop, also without a record."""
        now = self._clock()
        if now >= self._next:
            self._state, self._next = state, now + EVERY
            self._threads.look()
            self._publish(now, ended=False)

    def _publish(self, now: float, ended: bool) -> None:
        self._look_at_board()
        if not self._outlets:
            return
        snapshot = self._snapshot(now, ended)
        for outlet in self._outlets:
            outlet.publish(snapshot)

    def _look_at_board(self) -> None:
        health = self._board.latest()
        for line in changes(self._health, health):
            self._log(line)
        self._health = health or self._health

    def _snapshot(self, now: float, ended: bool) -> Snapshot:
        state = self._state()
        last, counts = state.summary.last, Counts.of(state.summary)
        if state.phase is not self._phase:
            self._phase, self._phase_begun = state.phase, now
        return Snapshot(
            SCHEMA,
            self._process(now, ended, begun=last is not None),
            ModelStatus(
                self._name,
                self._version,
                self._hash,
                state.kernel,
                state.phase.value,
                state.waiting or self._no_bundle(),
                self._epoch(self._phase_begun, now),
            ),
            Input(self._silent_since(now, last), state.away),
            None if last is None else Answer.of(last),
            state.finding,
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
        """Epoch seconds of a monotonic moment, by the wall clock as it is now."""
        return self._wall() - (now - moment)

    def _process(self, now: float, ended: bool, begun: bool) -> ProcessStatus:
        patience = self._patience if begun else max(self._patience, LOADING_PATIENCE)
        uptime = now - self._begun
        return ProcessStatus(self._pid, self._ticks, self._started, uptime, now, patience, ended)

    def _channel_states(self, last: Record | None) -> tuple[ChannelStatus, ...]:
        masked, imputed, blamed = (
            (set(last.masked), set(last.imputed), set(last.blamed)) if last else [set[str]()] * 3
        )
        return tuple(
            ChannelStatus(
                name,
                name in masked,
                name in imputed,
                name in blamed,
                self._masked[name],
                self._imputed[name],
            )
            for name in self._channels
        )

    def _rate(self, now: float, records: int) -> float | None:
        before, self._before = self._before, (now, records) if records else None
        if before is None or now <= before[0]:
            return None
        return (records - before[1]) / (now - before[0])
