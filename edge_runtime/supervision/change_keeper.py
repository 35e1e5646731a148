"""Keep a lasting change over restarts, and read the owner's answer to it.

The keeper follows the model that serves: each worker reports its lasting change, and each one that
starts resumes from it. It is written at each event, else every ten minutes.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge_runtime.detector.lasting_change import (
    KEPT,
    WORD,
    ChangePhase,
    Finding,
    KeptChange,
    LastingChange,
    Word,
)
from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.files import stamp_of
from edge_runtime.plain import read_sealed, write_sealed
from edge_runtime.record import Record
from edge_runtime.supervision.worker_manager import WorkerManager

LOOK_EVERY = 1.0
"""Seconds between two reads of the owner's word."""
WRITE_EVERY, WRITE_AGAIN = 600.0, 60.0
"""Seconds between two writes without an event, and after a failed one."""


class ChangeKeeper:
    """finding: the change that was reported, None while the machine runs as recorded.

    folder: where it is kept; None keeps it in memory only. clock: monotonic seconds; wall: epoch
    seconds. log takes one line per event. No method raises.
    """

    def __init__(
        self,
        folder: Path | None,
        clock: Callable[[], float],
        wall: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self.finding: Finding | None = None
        self._folder, self._clock, self._wall = folder, clock, wall
        self._log = LimitedLog(log, clock)
        self._bundle = ""
        self._change: LastingChange | None = None
        self._blamed: tuple[str, ...] = ()  # by the last alarm
        self._word: Word | None = None
        self._stamp: tuple[int, int, int] | None = None  # of the word's file
        self._unsaved = False
        self._next_look = self._next_write = clock()

    def load(
        self, bundle: str, fault: Callable[[LastingChange], str | None]
    ) -> LastingChange | None:
        """Return the change that the last run kept for `bundle`; log and return None if unusable.

        fault: returns why a change cannot belong to the bundle, None when it can.
        """
        self._bundle = bundle
        if self._folder is None:
            return None
        try:
            kept = read_sealed(self._folder / KEPT, KeptChange)
            if kept is None:
                return None
            kept = kept.sound
            why = "of another bundle" if kept.bundle != bundle else fault(kept.change)
            if why:
                raise GruardError(f"{self._folder / KEPT}: {why}")
        except GruardError as error:
            self._log.trouble("load", f"{error}; the machine is judged as it was recorded")
            return None
        self.finding, self._change = kept.finding, kept.change
        return kept.change

    def after(self, record: Record, model: WorkerManager) -> None:
        """Follow the state of `model`, which serves, after `record`."""
        if record.alarm and record.blamed:
            self._blamed = record.blamed
        if model.bundle != self._bundle:
            self._bundle, self._change, self.finding = model.bundle, None, None
        if model.change is not self._change and model.change is not None:
            self._follow(model.change, record.index)
        if (now := self._clock()) >= self._next_look:
            self._next_look = now + LOOK_EVERY
            self._read_word(model, record.index)
            if self._unsaved and now >= self._next_write:
                self._write(now)

    def close(self) -> None:
        """Write a change that is not written yet."""
        if self._unsaved:
            self._write(self._clock())

    def _follow(self, change: LastingChange, index: int) -> None:
        self._change, self._unsaved = change, True
        finding, here = self.finding, f"sample {index}: "
        if change.phase == ChangePhase.AS_RECORDED:
            if finding is not None:
                self._report("back", None, f"{here}the machine is back where it was recorded")
        elif finding is None or (change.count != finding.count and finding.accepted is not None):
            fresh = Finding(self._wall(), self._blamed, change.count, None, "")
            where = f" on {', '.join(fresh.channels)}" if fresh.channels else ""
            self._report(
                "reported",
                fresh,
                f"{here}a change{where} has lasted and is reported; alarms are now judged against "
                "the changed machine; check it, and if it is to run like this, run gruard accept",
            )
        elif change.count != finding.count:
            channels = tuple(dict.fromkeys((*finding.channels, *self._blamed)))
            self._report(
                "further",
                replace(finding, count=change.count, channels=channels),
                f"{here}the machine has changed again, on {', '.join(self._blamed)}",
            )

    def _report(self, topic: str, finding: Finding | None, line: str) -> None:
        self.finding = finding
        self._next_look = self._next_write = self._clock()
        self._log.trouble(topic, line)

    def _read_word(self, model: WorkerManager, index: int) -> None:
        """Apply the owner's word, and pass it to the model until the model has it."""
        finding, change = self.finding, self._change
        if finding is None or change is None:
            return
        word, kept = self._newest_word(), KeptChange(self._bundle, change, finding)
        if word and word.names(kept) and word.accepted != (finding.accepted is not None):
            accepted = word.told if word.accepted else None
            why = f" ({word.reason})" if word.reason else ""
            what = "is accepted" if word.accepted else "is open again"
            finding = replace(finding, accepted=accepted, reason=word.reason)
            self._report("word", finding, f"sample {index}: the reported change {what}{why}")
            self._unsaved = True
        if change.phase != finding.phase:
            model.accept(finding.accepted is not None)
            self._change = model.change

    def _newest_word(self) -> Word | None:
        if self._folder is None:
            return None
        file = self._folder / WORD
        if (stamp := stamp_of(file)) and stamp != self._stamp:
            self._stamp = stamp
            try:
                self._word = read_sealed(file, Word)
            except GruardError as error:
                self._log.trouble("read", f"{error}; run gruard accept again")
        return self._word

    def _write(self, now: float) -> None:
        if self._folder is None or self._change is None:
            self._unsaved = False
            return
        kept = KeptChange(self._bundle, self._change, self.finding).sound
        file, lost = self._folder / KEPT, "the next start will not know where the machine stands"
        self._unsaved = not self._log.attempt_write(file, lambda: write_sealed(file, kept), lost)
        self._next_write = now + (WRITE_AGAIN if self._unsaved else WRITE_EVERY)
