"""Writes parts: appends members to the newest one, begins another, drops the oldest at a cap.

Every method may raise OSError; what was to be written may then be written again.
"""

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import GruardError
from edge_runtime.journal.segments import JournalDisk
from edge_runtime.readings.parts import MARK, Part, header, members, pack, part_of

PARTS, LARGEST = 32, 1 << 24
"""Parts that the cap is divided into, so that the oldest can go as a whole, and bytes of a part:
one is read at every start."""
ALARM_SHARE = 5
"""One in so many bytes of the cap may hold what is kept of older parts: the time around alarms."""
AROUND = 60.0
"""Seconds before and after an alarm that are kept longer than the rest."""
RESERVE, RESERVE_SHARE = 100_000_000, 20
"""Bytes that are left free on the disk, or one in so many of its bytes where that is less."""
_BLOCK = 4096  # bytes that a file takes at least


def spare_room(folder: Path) -> int:
    """Bytes that may be written before the disk counts as full; negative when it is."""
    disk = os.statvfs(folder)
    reserve = min(RESERVE, disk.f_blocks * disk.f_frsize // RESERVE_SHARE)
    return disk.f_bavail * disk.f_frsize - reserve


class PartWriter:
    """Appends to the newest part. Opening only reads; nothing is cut before a write.

    capacity: bytes of all parts together. room: bytes that may still be written to the disk.
    log takes a line about a torn end, and the name of each part that is dropped.
    """

    def __init__(
        self,
        disk: JournalDisk,
        channels: Sequence[str],
        capacity: int,
        room: Callable[[], int],
        log: Callable[[str], None],
        on_drop: Callable[[Part], None] = lambda part: None,
    ) -> None:
        self._disk, self._capacity, self._room, self._on_drop = disk, capacity, room, on_drop
        self._header = pack(header(channels))
        self._file: int | None = None
        found = ((part_of(name), size) for name, size in disk.sizes().items())
        self._sizes = {part: size for part, size in found if part}
        self._number = max((part.number for part in self._sizes), default=0)
        self._current: Part | None = None
        if self._sizes:
            self._find_end(max(self._sizes), log)

    @property
    def size(self) -> int:
        """Bytes of all parts; any thread may ask."""
        return sum([*self._sizes.values()])

    def append(self, text: str, day: str, alarm: bool) -> None:
        """Write whole lines, in the part of `day`, so that they outlast a power cut.

        alarm: mark them; they and what is near them in time is kept longer.
        """
        data = pack(text) + (MARK if alarm else b"")
        try:
            part = self._part_for(day, len(data))
            if self._room() < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._file is None:
                self._file = self._opened(part)
            whole = data if self._sizes[part] else self._header + data
            self._disk.write(self._file, whole)
            self._disk.sync(self._file)
        except OSError:
            # The kernel may have thrown away what it could not write: cut and written again.
            self.close()
            raise
        self._sizes[part] += len(whole)

    def close(self) -> None:
        """Give the file back."""
        file, self._file = self._file, None
        if file is not None:
            self._disk.close(file)

    def _find_end(self, last: Part, log: Callable[[str], None]) -> None:
        """Go on behind the last whole member; a part that cannot be read is left as it is."""
        if last.alarms:
            return
        try:
            end = max((member.end for member in members(self._disk.read(last.name))), default=0)
        except OSError:
            return
        torn, self._current, self._sizes[last] = self._sizes[last] - end, last, end
        if torn:
            log(f"{last.name}: the last {torn} bytes are torn, as a power cut leaves them; dropped")
            with suppress(OSError):  # a disk that cannot be written is told when rows come
                self._file = self._opened(last)

    def _part_for(self, day: str, length: int) -> Part:
        """The part to write to, with room for so many bytes below the cap."""
        part = self._current
        limit = min(self._capacity // PARTS, LARGEST)
        full = part and self._sizes[part] + length > limit
        if part is None or part.day != day or (full and self._sizes[part]):
            self.close()
            self._number += 1
            part = self._current = Part(self._number, day)
            self._sizes[part] = 0
        self._make_room(part, length + len(self._header))
        return part

    def _opened(self, part: Part) -> int:
        file = self._disk.open(part.name)
        try:
            self._disk.cut(file, self._sizes[part])
            self._disk.sync_names()
        except OSError:
            self._disk.close(file)
            raise
        return file

    def _make_room(self, current: Part, length: int) -> None:
        while self._taken() + length > self._capacity:
            plain = sorted(p for p in self._sizes if not p.alarms and p != current)
            kept = sorted(part for part in self._sizes if part.alarms)
            if kept and (not plain or self._taken(kept) > self._capacity // ALARM_SHARE):
                self._remove(kept[0])
            elif plain:
                self._condense(plain[0])
            else:
                return

    def _taken(self, parts: Sequence[Part] | None = None) -> int:
        sizes = self._sizes.values() if parts is None else (self._sizes[part] for part in parts)
        return sum(-(-size // _BLOCK) * _BLOCK for size in sizes)

    def _condense(self, part: Part) -> None:
        """Keep of a part what is near an alarm, if anything is."""
        if near := self._near_alarms(part):
            kept = Part(part.number, part.day, alarms=True)
            self._disk.replace(kept.name, near)
            self._sizes[kept] = len(near)
        self._remove(part)

    def _near_alarms(self, part: Part) -> bytes:
        """The header and those members that are at most `AROUND` from a mark, in time."""
        order = sorted(self._sizes)
        place = order.index(part)
        marks: list[tuple[float, float]] = []
        for each in order[max(place - 1, 0) : place + 2]:
            marks += _marks(_spans(self._content(each)))
        data = self._content(part)
        pieces = [data[each.start : each.end] for each in _spans(data) if _is_near(each, marks)]
        return self._header + b"".join(pieces) if pieces else b""

    def _content(self, part: Part) -> bytes:
        with suppress(OSError):  # a bad sector
            return self._disk.read(part.name) if self._sizes[part] else b""
        return b""

    def _remove(self, part: Part) -> None:
        self._disk.remove(part.name)
        del self._sizes[part]
        self._on_drop(part)


@dataclass(frozen=True)
class _Span:
    """A member at bytes `start` to `end`; monotonic: of its first and last row, None for a mark."""

    start: int
    end: int
    monotonic: tuple[float, float] | None


def _spans(data: bytes) -> list[_Span]:
    """The members of a part but its header; not their text, which would fill a small memory."""
    found = []
    for member in members(data):
        monotonic = member.monotonic()
        if monotonic or not member.text:
            found.append(_Span(member.start, member.end, monotonic))
    return found


def _marks(spans: Sequence[_Span]) -> list[tuple[float, float]]:
    """The monotonic times that marks stand for: of the two members before each.

    The record of a reading may come after its member was written.
    """
    marks: list[tuple[float, float]] = []
    before = last = None
    for span in spans:
        if span.monotonic:
            before, last = last or span.monotonic, span.monotonic
        elif before and last:
            marks.append((min(before[0], last[0]), last[1]))
    return marks


def _is_near(span: _Span, marks: Sequence[tuple[float, float]]) -> bool:
    """Whether a member is near a mark, or one itself: it counts for the next part too.

    A device that was started again may keep too much by this, never too little.
    """
    if span.monotonic is None:
        return True
    begin, end = span.monotonic
    return any(first - AROUND <= end and begin <= last + AROUND for first, last in marks)


def refuse_other_channels(
    folder: Path, before: Sequence[str] | None, channels: Sequence[str]
) -> None:
    """Raise GruardError unless the readings in `folder` are of `channels`, in any order."""
    if before is None or sorted(before) == sorted(channels):
        return
    gone = [name for name in before if name not in channels]
    new = [name for name in channels if name not in before]
    told = [f"lacks {', '.join(gone)}"] if gone else []
    told += [f"has {', '.join(new)} besides"] if new else []
    raise GruardError(
        f"{folder}: holds readings of {', '.join(before)}; this source {' and '.join(told)}; "
        "name another folder, or the same channels"
    )
