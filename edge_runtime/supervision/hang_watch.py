"""How long to wait for a worker: for a time, or for as long as it makes progress.

A recording has no clock that drives its samples, so a slow answer is as good as a fast one. Its
worker may take any time on a busy machine; it hangs when it computes without end, or not at all.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY = 0.25
"""Seconds between two looks at a worker that owes an answer."""
_USER_FIELD, _SYSTEM_FIELD = 11, 12  # of /proc/PID/stat, counted from the state


@dataclass(frozen=True)
class Work:
    """Wait while the worker makes progress.

    cpu: seconds of its CPU time that one answer may take. idle: seconds that it may spend without
    using any; time in which the supervisor did not run either does not count.
    """

    cpu: float
    idle: float

    def __str__(self) -> str:
        return f"{self.cpu:g} s of CPU time, or {self.idle:g} s without any"


class HangWatch:
    """Seconds left to wait for a process, by what it does; starts when it is made.

    clock: monotonic seconds. cpu_time: of a process by its id, None where nobody can tell.
    """

    def __init__(
        self,
        pid: int,
        work: Work,
        clock: Callable[[], float],
        cpu_time: Callable[[int], float | None],
    ) -> None:
        self._pid, self._work = pid, work
        self._clock, self._cpu_time = clock, cpu_time
        self._begun = self._computed = cpu_time(pid)
        self._looked, self._idle = clock(), 0.0

    def left(self) -> float:
        """Seconds until the next look, at most; 0 when the process hangs."""
        now, computed = self._clock(), self._cpu_time(self._pid)
        if computed is not None and computed != self._computed:
            self._idle = 0.0
        else:
            self._idle += min(now - self._looked, 2 * LOOK_EVERY)
        self._looked, self._computed = now, computed
        spent = 0.0 if computed is None or self._begun is None else computed - self._begun
        return 0.0 if spent >= self._work.cpu or self._idle >= self._work.idle else LOOK_EVERY


def cpu_seconds(pid: int) -> float | None:
    """CPU time of a process and its threads so far; None where /proc does not tell it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = text[text.rindex(")") + 2 :].split()
        ticks = int(fields[_USER_FIELD]) + int(fields[_SYSTEM_FIELD])
    except (OSError, ValueError, IndexError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK")
