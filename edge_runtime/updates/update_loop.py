"""Checks for updates again and again, and reports what became of them.

A check that fails is repeated after a pause that doubles. All pauses vary by a quarter, so that a
fleet that was switched on at once does not ask at once. Between checks the loop looks at the store,
because a trial ends in another process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.plain import write_sealed
from edge_runtime.updates.store import Store
from edge_runtime.updates.update_check import DeviceReport, UpdateResult, report_of

LOOK = 5.0
"""Seconds between two looks at the store."""
FIRST_PAUSE = 30.0
"""Seconds until a failed check, or a report that was not sent, is repeated; the pause doubles."""
_LONGEST_PAUSE = 3600.0
_SPREAD = 0.25


@dataclass(frozen=True)
class Surroundings:
    """Clock (monotonic seconds), wall clock (epoch seconds), sleep, and a share in [0, 1)."""

    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    share: Callable[[], float] = random.random

    def varied(self, seconds: float) -> float:
        """Return `seconds`, up to a quarter more or less."""
        return seconds * (1 + _SPREAD * (2 * self.share() - 1))


class SendsReports(Protocol):
    """`Reporter`, or a test's own."""

    def send(self, report: DeviceReport) -> None:
        """Send one report. Raises GruardError."""


class Outbound:
    """Keeps the report of a store: in `file`, and at the broker if there is one.

    A report that could not be sent is sent later, as it is then. log takes one line.
    """

    def __init__(
        self,
        store: Store,
        asset: str,
        file: Path,
        sender: SendsReports | None,
        log: Callable[[str], None],
        around: Surroundings,
    ) -> None:
        self._store, self._asset, self._sender, self._around = store, asset, sender, around
        self._log = LimitedLog(log, around.clock)
        self._file = file
        self._last: DeviceReport | None = None
        self._seen: tuple[object, ...] = ()
        self._unsent, self._pause, self._next = True, FIRST_PAUSE, around.clock()

    def tell(self, problem: str) -> None:
        """Write and send the report if it has changed, or was not sent yet.

        problem: of the last check. Never raises; troubles are logged.
        """
        seen = (self._store.stamp(), problem)
        if seen == self._seen and not (self._sender and self._unsent):
            return
        try:
            report = report_of(self._asset, self._store.pointers(), problem, self._around.wall())
        except GruardError as error:
            self._log.trouble("store", str(error))
            return
        self._seen = seen
        if self._last is None or replace(report, told=self._last.told) != self._last:
            self._last, self._unsent = report, True
            self._log.attempt_write(
                self._file, lambda: write_sealed(self._file, report), "the report is outdated"
            )
        if self._sender and self._unsent and self._around.clock() >= self._next:
            self._send(self._sender, report)

    def _send(self, sender: SendsReports, report: DeviceReport) -> None:
        try:
            sender.send(report)
        except GruardError as error:
            self._log.trouble("report", f"{error}; the report is sent later")
            self._next = self._around.clock() + self._around.varied(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return
        self._log.over("the report was sent", "report")
        self._unsent, self._pause = False, FIRST_PAUSE


def keep_updating(
    check: Callable[[], UpdateResult],
    every: float,
    outbound: Outbound,
    say: Callable[[UpdateResult], None],
    log: Callable[[str], None],
    around: Surroundings,
) -> None:
    """Check every so many seconds until the process is ended.

    say takes the result of each check that changed something or differs from the one before; log
    one line for a failed one.
    """
    last: UpdateResult | None = None
    troubles, problem, failures = LimitedLog(log, around.clock), "", 0
    due = around.clock() + around.share() * min(every, FIRST_PAUSE)
    while True:
        if around.clock() >= due:
            try:
                result = check()
            except GruardError as error:
                problem = str(error)
                pause = min(FIRST_PAUSE * 2**failures, _LONGEST_PAUSE, every)
                failures = min(failures + 1, 30)
                troubles.trouble("check", f"{problem}; checked again in {pause:.0f} s or so")
            else:
                problem, failures, pause = result.problem, 0, every
                troubles.over("the check succeeded", "check")
                if result != last:
                    say(result)
                last = result
            due = around.clock() + around.varied(pause)
        outbound.tell(problem)
        around.sleep(LOOK)
