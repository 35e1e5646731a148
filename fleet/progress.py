"""How far a run over many assets is, and an estimate of when it ends."""

from collections.abc import Callable
from typing import Protocol

EVERY = 10.0  # seconds between two lines


class Ended(Protocol):
    """The result of an asset: whether it is good, and whether it is that of an earlier command."""

    @property
    def good(self) -> bool:
        """Whether the asset was worked on without a failure."""

    @property
    def reused(self) -> bool:
        """Whether nothing was new."""


class FleetProgress:
    """Say every ten seconds how many assets are done, how many failed, and how long the rest takes.

    clock: monotonic seconds.
    """

    def __init__(self, total: int, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._total, self._say, self._clock = total, say, clock
        self._began = self._last = clock()
        self._done = self._failed = self._reused = 0

    def begins(self, threads: int) -> str:
        """Start the clock of the estimate; return the first line."""
        self._began = self._last = self._clock()
        return f"{self._total:,} assets on {threads} {'core' if threads == 1 else 'cores'}"

    def ended(self, result: Ended) -> None:
        """Count one asset."""
        self._done += 1
        self._failed += not result.good
        self._reused += result.reused
        now = self._clock()
        if now - self._last >= EVERY or self._done == self._total:
            self._last = now
            self._say(self._line(now - self._began))

    def silent(self, threads: int) -> None:
        """Say that no asset ended for a while."""
        self._last = self._clock()
        line = self._line(self._last - self._began)
        self._say(line if threads else f"{line}; no worker is left, waiting for one")

    def _line(self, elapsed: float) -> str:
        line = f"{self._done:,} of {self._total:,} assets, {self._failed:,} failed"
        if self._reused:
            line += f", {self._reused:,} unchanged"
        left = self._total - self._done
        if left and self._done:
            line += f", about {duration(elapsed / self._done * left)} left"
        return line


def duration(seconds: float) -> str:
    """Return seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
