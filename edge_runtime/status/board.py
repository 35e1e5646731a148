"""The board's health: temperature, and the Raspberry Pi's power and throttle bits.

They are read from /sys, not from `vcgencmd`, which may hang: the kernel asks the firmware with a
time-out. A separate thread reads them; the loop only takes its last result.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge_runtime.status.snapshot import BoardHealth
from edge_runtime.threads import BEAT, MonitoredThread

EVERY = 60.0
"""Seconds between two reads."""
STALE = 3 * EVERY
"""Seconds after which a read is too old to be shown."""
CONDITIONS = {0: "under-voltage", 1: "capped frequency", 2: "throttling", 3: "heat limit"}
"""The firmware's bits; the bit 16 higher says that it has happened since boot."""
_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
_TEMPERATURES = "sys/class/thermal/thermal_zone*/temp"
_MOST_BYTES = 32


def now_and_since_boot(throttled: int) -> tuple[list[str], list[str]]:
    """Return the conditions that are on, and those that were on since the board started."""
    now, since_boot = (
        [name for bit, name in CONDITIONS.items() if bits >> bit & 1]
        for bits in (throttled, throttled >> 16)
    )
    return now, since_boot


def read_health(root: Path) -> BoardHealth | None:
    """Return the health of the board under `root` (`/`, except in tests); None if it has none."""
    degrees = [value / 1000 for path in sorted(root.glob(_TEMPERATURES)) for value in _number(path)]
    plausible = [value for value in degrees if -60 < value < 200]
    bits = _number(root / _THROTTLED, base=16)
    if not plausible and not bits:
        return None
    return BoardHealth(max(plausible, default=None), bits[0] if bits else None)


def changes(before: BoardHealth | None, after: BoardHealth | None) -> list[str]:
    """Return log lines about power and throttling conditions that changed between two reads."""
    if after is None or after.throttled is None:
        return []
    bits = before.throttled if before and before.throttled is not None else 0
    (was, had), (now, has) = now_and_since_boot(bits), now_and_since_boot(after.throttled)
    lines = [f"the board reports {name}" for name in now if name not in was]
    lines += [f"the board reports no {name} any more" for name in was if name not in now]
    since = "the last look" if before else "the board started"
    missed = [name for name in has if name not in (*had, *now, *was)]
    return lines + [f"the board had {name} since {since}" for name in missed]


class BoardMonitor:
    """Reads the health once a minute, if the board has any. `latest` never waits."""

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._last: tuple[float, BoardHealth | None] = (float("-inf"), None)
        self._closing = threading.Event()
        self.thread = MonitoredThread("board", self._read)
        self.thread.start()

    def latest(self) -> BoardHealth | None:
        """Return the last read, if it is not too old."""
        when, health = self._last
        return health if self._clock() - when < STALE else None

    def close(self) -> None:
        """Stop reading. The end of the process ends a read that hangs."""
        self._closing.set()
        self.thread.join(0.0)

    def _read(self) -> None:
        health = read_health(self._root)
        has_health = health is not None
        while has_health:
            self._last = self._clock(), health
            for _ in range(round(EVERY / BEAT)):
                self.thread.beat()
                if self._closing.wait(BEAT):
                    return
            health = read_health(self._root)


def _number(path: Path, base: int = 10) -> list[int]:
    """Return the integer in a small file; empty when there is none."""
    try:
        with path.open("rb", buffering=0) as stream:
            return [int(stream.read(_MOST_BYTES), base)]
    except (OSError, ValueError):
        return []
