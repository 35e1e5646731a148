"""When to trust the inference process: misses, restarts and the way back, as a pure state machine.

No process, no clock: events and the time come in, the phase comes out.
"""

import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

MISSES = 3
"""So many unanswered samples among the last MISS_WINDOW and the worker is given up."""
MISS_WINDOW = 10
BACK_OFF = (0.0, 1.0, 5.0)
"""Seconds before the first, second and third restart; there is no fourth within RESTART_WINDOW."""
RESTART_WINDOW = 600.0
LOAD_LIMIT = 20.0
"""Seconds a worker may take to its HELLO."""
AGREEING = 100
"""So many settled shadow answers in a row must agree with the fallback on the alarm ..."""
SHADOW_LIMIT = 200
"""... unless there have been so many: a lasting disagreement is what the model is there for."""
SHORTEST_PATIENCE = 1.0
"""Seconds without an answer before a worker that catches up may be given up."""
RETURNS = 3
"""The model may come back so often within RETURN_WINDOW seconds."""
RETURN_WINDOW = 3600.0


@dataclass(frozen=True)
class Terms:
    """What is asked of a worker.

    deadline: seconds for the answer to one sample. warmup: samples until a state has settled, by
    the bundle. waits: whether samples wait while a worker that begins anew loads and catches up,
    because no clock drives them.
    """

    deadline: float
    warmup: int
    waits: bool

    @property
    def memory(self) -> int:
        """Samples that a process which begins anew is given: enough to settle and to prove it."""
        return self.warmup + AGREEING

    @property
    def patience(self) -> float:
        """Seconds that it may take from one of these to the next; no record waits for them."""
        return max(MISSES * self.deadline, SHORTEST_PATIENCE)


class Phase(enum.Enum):
    """What the worker is good for at the moment."""

    WAITING = "waiting to restart"  # no process
    LOADING = "loading"
    SHADOWING = "proving itself"  # asked, but the fallback answers
    SERVING = "serving"
    GIVEN_UP = "given up"  # too many restarts: the fallback stays


class WorkerPolicy:
    """The life of the worker as its supervisor sees it; all times are monotonic seconds."""

    def __init__(self) -> None:
        self.phase = Phase.WAITING
        self.restarts = 0
        self._due: float | None = None  # of the next restart; None before the first start
        self._started = 0.0
        self._restarted: deque[float] = deque(maxlen=len(BACK_OFF))
        self._returned: deque[float] = deque(maxlen=RETURNS)
        self._missed: deque[bool] = deque(maxlen=MISS_WINDOW)
        self._settled = self._agreeing = 0

    @property
    def asking(self) -> bool:
        """Whether samples go to the worker."""
        return self.phase in (Phase.SHADOWING, Phase.SERVING)

    def start_due(self, now: float) -> bool:
        """Whether a worker is to be started now."""
        return self.phase is Phase.WAITING and (self._due is None or now >= self._due)

    def started(self, now: float) -> None:
        """A start was tried; every one after the first is a restart, whether it succeeds or not."""
        if self._due is not None:
            self._restarted.append(now)
            self.restarts += 1
        self.phase, self._started = Phase.LOADING, now
        self._missed.clear()
        self._settled = self._agreeing = 0

    def load_overdue(self, now: float) -> bool:
        """Whether the worker has been loading for too long."""
        return self.phase is Phase.LOADING and now - self._started > LOAD_LIMIT

    def ready(self, fresh: bool) -> None:
        """The HELLO came. `fresh`: no sample was answered yet, so there is nothing to prove."""
        self.phase = Phase.SERVING if fresh else Phase.SHADOWING

    def answered(self) -> None:
        """The worker answered a sample in time."""
        self._missed.append(False)

    def missed(self) -> bool:
        """The worker missed a deadline; True when that was one too many."""
        self._missed.append(True)
        return sum(self._missed) >= MISSES

    def counted(self, settled: bool, agrees: bool) -> None:
        """Count a shadow answer, be it to a sample that is over; see `shadowed`."""
        if settled:
            self._settled += 1
            self._agreeing = self._agreeing + 1 if agrees else 0

    def shadowed(self, now: float, settled: bool, agrees: bool) -> bool:
        """Judge a shadow answer; True when the model takes over again, with this very answer.

        settled: the model is out of its warm-up; agrees: its alarm equals the fallback's.
        """
        self.counted(settled, agrees)
        proven = self._agreeing >= AGREEING or self._settled >= SHADOW_LIMIT
        if not proven or _within(self._returned, now, RETURN_WINDOW) >= RETURNS:
            return False
        self._returned.append(now)
        self.phase = Phase.SERVING
        return True

    def failed(self, now: float) -> None:
        """The worker was ended: restart it after a back-off, or never again."""
        recent = _within(self._restarted, now, RESTART_WINDOW)
        if recent >= len(BACK_OFF):
            self.phase = Phase.GIVEN_UP
        else:
            self.phase, self._due = Phase.WAITING, now + BACK_OFF[recent]


def _within(times: Iterable[float], now: float, window: float) -> int:
    return sum(now - time <= window for time in times)
