"""Text as strangers save it: UTF-8 with or without a byte order mark, UTF-16, Latin-1."""

import codecs
import io
from pathlib import Path
from typing import BinaryIO, cast

from edge_runtime.errors import GruardError

DECODE_ERRORS = "gruard-latin-1"
"""Error handler: what is no UTF-8 is Latin-1, byte by byte. Real Latin-1 is hardly ever UTF-8."""
_HEAD = 4096  # bytes that tell UTF-16
_ZIP = b"PK\3\4"


def _latin_1(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(DECODE_ERRORS, _latin_1)


def utf8(raw: BinaryIO, name: str | Path) -> BinaryIO:
    """The same bytes, or UTF-8 when they are UTF-16. Raises GruardError for what is no text."""
    head = raw.peek(_HEAD)[:_HEAD]  # type: ignore[attr-defined]
    encoding = _utf_16(head)
    if encoding:
        return cast(BinaryIO, io.BufferedReader(_Recoded(raw, encoding)))
    if head.startswith(_ZIP):
        raise GruardError(f"{name}: is a spreadsheet or another archive; export it as CSV")
    return raw


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


class _Recoded(io.RawIOBase):
    """A file of another encoding, read as UTF-8."""

    def __init__(self, raw: BinaryIO, encoding: str) -> None:
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._waiting:
            data = self._raw.read(_HEAD)
            self._waiting = self._decoder.decode(data, final=not data).encode()
            if not data:
                break
        taken, self._waiting = self._waiting[: len(buffer)], self._waiting[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        self._raw.close()
        super().close()
