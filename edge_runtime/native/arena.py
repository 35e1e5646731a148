"""Where each of the graph's values lies in the arena, the one piece of memory they share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ALIGNMENT = 16  # bytes; vector units read rows at once


@dataclass(frozen=True)
class Life:
    """A value of `size` bytes, from the operator `first` that writes it to its `last` reader."""

    size: int
    first: int
    last: int


def place(lives: Mapping[int, Life]) -> tuple[dict[int, int], int]:
    """The place of each value, in bytes, and the size of the arena.

    Values that live at the same time never overlap. The largest are placed first, each into the
    lowest gap that takes it.
    """
    placed: dict[int, int] = {}
    for key in sorted(lives, key=lambda k: (-lives[k].size, lives[k].first, k)):
        life = lives[key]
        others = (k for k in placed if _together(life, lives[k]))
        taken = sorted((placed[k], placed[k] + lives[k].size) for k in others)
        placed[key] = _lowest_gap(taken, life.size)
    size = max((at + lives[key].size for key, at in placed.items()), default=0)
    return placed, _aligned(size)


def _together(one: Life, other: Life) -> bool:
    return one.first <= other.last and other.first <= one.last


def _lowest_gap(taken: Iterable[tuple[int, int]], size: int) -> int:
    at = 0
    for start, end in taken:
        if at + size <= start:
            break
        at = max(at, _aligned(end))
    return at


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
