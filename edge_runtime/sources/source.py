"""What a source is: readings, one by one, as they come.

An own sensor needs a class with `live`, `read` and `close`, and nothing from here but `Reading`.
"""

from dataclasses import dataclass
from typing import Protocol

from edge_runtime.record import Float32


@dataclass(frozen=True)
class Reading:
    """One row of a source.

    time: seconds as the source tells them, None where it does not or not readably.
    values: float32 [channels] in the bundle's order, raw units; NaN where missing or unreadable.
    """

    time: float | None
    values: Float32


class Source(Protocol):
    """Readings in the bundle's channel order.

    live: the outside world sets the pace, so that silence means missing samples; a file is not.
    """

    live: bool

    def read(self, timeout: float | None) -> Reading | None:
        """The next reading, or None when none has come within `timeout` seconds (None: for ever).

        Raises EOFError when there will be no more, and GruardError when the source broke for good.
        """

    def close(self) -> None:
        """Give everything back."""
