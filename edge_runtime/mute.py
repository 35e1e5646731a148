"""A mute: for some hours the owner does not want to hear of alarms.

Muted alarms are recorded as ever, with the flag MUTED. A mute ends at a time of the wall clock. It
also ends when its length has passed by the monotonic clock, so a wall clock that is set back, or
that starts in 1970 after a reboot, extends no mute.

Small sealed files (`edge_runtime.plain`) in the state folder, each with one writer: the owner's
command writes `mute.json` and, for learning again, the earlier mutes into `mutes.json`; the run
writes `muted.json`, what is left of a mute.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.files import stamp_of
from edge_runtime.plain import read_sealed, shown, write_sealed

WORD, KEPT, PAST = "mute.json", "muted.json", "mutes.json"
"""Names of the files in the state folder."""
MOST_PAST = 256
"""Earlier mutes that are remembered."""
SHORTEST, LONGEST = 60.0, 30 * 86400.0
"""Seconds of a mute. A longer one would be forgotten, and hide alarms."""
LOOK_EVERY = 1.0
"""Seconds between two reads of the owner's word."""
WRITE_EVERY = 600.0
"""Seconds between two writes of what is left; a crash extends a mute by so much at most."""
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]{1,9})([mhd])")


def parse_duration(text: str, what: str = "a mute") -> float:
    """Return the seconds of `30m`, `8h` or `2d`. Raises GruardError: no length of `what`."""
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0.0
    if not SHORTEST <= seconds <= LONGEST:
        raise GruardError(f"{shown(text)} is no length of {what}; write 30m, 8h or 2d, at most 30d")
    return seconds


@dataclass(frozen=True)
class Mute:
    """The owner's word. started, ends: epoch seconds. reason: may be empty."""

    started: float
    ends: float
    reason: str

    @property
    def length(self) -> float:
        """Seconds."""
        return self.ends - self.started


@dataclass(frozen=True)
class PastMutes:
    """Mutes before the owner's last word, at most `MOST_PAST`, oldest first."""

    mutes: tuple[Mute, ...] = ()


@dataclass(frozen=True)
class MuteLeft:
    """How many seconds are left of `mute`, by the clock that says less; 0 when it is over."""

    mute: Mute
    left: float

    def after(self, elapsed: float, wall: float) -> MuteLeft:
        """Return what is left `elapsed` monotonic seconds later, at `wall` epoch seconds."""
        return replace(self, left=max(0.0, min(self.left - elapsed, self.mute.ends - wall)))


class MuteKeeper:
    """Follow the owner's word on muting, over restarts.

    folder: the state folder; None never mutes. clock: monotonic seconds; wall: epoch seconds. log
    takes one line per event. No method raises.
    """

    def __init__(
        self,
        folder: Path | None,
        clock: Callable[[], float],
        wall: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self._folder, self._clock, self._wall = folder, clock, wall
        self._log = LimitedLog(log, clock)
        self._kept = self._load()
        self._state: MuteLeft | None = None
        self._stamp: tuple[int, int, int] | None = None  # of the word's file
        self._looked = self._next_look = self._next_write = clock()
        self.tend()

    @property
    def mute(self) -> Mute | None:
        """The mute that holds now, with the time at which it will end; None without one."""
        state = self._state
        if state is None or not state.left:
            return None
        return replace(state.mute, ends=min(state.mute.ends, self._wall() + state.left))

    @property
    def on(self) -> bool:
        """Whether alarms are muted."""
        return self._state is not None and self._state.left > 0

    def tend(self) -> None:
        """Read the owner's word and count down, once a second at most."""
        now = self._clock()
        if self._folder is None or now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        self._count_down(now)
        self._read_word(self._folder / WORD)
        if self._state != self._kept and now >= self._next_write:
            self._write(now)

    def close(self) -> None:
        """Write what is left and not written yet."""
        if self._state != self._kept:
            self._write(self._clock())

    def _load(self) -> MuteLeft | None:
        if self._folder is None:
            return None
        try:
            return read_sealed(self._folder / KEPT, MuteLeft)
        except GruardError as error:
            self._log.trouble("load", f"{error}; a mute counts from this start")
            return None

    def _read_word(self, file: Path) -> None:
        stamp = stamp_of(file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            word = read_sealed(file, Mute)
            if word is not None and not 0 < word.length <= LONGEST:
                raise GruardError(f"{file}: mutes for {word.length:.0f} s")
        except GruardError as error:
            self._log.trouble("read", f"{error}; alarms are not muted; run gruard mute again")
            word = None
        before = self._state.mute if self._state else None
        if word == before:
            return
        was_on = self.on
        self._state = None if word is None else self._begin(word)
        self._next_write = self._clock()
        if word is not None and self.on:
            why = f" ({word.reason})" if word.reason else ""
            self._log.trouble("muted", f"alarms are muted for {_hours(self._left)}{why}")
        elif was_on:
            self._log.trouble("unmuted", "alarms are no longer muted")

    def _begin(self, word: Mute) -> MuteLeft:
        kept = self._kept
        left = min(kept.left, word.length) if kept and kept.mute == word else word.length
        return MuteLeft(word, left).after(0.0, self._wall())

    @property
    def _left(self) -> float:
        return self._state.left if self._state else 0.0

    def _count_down(self, now: float) -> None:
        elapsed, self._looked = now - self._looked, now
        if self._state is None or not self._state.left:
            return
        self._state = self._state.after(elapsed, self._wall())
        if not self._state.left:
            self._next_write = now
            self._log.trouble("over", "the mute is over; alarms are no longer muted")

    def _write(self, now: float) -> None:
        self._next_write = now + WRITE_EVERY
        if self._folder is None or self._state is None:
            return
        file, state = self._folder / KEPT, self._state
        lost = "after a restart the mute may last longer"
        if self._log.attempt_write(file, lambda: write_sealed(file, state), lost):
            self._kept = state


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds / 60:.3g} min"
