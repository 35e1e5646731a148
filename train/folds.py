"""Cross-fitting: contiguous folds of the clean rows, each judged by a model that never saw it.

A short recording cannot spare rows for calibration alone. Where refitting is cheap, every row
serves both: the model that ships is fitted on all of them, and its scores are measured fold by fold
with a model fitted on the others.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FOLDS = 10


def cut_folds(
    recordings: Sequence[npt.NDArray[np.float32]], folds: int = FOLDS
) -> list[list[npt.NDArray[np.float32]]]:
    """Recordings [n, channels], laid end to end, in `folds` parts of equal length in time order.

    No piece reaches across the end of a recording; none is empty.
    """
    edges = np.linspace(0, sum(map(len, recordings)), folds + 1).astype(int)
    cut: list[list[npt.NDArray[np.float32]]] = [[] for _ in range(folds)]
    offset = 0
    for rows in recordings:
        for pieces, start, stop in zip(cut, edges[:-1], edges[1:], strict=True):
            piece = rows[max(start - offset, 0) : max(stop - offset, 0)]
            if len(piece):
                pieces.append(piece)
        offset += len(rows)
    return cut
