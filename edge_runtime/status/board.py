"""The board's health, where it tells: temperature, and the Raspberry Pi's power and throttle bits.

Read from /sys and never from `vcgencmd`, which may hang: the kernel asks the firmware and bounds
that itself. Still, a thread of its own does the reading, and the loop only looks at what it found.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge_runtime.status.snapshot import BoardHealth
from edge_runtime.threads import BEAT, WatchedThread

EVERY = 60.0
"""Seconds between two looks."""
STALE = 3 * EVERY
"""After so many seconds without a look nothing is known any more."""
CONDITIONS = {0: "under-voltage", 1: "capped frequency", 2: "throttling", 3: "heat limit"}
"""The firmware's bits; the same 16 higher: it has happened since boot."""
_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
_TEMPERATURES = "sys/class/thermal/thermal_zone*/temp"
_MOST_BYTES = 32


def now_and_since_boot(throttled: int) -> tuple[list[str], list[str]]:
    """Names of the conditions that are on, and of those that were on since the board started."""
    on, sticky = throttled, throttled >> 16
    return _names(on), _names(sticky)


def read_health(root: Path) -> BoardHealth | None:
    """What the board under `root` (`/`, but for tests) tells; None when it tells nothing."""
    degrees = [value / 1000 for path in sorted(root.glob(_TEMPERATURES)) for value in _number(path)]
    believable = [value for value in degrees if -60 < value < 200]
    bits = _number(root / _THROTTLED, base=16)
    if not believable and not bits:
        return None
    return BoardHealth(max(believable, default=None), bits[0] if bits else None)


def changes(before: BoardHealth | None, after: BoardHealth | None) -> list[str]:
    """Log lines about the power supply and throttling that became different between two looks."""
    if after is None or after.throttled is None:
        return []
    known = before.throttled if before and before.throttled is not None else 0
    (was, had), (now, has) = now_and_since_boot(known), now_and_since_boot(after.throttled)
    lines = [f"the board reports {name}" for name in now if name not in was]
    lines += [f"the board reports no {name} any more" for name in was if name not in now]
    since = "the last look" if before else "the board started"
    missed = [name for name in has if name not in (*had, *now, *was)]
    return lines + [f"the board had {name} since {since}" for name in missed]


class BoardMonitor:
    """Looks once a minute, if there is anything to see. `latest` never waits."""

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._seen: tuple[float, BoardHealth | None] = (float("-inf"), None)
        self._closing = threading.Event()
        self.thread = WatchedThread("board", self._look)
        self.thread.start()

    def latest(self) -> BoardHealth | None:
        """The last look, if it is not too old."""
        when, health = self._seen
        return health if self._clock() - when < STALE else None

    def close(self) -> None:
        """Look no more. A read that hangs is left to the end of the process."""
        self._closing.set()
        self.thread.join(0.0)

    def _look(self) -> None:
        health = read_health(self._root)
        tells = health is not None
        while tells:
            self._seen = self._clock(), health
            for _ in range(round(EVERY / BEAT)):
                self.thread.beat()
                if self._closing.wait(BEAT):
                    return
            health = read_health(self._root)


def _number(path: Path, base: int = 10) -> list[int]:
    """The whole number in a small file; empty when there is none."""
    try:
        with path.open("rb", buffering=0) as stream:
            return [int(stream.read(_MOST_BYTES), base)]
    except (OSError, ValueError):
        return []


def _names(bits: int) -> list[str]:
    return [name for bit, name in CONDITIONS.items() if bits >> bit & 1]
