"""Which clean rows a linear detector is fitted on, if there are many.

Some thousand rows decide the coefficients and shapes; more would only take time and memory. So of
more than `MOST_ROWS` rows, blocks are fitted that lie all over the recordings. The rows between
them, the *rest*, still decide what rare rows decide: the threshold and the limits of the fallback.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from edge_runtime.record import Float32

MOST_ROWS, BLOCK = 48_000, 240
PIECE = 12_000
"""Rows that are scored at once, which bounds the memory."""
_SEED = 0
Span = tuple[int, int, int]
"""Number of a recording, its first row, and the row after the last."""


def fitted_spans(lengths: Sequence[int]) -> list[Span]:
    """Return the spans of recordings of `lengths` that are fitted, in time order."""
    return spread_spans(lengths, MOST_ROWS)


def spread_spans(lengths: Sequence[int], most: int) -> list[Span]:
    """Return about `most` rows of recordings of `lengths`, in blocks from all over them.

    All recordings, uncut, if they have no more rows together.
    """
    if sum(lengths) <= most:
        return [(number, 0, length) for number, length in enumerate(lengths) if length]
    return block_spans(lengths, most)


def block_spans(lengths: Sequence[int], most: int) -> list[Span]:
    """Return blocks with about `most` rows of recordings of `lengths`, in time order.

    One block at random of each so many, because blocks in equal distances would show the same hours
    of each day.
    """
    blocks = [block for number, length in enumerate(lengths) for block in _cut(number, length)]
    if not blocks:
        return []
    count = min(max(most * len(blocks) // sum(lengths), 1), len(blocks))
    edges, rng = np.linspace(0, len(blocks), count + 1).astype(int), np.random.default_rng(_SEED)
    return [blocks[rng.integers(first, last)] for first, last in pairwise(edges)]


def rest_spans(lengths: Sequence[int]) -> list[Span]:
    """Return the spans between `fitted_spans`, each of at most `PIECE` rows."""
    fitted = fitted_spans(lengths)
    rest: list[Span] = []
    for number, length in enumerate(lengths):
        inside = [row for i, start, stop in fitted if i == number for row in (start, stop)]
        for start, stop in zip([0, *inside[1::2]], [*inside[::2], length], strict=True):
            rest += [(number, a, min(a + PIECE, stop)) for a in range(start, stop, PIECE)]
    return rest


def cut_spans(recordings: Sequence[Float32], spans: Sequence[Span]) -> list[Float32]:
    """Return the rows of each span of `recordings` [n, channels]."""
    return [recordings[number][start:stop] for number, start, stop in spans]


def fitted_rows(recordings: Sequence[Float32]) -> list[Float32]:
    """Return the rows of `recordings` [n, channels] that a linear detector is fitted on."""
    return cut_spans(recordings, fitted_spans(list(map(len, recordings))))


def fitted_sentence(count: int, total: int) -> str:
    """Return how many rows are fitted of how many, in words."""
    if count == total:
        return f"all {total:,} clean rows"
    return f"{count:,} of {total:,} clean rows, in blocks from the whole time"


def _cut(number: int, length: int) -> list[Span]:
    """Cut a recording into blocks of equal length, at most `BLOCK` rows."""
    edges = np.linspace(0, length, -(-length // BLOCK) + 1).astype(int).tolist()
    return [(number, start, stop) for start, stop in pairwise(edges)]
