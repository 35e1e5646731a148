"""A serial port: `serial:/dev/ttyUSB0?baud=115200&columns=a,b,c`.

Lines of CSV or JSON. A port may be opened in the middle of a line, so the first line is skipped,
unless it is a whole header or starts a JSON object.
"""

import errno
import os
import re
from collections.abc import Sequence

from edge_runtime.address import Address
from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources.decoders import CsvDecoder, Decoder, decoder_for, json_object
from edge_runtime.sources.line_source import MOST_SKIPPED
from edge_runtime.sources.lines import CutLine, Lines, StreamLines
from edge_runtime.sources.source import Reading, Reconnecting, SourceLostError, TimeLimit

_BAUD = 115200
_MISSING = "serial ports need the package pyserial; install it with pip install 'gruard[serial]'"


class LineFormat:
    """Decodes the lines of a port; learns the header from them.

    columns: the header of a device that prints none. Raises GruardError when it lacks a channel.
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[str],
        complaints: Complaints,
        columns: str | None,
        said: Columns = NOTHING_SAID,
    ) -> None:
        self._said = said
        self._name, self._channels, self._complaints = name, channels, complaints
        self._header = columns
        self._decoder: Decoder | None = None
        if columns is not None:
            self._decoder = CsvDecoder(columns, name, channels, complaints, said=said)

    def decode(self, line: str) -> Reading | None:
        """Return the reading of a line; None for a blank line, a header, or before the header."""
        if not line.strip() or line.strip() == self._header:
            return None  # a device sends its header again after a reset
        if self._decoder is None:
            return self._learn(line)
        return self._decoder.decode(line)

    def is_whole(self, line: str) -> bool:
        """Return whether a line is certainly whole: a header or a JSON object."""
        cells = {cell.strip(' "\r') for cell in re.split("[,;\t]", line)}
        return line.startswith("{") or cells.issuperset(self._channels)

    def _learn(self, line: str) -> Reading | None:
        line = line if isinstance(line, CutLine) else line.strip()
        try:
            decoder, readings = decoder_for(
                line, self._name, self._channels, self._complaints, said=self._said
            )
        except GruardError:
            self._complaints.row(
                self._name, line, "does not name the channels; give their order with ?columns="
            )
            return None
        if readings and json_object(line) is None:
            self._complaints.row(self._name, line, "is not a JSON object")
            return None
        self._decoder = decoder
        self._header = None if readings else line
        return decoder.decode(line) if readings else None


class SerialReadings:
    """Readings of one connection to a port."""

    live = True

    def __init__(self, lines: Lines, line_format: LineFormat) -> None:
        self._lines, self._format = lines, line_format
        self._first = True

    def read(self, timeout: float | None) -> Reading | None:
        """Return the next reading; see Source. Raises SourceLostError when the device is gone."""
        limit = TimeLimit(timeout)
        for _ in range(MOST_SKIPPED):
            if (line := self._next(limit.left())) is None:
                return None
            first, self._first = self._first, False
            if first and not self._format.is_whole(line):
                continue
            if (reading := self._format.decode(line)) is not None:
                return reading
        return None

    def close(self) -> None:
        """Close the port."""
        self._lines.close()

    def _next(self, timeout: float | None) -> str | None:
        try:
            return self._lines.next(timeout)
        except (EOFError, GruardError):
            raise SourceLostError("the device is gone") from None


def open_serial(
    address: Address,
    channels: Sequence[str],
    complaints: Complaints,
    said: Columns = NOTHING_SAID,
) -> Reconnecting:
    """Open a serial port, which may be unplugged and come back."""
    try:
        import serial
    except ImportError:
        raise GruardError(_MISSING) from None
    name, baud = str(address), address.count("baud", _BAUD)
    line_format = LineFormat(name, channels, complaints, address.options.get("columns"), said)

    def connect() -> SerialReadings:
        try:
            port = serial.Serial(address.place, baud, timeout=0, exclusive=True)
        except ValueError:
            raise GruardError(f"{name}: the port cannot do {baud} baud") from None
        except OSError as error:
            hint = "; is the user in the group dialout?" if error.errno == errno.EACCES else ""
            why = os.strerror(error.errno) if error.errno else str(error)
            raise SourceLostError(f"{why}{hint}") from None
        lines = StreamLines(port.fileno(), name, port.close, open_end=False)
        return SerialReadings(lines, line_format)

    return Reconnecting(name, connect, complaints)
