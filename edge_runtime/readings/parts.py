"""The format of a folder of readings, and reading it back from whatever is left of it.

    channels.json               the channels, with a checksum
    2026-12-01.000007.csv.gz    a part: rows of one UTC day, or of a piece of one
    2026-11-30.000003.alarms.csv.gz   what is kept of an older part: the time around alarms

Parts are read in the order of their numbers, whatever the clock did. A part is a sequence of gzip
members, each with whole lines and the checksum of gzip, so damage costs the members that it hit.
The first member is the header `time,monotonic,CHANNEL,…`. An empty member is a mark: an alarm was
on when it was written. zcat reads an undamaged part.

time: seconds, as the source gave them; see `Recorder`. monotonic: seconds since the device started.
A missing reading is an empty cell.
"""

import csv
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edge_runtime.alarm import is_date
from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular
from edge_runtime.plain import read_sealed

CHANNELS_FILE = "channels.json"
LARGEST_PART = 1 << 26
"""Bytes of a part that are read; the recorder begins a new part long before."""
_LARGEST_TEXT = 1 << 25
"""Bytes of text in a member; the recorder writes a thousand rows at most."""
_HEAD = b"\x1f\x8b\x08\0\0\0\0\0"  # gzip: deflate, no extra fields, no time
_CHUNK = 4096
_LOOKED_AT = 100  # characters of a row that hold its times
_IN_VAIN = 16
"""How many times its size is decompressed in vain, before the rest of a part counts as damage."""
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.(\d{6,18})(\.alarms)?\.csv\.gz")


@dataclass(frozen=True, order=True)
class Part:
    """A file of rows. number: grows from part to part. day: UTC, by the device's clock.

    alarms: only what was near an alarm is left of it.
    """

    number: int
    day: str
    alarms: bool = False

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.day}.{self.number:06}{'.alarms' if self.alarms else ''}.csv.gz"


@dataclass(frozen=True)
class Member:
    """A whole member of a part, at bytes `start` to `end`. text: whole lines; empty for a mark."""

    start: int
    end: int
    text: str

    def monotonic(self) -> tuple[float, float] | None:
        """Seconds of its first and of its last row; None where it has none."""
        if not is_row(self.text):
            return None
        last = self.text.rfind("\n", 0, -1) + 1
        return _monotonic(self.text[:_LOOKED_AT]), _monotonic(self.text[last : last + _LOOKED_AT])


@dataclass(frozen=True)
class Contents:
    """What CHANNELS_FILE says."""

    channels: tuple[str, ...]


def part_of(name: str) -> Part | None:
    """The part that a file of this name is, None for any other file."""
    found = _NAME.fullmatch(name)
    return Part(int(found[2]), found[1], found[3] is not None) if found else None


def parts_in(folder: Path) -> list[Part]:
    """The parts of a folder in their order; of a part that is there twice, the whole one.

    Raises GruardError when there are none.
    """
    try:
        named = sorted(filter(None, (part_of(path.name) for path in folder.iterdir())))
    except OSError as error:
        raise GruardError(f"{folder}: cannot be read ({error.strerror})") from None
    if not named:
        raise GruardError(f"{folder}: has no readings; gruard record --out {folder} makes some")
    found: dict[int, Part] = {}
    for part in named:
        found.setdefault(part.number, part)
    return list(found.values())


def header(channels: Sequence[str]) -> str:
    """The first line of a part."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(("time", "monotonic", *channels))
    return text.getvalue()


def is_row(line: str) -> bool:
    """Whether a line of a part holds a reading; the header does not."""
    return line[:1] in set("-.0123456789")


def pack(text: str) -> bytes:
    """A member with `text`."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(text.encode()) + packer.flush()


MARK = pack("")


def members(data: bytes) -> Iterator[Member]:
    """Every whole member of a part; whatever else is there is skipped."""
    at, patience = 0, _IN_VAIN * len(data)
    while patience >= 0 and (at := data.find(_HEAD, at)) >= 0:
        member, looked_at = _member_at(data, at)
        if member is None:
            at += 1
            patience -= looked_at
        else:
            at = member.end
            yield member


def _member_at(data: bytes, start: int) -> tuple[Member | None, int]:
    """The member that begins at `start`, None where it is not whole; bytes that were looked at."""
    unpacker, pieces, size = zlib.decompressobj(31), [], 0
    at, view = start, memoryview(data)
    while not unpacker.eof and at < len(data):
        try:
            pieces.append(unpacker.decompress(view[at : at + _CHUNK], _LARGEST_TEXT - size + 1))
        except zlib.error:
            return None, min(at + _CHUNK, len(data)) - start
        size += len(pieces[-1])
        at = min(at + _CHUNK, len(data))
        if unpacker.unconsumed_tail or size > _LARGEST_TEXT:
            return None, at - start
    if not unpacker.eof:
        return None, at - start
    end = at - len(unpacker.unused_data)
    return Member(start, end, b"".join(pieces).decode(errors="replace")), end - start


def read_channels(folder: Path) -> tuple[str, ...] | None:
    """The channels of the readings in `folder`; None where there are none yet.

    Where CHANNELS_FILE is damaged, the header of a part says it. Raises GruardError when none does.
    """
    try:
        contents = read_sealed(folder / CHANNELS_FILE, Contents)
    except GruardError:
        contents = None
    if contents is not None:
        return contents.channels
    parts = parts_in(folder) if any(part_of(path.name) for path in folder.iterdir()) else []
    for part in parts:
        for member in members(_read(folder / part.name)):
            first = next(csv.reader([member.text.partition("\n")[0]]), [])
            if member.start == 0 and first[:2] == ["time", "monotonic"]:
                return tuple(first[2:])
    if parts:
        raise GruardError(
            f"{folder}: {CHANNELS_FILE} and the header of every part are damaged; "
            "record into another folder"
        )
    return None


@dataclass(frozen=True)
class Row:
    """One reading as its cells. time: seconds."""

    time: float
    cells: list[str]


Report = Callable[[str], None]


def read_rows(folder: Path, parts: Sequence[Part], width: int, report: Report) -> Iterator[Row]:
    """The rows of `parts` in the order in which they were recorded, of so many channels each.

    report: takes a line about bytes that could not be read, and between which times they lie. At
    the very end they need not be damaged: they may be being written, or were when the power went.
    """
    last: float | None = None
    lost: list[str] = []
    for part in parts:
        try:
            data = _read(folder / part.name)
        except GruardError as error:
            lost.append(str(error))
            continue
        end = 0
        for member in members(data):
            if member.start > end:
                lost.append(f"{folder / part.name}: {member.start - end} damaged bytes at {end}")
            end = member.end
            for line in member.text.splitlines():
                row = _row(line, width)
                if row is None:
                    continue
                _report(lost, last, row.time, report)
                last = row.time
                yield row
        if end < len(data):
            what = "damaged, torn or unfinished" if part == parts[-1] else "damaged"
            lost.append(f"{folder / part.name}: {len(data) - end} {what} bytes at {end}")
    _report(lost, last, None, report)


def count_rows(folder: Path, parts: Sequence[Part] | None = None) -> int:
    """Return how many readings `parts` have, None for all of `folder`; reads every one."""
    if parts is None:
        try:
            parts = parts_in(folder)
        except GruardError:  # there are none yet
            return 0
    return sum(
        member.text.count("\n") - member.text.startswith("time,")
        for part in parts
        for member in members(_read_or_nothing(folder / part.name))
    )


def _read_or_nothing(path: Path) -> bytes:
    with suppress(GruardError):  # a bad sector costs one part
        return _read(path)
    return b""


def last_row(folder: Path, parts: Sequence[Part], width: int) -> Row | None:
    """The newest row."""
    for part in reversed(parts):
        *_, last = [None, *read_rows(folder, [part], width, lambda line: None)]
        if last is not None:
            return last
    return None


def time_words(seconds: float) -> str:
    """A time as a user may write it: a UTC date where it is one."""
    if not is_date(seconds):
        return repr(seconds)
    moment = datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='milliseconds')}Z"


def _report(lost: list[str], last: float | None, next_: float | None, report: Report) -> None:
    if not lost:
        return
    after = "the beginning" if last is None else time_words(last)
    before = "the end" if next_ is None else time_words(next_)
    for what in lost:
        report(f"{what}; readings between {after} and {before} are missing")
    lost.clear()


def _row(line: str, width: int) -> Row | None:
    if not is_row(line):
        return None
    try:
        time, _, *cells = line.split(",")
        return Row(float(time), [time, *cells]) if len(cells) == width else None
    except ValueError:
        return None


def _monotonic(row: str) -> float:
    try:
        return float(row.split(",", 2)[1])
    except (IndexError, ValueError):
        return 0.0


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, LARGEST_PART)
    except ValueError as error:
        raise GruardError(f"{path}: {error}") from None
    except OSError as error:
        raise GruardError(f"{path}: cannot be read ({error.strerror})") from None
