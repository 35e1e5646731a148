"""When to use the worker, and how long to wait for it.

`WorkerPolicy` is a pure state machine without process or clock: events and the time come in, the
phase comes out. It decides on misses, restarts, and when the model answers again.

`HangDetector` waits for as long as a worker makes progress. It is for recordings: no clock drives
their samples, so a slow answer is as good as a fast one. A worker hangs when it computes without
end, or not at all.
"""

import enum
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TIERS = {1: "model", 2: "model alone", 3: "fallback"}
"""Who answers, in words that fit every bundle: a linear one has neither gate nor recurrent unit."""
MISSES = 3
"""Restart the worker after so many missed deadlines within MISS_WINDOW samples."""
MISS_WINDOW = 10
BACK_OFF = (0.0, 1.0, 5.0, 30.0, 300.0, 3600.0)
"""Seconds before the first, second, ... restart in a row; the last one is repeated for ever."""
HEALTHY_SERVICE = 600.0
"""Seconds of service after which the next failure counts as the first again."""
LOAD_LIMIT = 20.0
"""Seconds a worker may take to its HELLO."""
AGREEING = 100
"""The model answers again after so many settled shadow answers in a row that agree with the
fallback on the alarm ..."""
SHADOW_LIMIT = 200
"""... or after so many in all: the model may disagree with the fallback for good, and be right."""
RETURNS = 3
"""The model may take over again so often within RETURN_WINDOW seconds."""
RETURN_WINDOW = 3600.0
SHORTEST_PATIENCE = 1.0
"""Seconds without an answer, at least, after which a worker that catches up is ended."""
HANG_CPU, HANG_DEADLINES = 5.0, 10
"""Where samples wait: a worker hangs after so many seconds of CPU time on one answer, and at least
so many deadlines."""
HANG_IDLE = 30.0
"""Where samples wait: a worker hangs after so many seconds without using the CPU, too."""
LOOK_EVERY = 0.25
"""Seconds between two looks at such a worker."""
_USER_FIELD, _SYSTEM_FIELD = 11, 12  # of /proc/PID/stat, counted from the state


@dataclass(frozen=True)
class Work:
    """Wait while the worker makes progress.

    cpu: seconds of CPU time that one answer may take. idle: seconds that the worker may spend
    without using any; time in which the supervisor did not run either does not count.
    """

    cpu: float
    idle: float

    def __str__(self) -> str:
        return f"{self.cpu:g} s of CPU time, or {self.idle:g} s without any"


class HangDetector:
    """Measures how long to go on waiting for a process.

    It measures from the second look on: most answers come before that, and one look at a process
    takes as long as the answer to a sample.

    clock: monotonic seconds. cpu_time: of a process by its id, None where it is unknown.
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
        self._begun: float | None = None
        self._computed: float | None = None
        self._looked: float | None = None
        self._idle = 0.0

    def left(self) -> float:
        """Return the seconds until the next look; 0 when the process hangs."""
        now, before = self._clock(), self._looked
        self._looked = now
        if before is None:
            return LOOK_EVERY
        computed = self._cpu_time(self._pid)
        if self._begun is None:
            self._begun = self._computed = computed
        if computed is not None and computed != self._computed:
            self._idle = 0.0
        else:
            self._idle += min(now - before, 2 * LOOK_EVERY)
        self._computed = computed
        spent = 0.0 if computed is None or self._begun is None else computed - self._begun
        return 0.0 if spent >= self._work.cpu or self._idle >= self._work.idle else LOOK_EVERY


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time of a process and its threads so far; None without /proc."""
    fields = stat_fields(pid)
    if not fields:
        return None
    return (int(fields[_USER_FIELD]) + int(fields[_SYSTEM_FIELD])) / os.sysconf("SC_CLK_TCK")


def stat_fields(pid: int, proc: Path = Path("/proc")) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; empty when it is hidden or gone."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
        return text[text.rindex(")") + 1 :].split()  # the name before may contain parentheses
    except (OSError, ValueError):
        return []


@dataclass(frozen=True)
class Terms:
    """The time limits of a worker.

    deadline: seconds for the answer to one sample. warmup: samples until the model's state has
    settled. waits: whether samples wait for the worker, because no clock drives them.
    period: seconds between the samples of the recording, where samples wait.
    """

    deadline: float
    warmup: int
    waits: bool
    period: float = 1.0

    @property
    def memory(self) -> int:
        """Samples that a restarted worker replays: enough to settle and to prove it."""
        return self.warmup + AGREEING

    @property
    def patience(self) -> float:
        """Seconds that it may take for one of them; no record waits for it."""
        return max(MISSES * self.deadline, SHORTEST_PATIENCE)

    @property
    def answer_limit(self) -> float | Work:
        """How long to wait for the answer to one sample."""
        if not self.waits:
            return self.deadline
        return Work(max(HANG_CPU, HANG_DEADLINES * self.deadline), HANG_IDLE)

    @property
    def load_limit(self) -> float | Work:
        """How long to wait for the HELLO."""
        return Work(LOAD_LIMIT, HANG_IDLE) if self.waits else LOAD_LIMIT


class WorkerPhase(enum.Enum):
    """The state of the worker."""

    WAITING = "waiting to restart"  # no process
    LOADING = "loading"
    SHADOWING = "proving itself"  # it gets the samples, but the fallback answers
    SERVING = "serving"


class WorkerPolicy:
    """The worker's phase, as its supervisor decides it; all times are monotonic seconds.

    failures: in a row, without HEALTHY_SERVICE between.
    due: when the next start is due; None before the first one.
    """

    def __init__(self) -> None:
        self.phase = WorkerPhase.WAITING
        self.restarts = self.failures = 0
        self.due: float | None = None
        self._serving_since = 0.0
        self._returned: deque[float] = deque(maxlen=RETURNS)
        self._missed: deque[bool] = deque(maxlen=MISS_WINDOW)
        self._settled = self._agreeing = 0

    @property
    def asking(self) -> bool:
        """Whether samples go to the worker."""
        return self.phase in (WorkerPhase.SHADOWING, WorkerPhase.SERVING)

    def start_due(self, now: float) -> bool:
        """Return whether a worker is to be started now."""
        return self.phase is WorkerPhase.WAITING and (self.due is None or now >= self.due)

    def started(self) -> None:
        """Note an attempt to start; each after the first counts as a restart."""
        self.restarts += self.due is not None
        self.phase = WorkerPhase.LOADING
        self._missed.clear()
        self._settled = self._agreeing = 0

    def ready(self, now: float, fresh: bool) -> None:
        """Note the HELLO. `fresh`: no sample was answered yet, so nothing has to be proven."""
        if fresh:
            self._serve(now)
        else:
            self.phase = WorkerPhase.SHADOWING

    def answered(self) -> None:
        """Note an answer in time."""
        self._missed.append(False)

    def missed(self) -> bool:
        """Note a missed deadline; return whether that was one too many."""
        self._missed.append(True)
        return sum(self._missed) >= MISSES

    def counted(self, settled: bool, agrees: bool) -> None:
        """Count a shadow answer, also one to a past sample; see `shadowed`."""
        if settled:
            self._settled += 1
            self._agreeing = self._agreeing + 1 if agrees else 0

    def shadowed(self, now: float, settled: bool, agrees: bool) -> bool:
        """Judge a shadow answer; return whether the model takes over, beginning with this one.

        settled: the model is out of its warm-up; agrees: its alarm equals the fallback's.
        """
        self.counted(settled, agrees)
        proven = self._agreeing >= AGREEING or self._settled >= SHADOW_LIMIT
        if not proven or sum(now - time <= RETURN_WINDOW for time in self._returned) >= RETURNS:
            return False
        self._returned.append(now)
        self._serve(now)
        return True

    def failed(self, now: float) -> None:
        """Note the worker's end: restart it after a back-off that grows with each failure."""
        if self.phase is WorkerPhase.SERVING and now - self._serving_since >= HEALTHY_SERVICE:
            self.failures = 0
        self.phase = WorkerPhase.WAITING
        self.due = now + BACK_OFF[min(self.failures, len(BACK_OFF) - 1)]
        self.failures += 1

    def _serve(self, now: float) -> None:
        self.phase, self._serving_since = WorkerPhase.SERVING, now
