"""Memory that is compared with a second copy, because a bit that flips in it would stay.

A checksum tells which of the two is right.
"""

import zlib
from collections.abc import Callable

PIECE = 1 << 14
"""Bytes that one look compares, at most."""


class MemoryLostError(Exception):
    """Neither the live bytes nor their copy are what they were."""


class GuardedMemory:
    """A piece of live memory with a copy of it.

    live: its bytes, writable, and always at the same place.
    """

    def __init__(self, live: memoryview) -> None:
        bytewise = live.cast("B")
        starts = range(0, len(bytewise), PIECE)
        self._live = [bytewise[start : start + PIECE] for start in starts]
        self._next = 0
        self.renew()

    @property
    def looks(self) -> int:
        """Calls of `restore` until every byte was compared."""
        return len(self._live)

    def renew(self) -> None:
        """Copy the live bytes, which are right as they are now."""
        self._copies = [bytes(piece) for piece in self._live]
        self._checksums = [zlib.crc32(copy) for copy in self._copies]

    def restore(self) -> bool:
        """Compare the next piece with its copy; whether one of them was damaged, and is repaired.

        Raises MemoryLostError when both are damaged.
        """
        at = self._next
        self._next = (at + 1) % len(self._live)
        live, copy = bytes(self._live[at]), self._copies[at]
        if live == copy:
            return False
        if zlib.crc32(copy) == self._checksums[at]:
            self._live[at][:] = copy
        elif zlib.crc32(live) == self._checksums[at]:
            self._copies[at] = live
        else:
            raise MemoryLostError
        return True


class DamageLog:
    """Counts damage, and tells of the first, second, fourth, eighth, ... so that no log floods.

    tell: takes one line.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.count = 0
        self._tell = tell

    def note(self, what: str, then: str) -> None:
        """Count one piece of damage. what: the memory; then: what was done about it."""
        self.count += 1
        if self.count & (self.count - 1) == 0:
            times = f" ({self.count} times so far)" if self.count > 1 else ""
            self._tell(f"{what} changed in memory{times}; {then}")


def ignore_damage(line: str) -> None:
    """Take a line about damage and do nothing."""
