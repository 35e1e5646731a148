"""When a run learns: at first from enough readings, later again and again.

    recording ──enough rows──→ learning ──installed──→ a model answers ──every `again`──→ learning
        ↑                         │
        └── not fit: more rows ───┤
        └── failed: a pause ──────┘

How far the recording is follows from the readings on the disk. Only what cannot follow from them is
in a small sealed file in the store: how many rows are wanted after a recording that was not fit,
and when was learned last, with which result.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_runtime.autolearn.child import (
    KEPT_OUT,
    OUT_OF_MEMORY,
    PROMOTED,
    BackgroundChild,
    ChildResult,
    memory_limit,
)
from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.look.facts import FEWEST_ROWS
from edge_runtime.plain import read_sealed, write_sealed
from edge_runtime.readings.meter import PeriodFinder
from edge_runtime.readings.recorder import Recorder
from edge_runtime.sources.source import Reading
from edge_runtime.status.health import learning_words
from edge_runtime.status.snapshot import LearningStatus

HISTORY = "learning.json"
"""Name of the file in the store."""
PROLONGED = 4
"""A recording that is not fit is prolonged by one part in so many of what was asked for."""
LAST_TRY = 2
"""With so many times what was asked for, something is learned from it all the same."""
FULL = 0.9
"""Share of the folder's size at which learning begins with what is there: more would push out the
oldest readings before anything was learned from them."""
PAUSES = (60.0, 300.0, 1800.0, 7200.0)
"""Seconds after the first, second, … failure in a row of the child; the last one is repeated."""
LEARNER = (sys.executable, "-m", "edge_runtime.autolearn.learner")
RELEARNER = (sys.executable, "-m", "edge_runtime", "relearn", "--json")
"""Commands that learn at first and again; their exit codes are those of `ChildResult`."""
TOLD_EVERY = 600.0
"""Seconds between two log lines about the progress."""


@dataclass(frozen=True)
class LearningPlan:
    """What a run was asked to do.

    store, readings, state: folders. first: seconds of readings to learn from, None to learn nothing
    where there is no bundle. again: seconds between two later times, None for never. period:
    seconds between samples, None to measure it. capacity: bytes of the readings.
    """

    store: Path
    readings: Path
    state: Path | None
    first: float | None
    again: float | None
    period: float | None
    capacity: int


@dataclass(frozen=True)
class LearningHistory:
    """rows: wanted after a recording that was not fit, 0 before. last: epoch seconds, 0 for never.

    result: of the last time, in words.
    """

    rows: int = 0
    last: float = 0.0
    result: str = ""


class LearningKeeper:
    """Starts the child when it is time, and tells how it went. No method raises or waits.

    rows: readings on the disk at the start. has_model: a bundle answers already. live: as of a
    source; a file waits for the child. clock: monotonic seconds; wall: epoch seconds. on_install:
    called when a bundle was installed.
    """

    def __init__(
        self,
        plan: LearningPlan,
        recorder: Recorder,
        rows: int,
        has_model: bool,
        live: bool,
        clock: Callable[[], float],
        wall: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self.on_install: Callable[[], None] = lambda: None
        self._plan, self._recorder, self._before = plan, recorder, rows
        self._active, self._live = not has_model and plan.first is not None, live
        self._clock, self._wall, self._log = clock, wall, log
        self._troubles = LimitedLog(log, clock)
        self._memory = memory_limit()
        self._child = BackgroundChild(self._memory)
        self._finder = PeriodFinder(live)
        self._period = plan.period
        self._history = self._read_history()
        self._failures, self._not_before = 0, clock()
        self._parts = 1  # the newest of so many parts of the rows is used
        self._due = clock() + self._left_until_again()
        self._next_line = clock()
        self._installed = False  # what was learned waits for the switch
        self._seen = self._next_rows = 0
        if plan.again is not None and has_model and not self._history.last:
            self._save(LearningHistory(last=wall()))

    @property
    def rows(self) -> int:
        """Readings on the disk."""
        return self._before + self._recorder.written

    @property
    def target(self) -> int | None:
        """Readings to learn from; None while the period is unknown."""
        if self._plan.first is None or self._period is None:
            return None
        return max(self._asked, self._history.rows)

    def status(self) -> LearningStatus:
        """Where learning stands."""
        target, period = self.target, self._period
        left = None if target is None or not period else max(target - self.rows, 0) * period
        again = self._plan.again is not None and not self._active
        return LearningStatus(
            active=self._active,
            rows=self.rows,
            target=target,
            left=left,
            learning=self._child.running,
            result=self._history.result,
            last=self._history.last or None,
            next=self._wall() + max(self._due - self._clock(), 0.0) if again else None,
        )

    def see(self, reading: Reading, now: float) -> None:
        """Take a reading that was just recorded."""
        self._seen += 1
        if self._period is None:
            self._period = self._finder.see(reading, now)

    def tend(self) -> None:
        """Start the child or see how it ended; call once per turn of the loop."""
        now = self._clock()
        if self._child.running:
            if result := self._child.result(waits=not self._live):
                self._settle(result, now)
        elif now >= self._not_before and (command := self._command(now)):
            self._start(command)
        if self._active and now >= self._next_line:
            self._next_line = now + TOLD_EVERY
            self._log(self.words())

    def answered(self) -> None:
        """A model answers from now on."""
        self._active = self._installed = False
        self._due = self._clock() + self._left_until_again()

    def close(self) -> None:
        """End the child."""
        self._child.stop()

    def words(self) -> str:
        """Return how far it is: `learning 3,412 of 8,640 rows, 14 h left`."""
        return learning_words(self.status())

    def _command(self, now: float) -> list[str] | None:
        """Return what to run now, None for nothing."""
        plan, target = self._plan, self.target
        if self._active:
            if self._installed or target is None or not self._enough(target):
                return None
            rows = max(max(target, self.rows) // self._parts, FEWEST_ROWS)
            words = ["--rows", str(rows), "--period", repr(self._period)]
            last = ["--last-try"] if self.rows >= LAST_TRY * self._asked or self._full else []
            return [*LEARNER, *self._folders, *words, *last]
        if plan.again is None or now < self._due:
            return None
        state = ["--state", str(plan.state)] if plan.state else []
        return [*RELEARNER, *self._folders, *state]

    @property
    def _folders(self) -> list[str]:
        return ["--store", str(self._plan.store), "--readings", str(self._plan.readings)]

    @property
    def _asked(self) -> int:
        """Readings that were asked for; the period is known."""
        return max(math.ceil((self._plan.first or 0.0) / (self._period or 1.0)), FEWEST_ROWS)

    def _enough(self, target: int) -> bool:
        if not self._live and self._before + self._seen >= target:
            self._recorder.drain(0)
        return self.rows >= target or (self._full and self.rows >= self._next_rows)

    @property
    def _full(self) -> bool:
        return self._recorder.size >= FULL * self._plan.capacity

    def _start(self, command: list[str]) -> None:
        try:
            self._child.start(command)
        except OSError as error:
            self._pause(f"cannot be started ({error.strerror})", self._clock())
            return
        self._log(f"learning from {self.rows:,} rows in {self._plan.readings}, in the background")
        if not self._live:
            self.tend()

    def _settle(self, result: ChildResult, now: float) -> None:
        if result.code == PROMOTED:
            self._failures, self._installed = 0, self._active
            self.on_install()
            self._remember(f"{result.reason or 'a bundle'} was learned and installed", rows=0)
        elif result.code == KEPT_OUT:
            self._failures = 0
            self._keep_out(result.reason)
        else:
            self._pause(result.reason, now)
            return
        self._due = now + (self._plan.again or 0.0)

    def _keep_out(self, reason: str) -> None:
        target = self.target
        if not self._active or target is None:
            self._remember(f"the present bundle stays: {reason}", rows=0)
            return
        more = math.ceil(self._asked / PROLONGED)
        self._next_rows = self.rows + more
        self._remember(f"not fit to learn from, {more:,} rows more: {reason}", self._next_rows)

    def _pause(self, reason: str, now: float) -> None:
        pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
        self._failures += 1
        if OUT_OF_MEMORY in reason:
            self._parts *= 2
        self._not_before = now + pause
        self._history = replace(self._history, result=f"learning failed: {reason}")
        self._log(f"learning failed: {reason}; tried again in {pause / 60:g} min")

    def _remember(self, result: str, rows: int) -> None:
        self._log(result)
        self._save(LearningHistory(rows, self._wall(), result))

    def _save(self, history: LearningHistory) -> None:
        self._history = history
        file = self._plan.store / HISTORY
        lost = "a restart does not know of it"
        self._troubles.attempt_write(file, lambda: write_sealed(file, history), lost)

    def _read_history(self) -> LearningHistory:
        try:
            return read_sealed(self._plan.store / HISTORY, LearningHistory) or LearningHistory()
        except GruardError as error:
            self._log(f"{error}; it is replaced with the next result")
            return LearningHistory()

    def _left_until_again(self) -> float:
        """Return the seconds until the next time; a wall clock that was set cannot move it far."""
        again, last = self._plan.again or 0.0, self._history.last or self._wall()
        return min(max(last + again - self._wall(), 0.0), again)
