"""What a sink is: it takes records, and never holds up or ends a run."""

from collections.abc import Sequence
from typing import Protocol

from edge_runtime.record import Record
from edge_runtime.threads import WatchedThread


class SinkClosedError(Exception):
    """Whoever read the records has gone, as `| head` does; there is nobody to write for."""


class Sink(Protocol):
    """Takes records; a record it could not write is counted, never raised."""

    @property
    def dropped(self) -> int:
        """Records that were not written so far."""

    def write(self, record: Record) -> None:
        """Write one record through. Raises SinkClosedError when its reader is gone for good."""

    def close(self) -> None:
        """Give everything back."""


class WatchedSink(Sink, Protocol):
    """A sink of a run, with what its status tells."""

    @property
    def skipped(self) -> int:
        """Entries of its journal that it could not understand so far."""

    @property
    def threads(self) -> Sequence[WatchedThread]:
        """Those that serve it."""
