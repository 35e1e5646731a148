"""Cross-fitting: contiguous folds of the clean rows, each judged by a model that never saw it.

A short recording cannot spare rows for calibration alone. Where refitting is cheap, every row
serves both: the model that ships is fitted on all of them, and its scores are measured fold by fold
with a model fitted on the others.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

FOLDS = 5
Piece = TypeVar("Piece")


def fold_spans(lengths: Sequence[int], folds: int = FOLDS) -> list[list[tuple[int, int, int]]]:
    """Recordings of `lengths`, laid end to end, in `folds` parts of equal length in time order.

    Each part is a list of (recording, start, stop). No span reaches across the end of a recording;
    none is empty.
    """
    edges = np.linspace(0, sum(lengths), folds + 1).astype(int)
    spans: list[list[tuple[int, int, int]]] = [[] for _ in range(folds)]
    offset = 0
    for recording, length in enumerate(lengths):
        for fold, (first, last) in enumerate(pairwise(edges)):
            start, stop = max(int(first) - offset, 0), min(int(last) - offset, length)
            if start < stop:
                spans[fold].append((recording, start, stop))
        offset += length
    return spans


def all_but(folds: Sequence[Sequence[Piece]], number: int) -> list[Piece]:
    """The pieces of every fold but one."""
    return [piece for i, fold in enumerate(folds) if i != number for piece in fold]


def cut_folds(
    recordings: Sequence[npt.NDArray[np.float32]], folds: int = FOLDS
) -> list[list[npt.NDArray[np.float32]]]:
    """Recordings [n, channels] cut by `fold_spans`."""
    spans = fold_spans([len(rows) for rows in recordings], folds)
    return [[recordings[r][start:stop] for r, start, stop in fold] for fold in spans]
