"""A source of text lines: CSV with a header, or JSON lines; a file, stdin, a pipe, a serial port.

A run never stops over a bad line: an unreadable cell is a missing reading, an unreadable line a
row of missing readings, and both are complained about. Only an unusable header is refused.
"""

import sys
from collections.abc import Sequence

from edge_runtime.errors import GruardError
from edge_runtime.sources.complaints import Complaints
from edge_runtime.sources.csvfile import open_tolerantly
from edge_runtime.sources.decoders import decoder_for
from edge_runtime.sources.lines import FileLines, Lines, StreamLines
from edge_runtime.sources.source import Reading, TimeLimit

_BYTE_ORDER_MARK = "\ufeff"


class LineSource:
    """Readings from lines. Waits for the first line, which says what the others are.

    header: the column names, for lines that come without; None takes them from the first line.
    Raises GruardError when the header is missing or lacks a wanted channel.
    """

    def __init__(
        self,
        lines: Lines,
        name: str,
        channels: Sequence[str],
        complaints: Complaints,
        header: str | None = None,
    ) -> None:
        self.live = lines.live
        self._lines = lines
        first = self._first_line() if header is None else header
        self._decoder, is_reading = decoder_for(first, name, channels, complaints)
        self._waiting = first if is_reading else None

    def read(self, timeout: float | None) -> Reading | None:
        """The reading of the next line that is not blank; see Source."""
        limit = TimeLimit(timeout)
        line, self._waiting = self._waiting, None
        while line is None or not line.strip():
            line = self._lines.next(limit.left())
            if line is None:
                return None
        return self._decoder.decode(line)

    def close(self) -> None:
        """Close the lines."""
        self._lines.close()

    def _first_line(self) -> str:
        try:
            return (self._lines.next(None) or "").removeprefix(_BYTE_ORDER_MARK)
        except EOFError:
            return ""


def open_lines(target: str, channels: Sequence[str], complaints: Complaints) -> LineSource:
    """A file of CSV or JSON lines, `.gz` too, or stdin for `-`.

    Raises GruardError when it cannot be opened or its header is unusable.
    """
    if target == "-":
        if sys.stdin is None:
            raise GruardError("stdin is closed; pipe CSV or JSON lines into --source -")
        return LineSource(StreamLines(sys.stdin.fileno(), "stdin"), "stdin", channels, complaints)
    lines = FileLines(open_tolerantly(target), target)
    try:
        return LineSource(lines, target, channels, complaints)
    except BaseException:
        lines.close()
        raise
