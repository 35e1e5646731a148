"""Lines of text, from a file at once or from a stream as they come."""

import gzip
import os
import zlib
from collections import deque
from collections.abc import Callable
from typing import BinaryIO, Protocol

from edge_runtime.errors import GruardError
from edge_runtime.files import readable
from edge_runtime.sources.encoding import DECODE_ERRORS
from edge_runtime.sources.source import TimeLimit

LONGEST = 1 << 20
"""Bytes of a line. 256 channels and as many columns that nobody wants need some 20,000."""
MOST_BYTES = 1 << 20
"""Bytes that one call of `next` reads for a line that does not end, some milliseconds of work."""
_CHUNK = 1 << 16
_SHOWN = 100  # characters of a line that is too long


class CutLine(str):
    """The beginning of a line of more than `LONGEST` bytes; the rest of it was skipped."""


class Lines(Protocol):
    """Where lines come from; `live` as of a Source."""

    live: bool

    def next(self, timeout: float | None) -> str | None:
        """Return the next line without its line break; EOFError after the last.

        Returns None when none came within `timeout` seconds, and also after `MOST_BYTES` without
        a line break, so that an endless line holds up nobody.
        """

    def close(self) -> None:
        """Give everything back."""


class Splitter:
    """Cuts bytes into lines, with work and memory in proportion to the bytes.

    A line ends with \\n, \\r or both. One that is too long is given once, as a `CutLine`.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque()
        self._rest = bytearray()  # of a line that has not ended
        self._skips = False  # whether the line that has not ended is too long

    def feed(self, data: bytes) -> None:
        """Take the next bytes; `lines` has what they complete."""
        for piece in data.splitlines(keepends=True):
            if not self._skips:
                self._rest += piece
                if len(self._rest) > LONGEST:
                    self.lines.append(CutLine(_text(self._rest[:_SHOWN])))
                    self._skips = True
                    self._rest.clear()
            if piece.endswith((b"\n", b"\r")):
                self.finish()

    def finish(self) -> None:
        """End the line that has not ended."""
        if self._rest:
            self.lines.append(_text(self._rest.rstrip(b"\r\n")))
            self._rest.clear()
        self._skips = False


class FileLines:
    """The lines of an open file, which are all there."""

    live = False

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._split = Splitter()
        self._ended = False

    def next(self, timeout: float | None) -> str | None:
        """Return the next line; see Lines. Raises GruardError when the file cannot be read on."""
        left = MOST_BYTES
        while not self._split.lines:
            if self._ended:
                raise EOFError
            if left <= 0:
                return None
            data = self._read()
            self._split.feed(data)
            left -= len(data)
            if not data:
                self._ended = True
                self._split.finish()
        return self._split.lines.popleft()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> bytes:
        try:
            return self._file.read(_CHUNK)
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise GruardError(
                f"{self._name}: is not a complete gzip file; compress it again or drop the '.gz'"
            ) from None
        except OSError as error:
            raise GruardError(f"{self._name}: reading failed ({error.strerror})") from None


class StreamLines:
    """Lines from a file descriptor: a pipe, a terminal, a serial port.

    A line is there when its line break is. close_fd is called by `close`. open_end: what follows
    the last line break is a line too, when all has ended.
    """

    live = True

    def __init__(
        self,
        fd: int,
        name: str,
        close_fd: Callable[[], None] = lambda: None,
        open_end: bool = True,
    ) -> None:
        self._fd, self._name, self._close, self._open_end = fd, name, close_fd, open_end
        self._split = Splitter()
        self._ended = False

    def next(self, timeout: float | None) -> str | None:
        """Return the next line; see Lines. Raises GruardError when the device is gone."""
        limit, left = TimeLimit(timeout), MOST_BYTES
        while not self._split.lines:
            if self._ended:
                raise EOFError
            if left <= 0 or not readable(self._fd, limit.left()):
                return None
            left -= self._take()
            if limit.left() == 0.0:  # a source that never pauses would be read for ever
                left = 0
        return self._split.lines.popleft()

    def close(self) -> None:
        """Give the descriptor back to whoever opened it."""
        self._close()

    def _take(self) -> int:
        """Read what is there, and return how many bytes it is."""
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return 0  # another process took it
        except OSError as error:
            raise GruardError(
                f"{self._name}: reading failed ({error.strerror}); check the device"
            ) from None
        self._split.feed(data)
        if not data:
            self._ended = True
            if self._open_end:
                self._split.finish()
        return len(data)


def _text(line: bytearray) -> str:
    return line.decode("utf-8", errors=DECODE_ERRORS)  # a broken byte spoils its cell, not the run
