"""One run, several sinks."""

from collections.abc import Sequence

from edge_runtime.record import Record
from edge_runtime.sinks.sink import WatchedSink
from edge_runtime.threads import WatchedThread


class Several:
    """Gives every record to each of the sinks; the first whose reader leaves ends the run."""

    def __init__(self, sinks: Sequence[WatchedSink]) -> None:
        self._sinks = tuple(sinks)

    @property
    def dropped(self) -> int:
        """Records that were not written, over all sinks."""
        return sum(sink.dropped for sink in self._sinks)

    @property
    def skipped(self) -> int:
        """Entries that were not understood, over all sinks."""
        return sum(sink.skipped for sink in self._sinks)

    @property
    def threads(self) -> Sequence[WatchedThread]:
        """Those of all sinks."""
        return [thread for sink in self._sinks for thread in sink.threads]

    def write(self, record: Record) -> None:
        """Write the record to each."""
        for sink in self._sinks:
            sink.write(record)

    def close(self) -> None:
        """Close each."""
        for sink in self._sinks:
            sink.close()
