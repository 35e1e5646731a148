"""A source of text lines: CSV with a header, or JSON lines; a file, stdin, a pipe, a serial port.

A run never stops over a bad line: an unreadable cell is a missing reading, an unreadable line a
row of missing readings, and both are complained about. Only an unusable header is refused.
"""

import os
import sys
from collections import deque
from collections.abc import Sequence

from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.files import DEVICE, PIPE, kind_at
from edge_runtime.sources.csvlayout import LOOKED_AT, find_header
from edge_runtime.sources.decoders import decoder_for, is_json, own_channels
from edge_runtime.sources.lines import FileLines, Lines, StreamLines, open_text
from edge_runtime.sources.sample_period import check_file_period
from edge_runtime.sources.source import Reading, TimeLimit

MOST_SKIPPED = 1000
"""Lines without a reading that one `read` skips, a millisecond of work."""
_BYTE_ORDER_MARK = "\ufeff"


class LineSource:
    """Readings from lines. Waits for the header, which says what the others are.

    channels: None for those that the first line names, in its order. said: by the bundle.
    Raises GruardError when the header is missing or lacks a wanted channel.
    """

    def __init__(
        self,
        lines: Lines,
        name: str,
        channels: Sequence[str] | None,
        complaints: Complaints,
        said: Columns = NOTHING_SAID,
    ) -> None:
        self.live = lines.live
        self._lines = lines
        header, rows, _ = find_header(self._next_line, whole_file=not self.live)
        if not self.live:
            rows = [*rows, *self._first_rows(LOOKED_AT - len(rows))]
        elif channels is None and not rows and not is_json(header):
            rows = [line for line in [self._next_line()] if line]  # tells times from channels
        self.channels = tuple(own_channels(header, name, rows) if channels is None else channels)
        self._decoder, readings = decoder_for(
            header, name, self.channels, complaints, rows, self.live, said
        )
        self._waiting = deque(readings)

    def read(self, timeout: float | None) -> Reading | None:
        """Return the reading of the next line that is not blank; see Source."""
        limit = TimeLimit(timeout)
        for _ in range(MOST_SKIPPED):
            line = self._waiting.popleft() if self._waiting else self._lines.next(limit.left())
            if line is None:
                return None
            if line.strip(" "):  # tabs alone are a row of missing readings
                return self._decoder.decode(line)
        return None

    def close(self) -> None:
        """Close the lines."""
        self._lines.close()

    def _next_line(self) -> str | None:
        """The next line of those up to the header, None after the last; waits."""
        try:
            while (line := self._lines.next(None)) is None:
                pass
        except EOFError:
            return None
        return line.removeprefix(_BYTE_ORDER_MARK) if line.startswith(_BYTE_ORDER_MARK) else line

    def _first_rows(self, count: int) -> list[str]:
        """The next `count` lines of a file, as far as it has them."""
        rows: list[str] = []
        try:
            while len(rows) < count and (line := self._lines.next(None)) is not None:
                rows.append(line)
        except EOFError:
            pass  # `next` says so again
        return rows


def open_lines(
    target: str,
    channels: Sequence[str] | None,
    period: float | None,
    complaints: Complaints,
    said: Columns = NOTHING_SAID,
) -> LineSource:
    """Lines of CSV or JSON: of a file as of `open_text`, of stdin for `-`, or of a named pipe.

    channels, said: as of `LineSource`. A pipe is live, as stdin is, and ends with its last writer.
    Raises GruardError when the target cannot be opened, its header is unusable, or it is a
    recording whose samples are not `period` seconds apart.
    """
    lines: Lines
    if target == "-":
        if sys.stdin is None:
            raise GruardError("stdin is closed; pipe CSV or JSON lines into --source -")
        target, lines = "stdin", StreamLines(sys.stdin.fileno(), "stdin")
    elif (kind := kind_at(target)) == PIPE:
        lines = _open_pipe(target)
    elif kind == DEVICE:
        raise GruardError(
            f"{target}: is a device, not a file; write serial:{target} for a serial port"
        )
    else:
        check_file_period(target, period, said, channels or ())
        lines = FileLines(open_text(target), target)
    try:
        return LineSource(lines, target, channels, complaints, said)
    except BaseException:
        lines.close()
        raise


def _open_pipe(path: str) -> StreamLines:
    try:  # without O_NONBLOCK this would wait for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise GruardError(f"{path}: cannot be opened ({error.strerror})") from None
    return StreamLines(descriptor, path, lambda: os.close(descriptor))
