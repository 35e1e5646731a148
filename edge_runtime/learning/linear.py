"""The linear detector: the highway without a network, fitted on all clean rows and cross-fitted.

A short recording cannot spare rows that are used only for calibration. Refitting a highway is
cheap, so every row is used twice: the model that ships is fitted on all rows, and its scores are
measured fold by fold with a model fitted on the other folds. Folds are contiguous in time.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge_runtime.learning.highway import Float32, Highway, Kind, fit_highway, innovation_scale
from edge_runtime.learning.prepare import Rows

FOLDS = 5
Piece = TypeVar("Piece")


def fit_linear(rows: Rows, order: int, kind: Kind = "full") -> dict[str, Float32]:
    """Return arrays by name: highway, cross, innovation_scale; highway and cross of every fold.

    rows: all clean rows, standardised.
    """
    arrays = fit_plain(rows, order, kind)
    values, masks = cut_folds(rows.values), cut_folds(rows.masks)
    for fold in range(len(values)):
        fitted = fit_highway(all_but(values, fold), all_but(masks, fold), order, kind)
        arrays |= {f"fold-{fold}/{k}": array for k, array in highway_arrays(fitted).items()}
    return arrays


def fit_plain(rows: Rows, order: int, kind: Kind = "full") -> dict[str, Float32]:
    """Return arrays by name without cross-fitting: highway, cross, innovation_scale."""
    highway = fit_highway(rows.values, rows.masks, order, kind)
    scale = innovation_scale(rows.values, rows.masks, highway)
    return {**highway_arrays(highway), "innovation_scale": scale}


def highway_arrays(highway: Highway) -> dict[str, Float32]:
    """Return the highway as arrays by name, as run folders store it."""
    return {"highway": highway.own, "cross": np.asarray(highway.cross, np.float32)}


def fold_weights(arrays: Mapping[str, Float32], fold: int) -> dict[str, Float32]:
    """Return the highway of one fold from the arrays of `fit_linear`, without the fold's prefix."""
    prefix = f"fold-{fold}/"
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def fold_spans(lengths: Sequence[int], folds: int = FOLDS) -> list[list[tuple[int, int, int]]]:
    """Cut recordings of `lengths`, laid end to end, into `folds` equally long parts in time order.

    Each part is a list of (recording, start, stop). No span crosses the end of a recording, and
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
    """Return the pieces of all folds except fold `number`."""
    return [piece for i, fold in enumerate(folds) if i != number for piece in fold]


def cut_folds(
    recordings: Sequence[npt.NDArray[np.float32]], folds: int = FOLDS
) -> list[list[npt.NDArray[np.float32]]]:
    """Cut recordings [n, channels] by `fold_spans`."""
    spans = fold_spans([len(rows) for rows in recordings], folds)
    return [[recordings[r][start:stop] for r, start, stop in fold] for fold in spans]
