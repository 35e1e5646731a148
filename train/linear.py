"""The purely linear detector: the highway alone, fitted on all clean rows and cross-fitted."""

from collections.abc import Mapping

import numpy as np

from train.batches import Rows
from train.folds import all_but, cut_folds
from train.highway import Float32, Highway, Kind, fit_highway, innovation_scale


def fit_linear(rows: Rows, order: int, kind: Kind = "full") -> dict[str, Float32]:
    """Arrays by name: highway, cross, innovation_scale, and highway and cross of every fold.

    rows: all clean rows, standardised.
    """
    arrays = fit_plain(rows, order, kind)
    values, masks = cut_folds(rows.values), cut_folds(rows.masks)
    for fold in range(len(values)):
        fitted = fit_highway(all_but(values, fold), all_but(masks, fold), order, kind)
        arrays |= {f"fold-{fold}/{k}": array for k, array in highway_arrays(fitted).items()}
    return arrays


def fit_plain(rows: Rows, order: int, kind: Kind = "full") -> dict[str, Float32]:
    """Arrays by name: highway, cross, innovation_scale."""
    highway = fit_highway(rows.values, rows.masks, order, kind)
    scale = innovation_scale(rows.values, rows.masks, highway)
    return {**highway_arrays(highway), "innovation_scale": scale}


def highway_arrays(highway: Highway) -> dict[str, Float32]:
    """The highway as arrays by name, as run folders hold it."""
    return {"highway": highway.own, "cross": np.asarray(highway.cross, np.float32)}


def fold_weights(arrays: Mapping[str, Float32], fold: int) -> dict[str, Float32]:
    """The highway of one fold out of the arrays of `fit_linear`, under its plain names."""
    prefix = f"fold-{fold}/"
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
