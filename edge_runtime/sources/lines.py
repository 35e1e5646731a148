"""Lines of text, from a file at once or from a stream as they come."""

import gzip
import os
import select
import zlib
from collections import deque
from collections.abc import Callable
from typing import Protocol, TextIO

from edge_runtime.errors import GruardError
from edge_runtime.sources.source import TimeLimit

LONGEST = 1 << 20
"""Bytes of a line; a stream without line breaks must not eat the memory."""
_CHUNK = 65536


class Lines(Protocol):
    """Where lines come from; `live` as of a Source."""

    live: bool

    def next(self, timeout: float | None) -> str | None:
        """The next line, None when none came within `timeout` seconds; EOFError after the last."""

    def close(self) -> None:
        """Give everything back."""


class FileLines:
    """The lines of an open text file, which are all there."""

    live = False

    def __init__(self, text: TextIO, name: str) -> None:
        self._text, self._name = text, name

    def next(self, timeout: float | None) -> str | None:
        """The next line. Raises GruardError when the file cannot be read on."""
        try:
            line = self._text.readline(LONGEST)
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise GruardError(
                f"{self._name}: is not a complete gzip file; compress it again or drop the '.gz'"
            ) from None
        except OSError as error:
            raise GruardError(f"{self._name}: reading failed ({error.strerror})") from None
        if not line:
            raise EOFError
        return line

    def close(self) -> None:
        """Close the file."""
        self._text.close()


class StreamLines:
    """Lines from a file descriptor: a pipe, a terminal, a serial port.

    A line is there when its line break is; a line that is too long comes in pieces. close_fd is
    called by `close`. open_end: what follows the last line break is a line too, when all has ended.
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
        self._rest = b""
        self._whole: deque[bytes] = deque()
        self._ended = False

    def next(self, timeout: float | None) -> str | None:
        """The next line. Raises GruardError when the device is gone."""
        limit = TimeLimit(timeout)
        while not self._whole:
            if self._ended:
                raise EOFError
            if not select.select([self._fd], [], [], limit.left())[0]:
                return None
            self._take(self._read())
        # A broken byte spoils its cell, not the run.
        return self._whole.popleft().decode("utf-8", errors="replace")

    def close(self) -> None:
        """Give the descriptor back to whoever opened it."""
        self._close()

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, _CHUNK)
        except OSError as error:
            raise GruardError(
                f"{self._name}: reading failed ({error.strerror}); check the device"
            ) from None

    def _take(self, data: bytes) -> None:
        self._ended = not data
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._whole.extend(whole)
        if self._rest and (len(self._rest) > LONGEST or (self._ended and self._open_end)):
            self._whole.append(self._rest)
            self._rest = b""
