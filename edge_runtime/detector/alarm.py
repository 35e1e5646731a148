"""The alarm: debounce M of N, then hysteresis; and which records count as one alarm.

The score of one fault rises and falls, so the alarm may clear in the middle of the fault. Code that
counts, announces or lists alarms therefore joins records in alarm that have at most `PAUSE` others
between them. `alarm` in a record stays what its own sample says.

`PAUSE` is where both mistakes are equally frequent in `python -m benchmarks.short`: three quarters
of the pauses within an injected fault are shorter, and three quarters of those between false
alarms on healthy rows are longer. It is four times `clear_after`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy.typing as npt

PAUSE = 40
"""Records in a row without alarm that one alarm may contain."""


@dataclass(frozen=True)
class AlarmState:
    """The last N-1 scores (oldest first), whether the alarm is on, and calm samples in a row."""

    recent: tuple[float, ...] = ()
    active: bool = False
    calm: int = 0


def debounced(scores: tuple[float, ...], m: int) -> float:
    """Return the m-th largest of `scores`: it exceeds a level exactly when m of them do."""
    return sorted(scores, reverse=True)[m - 1] if len(scores) >= m else float("-inf")


def update_alarm(
    score: float,
    threshold: float,
    clear: float,
    m: int,
    n: int,
    clear_after: int,
    state: AlarmState,
) -> AlarmState:
    """Return the next alarm state.

    The alarm goes on when `m` of the last `n` scores exceed `threshold`, and off after
    `clear_after` samples in a row whose score is at most `clear`.
    """
    window = (*state.recent, score)[-n:]
    calm = state.calm + 1 if score <= clear else 0
    rises = debounced(window, m) > threshold
    active = rises or (state.active and calm < clear_after)
    return AlarmState(window[-(n - 1) :] if n > 1 else (), active, calm)


@dataclass(frozen=True)
class AlarmCourse:
    """Position in a stream of records. quiet: records since the last one in alarm."""

    quiet: int = PAUSE + 1

    @property
    def going_on(self) -> bool:
        """Whether an alarm is on, or cleared so recently that it may continue."""
        return self.quiet <= PAUSE

    def after(self, alarm: bool) -> AlarmCourse:
        """Return the position one record later. An alarm begins where `going_on` becomes true."""
        quiet = 0 if alarm else min(self.quiet, PAUSE) + 1
        return self if quiet == self.quiet else AlarmCourse(quiet)


def alarm_stretches(alarm: npt.ArrayLike, pause: int = PAUSE) -> list[tuple[int, int]]:
    """Return [start, stop) of each alarm in bool [n]; both ends are records in alarm."""
    import numpy as np

    on = np.flatnonzero(np.asarray(alarm, bool))
    if not len(on):
        return []
    breaks = np.flatnonzero(np.diff(on) > pause + 1)
    starts, stops = on[np.append(0, breaks + 1)], on[np.append(breaks, -1)] + 1
    return list(zip(starts.tolist(), stops.tolist(), strict=True))
