"""The score's course as a chart of block letters, up to twice the threshold."""

from collections.abc import Sequence

_BLOCKS = " ▁▂▃▄▅▆▇█"
_TOP = 2.0  # thresholds; a fixed scale can be compared from one look to the next


def chart(points: Sequence[float | None], rows: int, columns: int) -> list[str]:
    """`rows` lines (an even number) of `columns` cells, the latest point at the right.

    The lower edge of row rows/2 is the threshold, drawn where nothing is above it. A point beyond
    the scale ends at the upper edge; where there was no score, the column is empty.
    """
    shown = [None] * (columns - len(points)) + list(points[max(len(points) - columns, 0) :])
    eighths = [_eighths(point, rows) for point in shown]
    return [
        "".join(_letter(height - 8 * below, below == rows // 2) for height in eighths)
        for below in reversed(range(rows))
    ]


def _eighths(point: float | None, rows: int) -> int:
    """Height in eighths of a row; the least score is visible, none is not."""
    if point is None:
        return 0
    return max(1, round(min(point / _TOP, 1.0) * rows * 8))


def _letter(above: int, at_threshold: bool) -> str:
    """What of a column shows in a row whose lower edge is `above` eighths below its top."""
    if above <= 0 and at_threshold:
        return "_"
    return _BLOCKS[min(max(above, 0), 8)]
