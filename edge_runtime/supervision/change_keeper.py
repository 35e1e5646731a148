"""Keeps a lasting change over restarts, and hears what the owner says to it.

It follows the model that serves: each worker tells where the machine stands, and each one that
starts goes on from there. What is known is written when something happens, else every ten minutes.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

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
from edge_runtime.plain import read_sealed, write_sealed
from edge_runtime.record import Record

LOOK_EVERY = 1.0
"""Seconds between two looks for the owner's word."""
WRITE_EVERY, WRITE_AGAIN = 600.0, 60.0
"""Seconds between two writes while nothing happens, and after one that failed."""

Stamp = tuple[int, int, int]


class HoldsChange(Protocol):
    """The part of a model's care that is needed here."""

    @property
    def bundle(self) -> str: ...

    @property
    def change(self) -> LastingChange | None: ...

    def accept(self, yes: bool) -> None:
        """Pass on the owner's word."""


class ChangeKeeper:
    """finding: the change that was reported, None while the machine is where it was recorded.

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
        self._stamp: Stamp | None = None  # of the word's file
        self._unsaved = False
        self._next_look = self._next_write = clock()

    def load(
        self, bundle: str, fault: Callable[[LastingChange], str | None]
    ) -> LastingChange | None:
        """What the run before has left of `bundle`; None, and a line in the log, without use.

        fault: why a change cannot be one of the bundle's, None when it can.
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

    def after(self, record: Record, model: HoldsChange) -> None:
        """Learn what there is to know after `record`, by the model that serves."""
        if record.alarm and record.blamed:
            self._blamed = record.blamed
        if model.bundle != self._bundle:
            self._bundle, self._change, self.finding = model.bundle, None, None
        if model.change is not self._change and model.change is not None:
            self._learn(model.change, record.index)
        if (now := self._clock()) >= self._next_look:
            self._next_look = now + LOOK_EVERY
            self._hear(model, record.index)
            if self._unsaved and now >= self._next_write:
                self._write(now)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._unsaved:
            self._write(self._clock())

    def _learn(self, change: LastingChange, index: int) -> None:
        self._change, self._unsaved = change, True
        found = self.finding
        if change.phase == ChangePhase.AS_RECORDED:
            if found is not None:
                self._tell(
                    "back", None, f"sample {index}: the machine is back where it was recorded"
                )
        elif found is None or (change.count != found.count and found.accepted is not None):
            fresh = Finding(self._wall(), self._blamed, change.count, None, "")
            where = f" on {', '.join(fresh.channels)}" if fresh.channels else ""
            self._tell(
                "reported",
                fresh,
                f"sample {index}: a change{where} has lasted and is reported; alarms are judged "
                "from where the machine stands; look, and if it runs like this now, gruard accept",
            )
        elif change.count != found.count:
            channels = tuple(dict.fromkeys((*found.channels, *self._blamed)))
            self._tell(
                "further",
                replace(found, count=change.count, channels=channels),
                f"sample {index}: the machine has changed again, on {', '.join(self._blamed)}",
            )

    def _tell(self, topic: str, finding: Finding | None, line: str) -> None:
        self.finding, self._next_look = finding, self._clock()
        self._next_write = self._next_look
        self._log.trouble(topic, line)

    def _hear(self, model: HoldsChange, index: int) -> None:
        """Take the owner's word, and let the model know of it until it does."""
        found, change = self.finding, self._change
        if found is None or change is None:
            return
        word = self._newest_word()
        known = KeptChange(self._bundle, change, found)
        if word and word.names(known) and word.accepted != (found.accepted is not None):
            accepted = word.told if word.accepted else None
            why = f" ({word.reason})" if word.reason else ""
            what = "is accepted" if word.accepted else "is open again"
            found = replace(found, accepted=accepted, reason=word.reason)
            self._tell("word", found, f"sample {index}: the reported change {what}{why}")
            self._unsaved = True
        if change.phase != found.phase:
            model.accept(found.accepted is not None)
            self._change = model.change

    def _newest_word(self) -> Word | None:
        if self._folder is None:
            return None
        file = self._folder / WORD
        try:
            status = file.stat()
        except OSError:
            return self._word
        stamp = status.st_ino, status.st_mtime_ns, status.st_size
        if stamp != self._stamp:
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
        file = self._folder / KEPT
        try:
            write_sealed(file, kept)
        except OSError as error:
            self._next_write = now + WRITE_AGAIN
            self._log.trouble(
                "write",
                f"{file}: cannot be written ({error.strerror}); the next start will not know "
                "where the machine stands",
            )
        else:
            self._unsaved, self._next_write = False, now + WRITE_EVERY
            self._log.over(f"{file}: is written again", "write")
