"""What a source is: readings, one by one, as they come.

An own sensor needs a class with `live`, `read` and `close`, and nothing from here but `Reading`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.errors import GruardError
from edge_runtime.record import Float32


@dataclass(frozen=True)
class Reading:
    """One row of a source.

    time: finite seconds as the source tells them, None where it does not or not readably.
    values: float32 [channels] in the bundle's order, raw units; NaN where missing or unreadable.
    """

    time: float | None
    values: Float32


class SourceLostError(Exception):
    """The source is away and may come back; the message says why, for the log."""


class Source(Protocol):
    """Readings in the bundle's channel order.

    live: the outside world sets the pace, so that silence means missing samples; a file is not.
    """

    live: bool

    def read(self, timeout: float | None) -> Reading | None:
        """Return the next reading, or None when none has come within `timeout` seconds.

        None for `timeout` waits for ever. The call may return None earlier, after bounded work on
        input without a reading in it: blank lines, a line that does not end.
        Raises EOFError when there will be no more, and GruardError when the source broke for good.
        A source in `Reconnecting` raises SourceLostError when it may come back.
        """

    def close(self) -> None:
        """Give everything back."""


class TimeLimit:
    """What is left of the `timeout` of a `read`."""

    def __init__(self, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = None if timeout is None else clock() + timeout

    def left(self) -> float | None:
        """Seconds, not below 0; None for ever."""
        return None if self._until is None else max(self._until - self._clock(), 0.0)


def needed_period(period: float | None, name: str) -> float:
    """The model's period, for a source that paces itself. Raises GruardError when unknown."""
    if period is None:
        raise GruardError(
            f"{name}: is asked at the model's sample period, which this bundle does not know; "
            "train on a recording with a time column"
        )
    return period
