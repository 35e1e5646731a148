"""Lines of text as strangers save and send them: of a file, or of a stream as they come.

Text is UTF-8 with or without a byte order mark, UTF-16 or Latin-1, and may be gzip. The table in a
Parquet file is text as well.
"""

import codecs
import gzip
import io
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO, cast

from edge_runtime.errors import GruardError
from edge_runtime.files import open_input, readable
from edge_runtime.sources.source import TimeLimit

LONGEST = 1 << 20
"""Bytes of a line. 256 channels and as many columns that nobody wants need some 20,000."""
MOST_BYTES = 1 << 20
"""Bytes that one call of `next` reads for a line that does not end, some milliseconds of work."""
DECODE_ERRORS = "gruard-latin-1"
"""Error handler: what is no UTF-8 is Latin-1, byte by byte. Real Latin-1 is hardly ever UTF-8."""
_CHUNK = 1 << 16
_SHOWN = 100  # characters of a line that is too long
_HEAD = 4096  # bytes that tell UTF-16
_ZIP = b"PK\3\4"
_OPEN_ERRORS: dict[type[OSError], str] = {
    FileNotFoundError: "no such file; check the path",
    PermissionError: "permission denied; make the file readable",
}


def _latin_1(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(DECODE_ERRORS, _latin_1)


def open_text(path: str | Path) -> TextIO:
    """Open a file of text, `.gz` and `.parquet` too. Raises GruardError, also for what is no text.

    What is compressed is decompressed as it is read, so that a small file that holds gigabytes
    does not fill the memory.
    """
    try:
        raw = open_input(path, "name a CSV file")
    except OSError as error:
        default = f"cannot be opened ({error.strerror}); check the path"
        raise GruardError(f"{path}: {_OPEN_ERRORS.get(type(error), default)}") from None
    if str(path).endswith(".gz"):
        unzipped: Any = gzip.GzipFile(fileobj=raw)
        unzipped.myfileobj = raw  # which is closed with it then
        raw = cast(BinaryIO, unzipped)
    try:
        with _reading(path):
            head = raw.peek(_HEAD)[:_HEAD]  # type: ignore[attr-defined]
        if head.startswith(_ZIP):
            raise GruardError(f"{path}: is a spreadsheet or another archive; export it as CSV")
        if str(path).endswith(".parquet"):
            return _parquet_text(raw, path)
    except BaseException:
        raw.close()
        raise
    return io.TextIOWrapper(raw, _utf_16(head) or "utf-8-sig", DECODE_ERRORS, newline="")


def _parquet_text(raw: BinaryIO, path: str | Path) -> TextIO:
    try:
        from edge_runtime.sources.parquet import parquet_text
    except ImportError:
        raise GruardError(
            f"{path}: Parquet needs the package pyarrow; install it with pip install "
            "'gruard[parquet]', or export the file as CSV"
        ) from None
    return parquet_text(raw, path)


@contextmanager
def text_lines(path: str | Path) -> Iterator[Iterator[str]]:
    """Open a file as `open_text` does and give its lines, with their line breaks.

    Every way it can fail is a GruardError, also a line of more than `LONGEST` characters.
    """

    def lines(text: TextIO) -> Iterator[str]:
        number = 0
        with _reading(path):
            while line := text.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise GruardError(
                        f"{path} line {number}: has more than {LONGEST} characters; "
                        "is it a CSV file?"
                    )
                yield line

    with open_text(path) as text:
        yield lines(text)


@contextmanager
def _reading(name: str | Path) -> Iterator[None]:
    """What can go wrong in reading a file that is open, as GruardError."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise GruardError(
            f"{name}: is not a complete gzip file; compress it again or drop the '.gz'"
        ) from None
    except OSError as error:
        raise GruardError(f"{name}: reading failed ({error.strerror})") from None


def _utf_16(head: bytes) -> str | None:
    """The encoding of a file with this beginning: by its mark, or by every second byte's zero."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    half = len(head) // 2
    low, high = head[0::2].count(0), head[1::2].count(0)
    if half and high > 0.9 * half and not low:
        return "utf-16-le"
    if half and low > 0.9 * half and not high:
        return "utf-16-be"
    return None


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

    def __init__(self, text: TextIO, name: str) -> None:
        self._text, self._name = text, name
        self._skips = False  # whether the next piece is of a line that is too long

    def next(self, timeout: float | None) -> str | None:
        """Return the next line; see Lines. Raises GruardError when the file cannot be read on."""
        with _reading(self._name):
            piece = self._text.readline(LONGEST + 1)
        if not piece:
            raise EOFError
        line, skips = piece.rstrip("\r\n"), self._skips
        self._skips = len(piece) > LONGEST and line == piece
        if skips:
            return None
        return CutLine(line[:_SHOWN]) if len(line) > LONGEST else line

    def close(self) -> None:
        """Close the file."""
        self._text.close()


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
