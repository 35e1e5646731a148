"""Lines of records out of files and journals, from where an earlier reading of them ended.

A position says how far an input was read and what lies before, so a file that has grown is read
from there, and one that was replaced is read again from its start. Reading again does no harm:
records that are counted already do not count twice (`fleet.ingest.runs`).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from edge_runtime.errors import GruardError
from edge_runtime.files import open_regular
from edge_runtime.journal.frames import Entry
from edge_runtime.journal.segments import JournalDisk, entries_after
from fleet.ingest.batches import LONGEST_LINE

_CHUNK = 1 << 20  # bytes read at once; some 3,000 records
_MARK = 4096  # bytes whose digest recognises a file
_ENTRIES = 4096  # of a journal, at once


class IncompleteError(GruardError):
    """A compressed file ends early: it is still being uploaded."""


@dataclass(frozen=True)
class Position:
    """How far an input was read.

    input: digest of its path. at: bytes, or the number of the last entry of a journal. lines: read
    before. mark: digest of the bytes before, or of a compressed file's ends, or of that entry.
    """

    input: str
    at: int
    lines: int
    mark: str


@dataclass(frozen=True)
class Portion:
    """Some whole lines of an input. number: of the first, from 1; of a journal, its entry's.

    end: the position behind the input's last line; only the last portion has it, and no lines.
    """

    lines: list[bytes]
    number: int
    end: Position | None = None


def key_of(path: Path) -> str:
    """Return by which name positions know an input."""
    return digest_of(os.fsencode(path.resolve()))


def read_portions(path: Path, known: Position | None) -> Iterator[Portion]:
    """Yield what is new in the file or the journal at `path` since the position `known`.

    Yield nothing if nothing is new. A line without its end is left for later. Raises OSError, and
    GruardError when a compressed file ends early or is damaged.
    """
    if path.is_dir():
        yield from _journal(path, known)
    elif _is_compressed(path):
        yield from _compressed(path, known)
    else:
        yield from _plain(path, known)


def first_line(path: Path, most: int) -> bytes:
    """Return at most so many bytes of the first line of a file, compressed or not.

    Raises OSError, EOFError, and zlib.error.
    """
    with os.fdopen(open_regular(path), "rb") as stream:
        if _is_compressed(path):
            return gzip.GzipFile(fileobj=stream).readline(most)
        return stream.readline(most)


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _plain(path: Path, known: Position | None) -> Iterator[Portion]:
    with os.fdopen(open_regular(path), "rb") as stream:
        if known is not None and known.mark != _mark_before(stream, known.at):
            known = None
        start = at = known.at if known else 0
        number = known.lines + 1 if known else 1
        stream.seek(start)
        for lines, size in _whole_lines(stream):
            yield Portion(lines, number)
            number, at = number + len(lines), at + size
        if at > start:
            yield _ended(path, at, number - 1, _mark_before(stream, at))


def _compressed(path: Path, known: Position | None) -> Iterator[Portion]:
    with os.fdopen(open_regular(path), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        mark = digest_of(stream.read(_MARK)) + _mark_before(stream, size)
        if known is not None and (known.at, known.mark) == (size, mark):
            return
        stream.seek(0)
        number = 1
        try:
            for lines, _ in _whole_lines(gzip.GzipFile(fileobj=stream)):  # type: ignore[arg-type]
                yield Portion(lines, number)
                number += len(lines)
        except EOFError:
            raise IncompleteError(f"{path}: is not complete yet; the rest is read later") from None
        except (zlib.error, gzip.BadGzipFile) as error:
            raise GruardError(
                f"{path}: is damaged after line {number - 1:,} ({error}); upload it again"
            ) from None
        yield _ended(path, size, number - 1, mark)


def _journal(folder: Path, known: Position | None) -> Iterator[Portion]:
    disk, at = JournalDisk(folder), known.at if known else 0
    first = next(entries_after(disk, at - 1), None) if known else None
    if known and (first is None or (first.sequence == at and _mark_of(first) != known.mark)):
        at = 0  # another journal in the place of the one that was read
    entries, last = entries_after(disk, at), None
    while found := list(islice(entries, _ENTRIES)):
        yield Portion([entry.message for entry in found], found[0].sequence)
        last = found[-1]
    if last is not None:
        yield _ended(folder, last.sequence, last.sequence, _mark_of(last))


def _mark_of(entry: Entry) -> str:
    return digest_of(entry.message)


def _ended(path: Path, at: int, lines: int, mark: str) -> Portion:
    return Portion([], lines + 1, Position(key_of(path), at, lines, mark))


def _whole_lines(stream: BinaryIO) -> Iterator[tuple[list[bytes], int]]:
    """Yield lines without their ends, and the bytes that they take in the stream.

    Of a line that is too long only the beginning is kept.
    """
    rest, dropped = b"", 0
    while chunk := stream.read(_CHUNK):
        *lines, last = (rest + chunk).split(b"\n")
        size = len(rest) + len(chunk) - len(last)
        if lines:
            yield lines, size + dropped
            dropped = 0
        rest = last[: LONGEST_LINE + 1]
        dropped += len(last) - len(rest)


def _mark_before(stream: BinaryIO, at: int) -> str:
    stream.seek(max(0, at - _MARK))
    return digest_of(stream.read(min(at, _MARK)))


def digest_of(data: bytes) -> str:
    """Return a short digest that tells inputs, records and positions apart."""
    return hashlib.sha256(data).hexdigest()[:16]
