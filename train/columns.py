"""Columns that are no channels: text, nothing, a constant, a counter; set aside before training."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.record import Float32
from train.recording import Dataset, Recording

FEWEST_RISES = 20
"""A column that moves so often, and never back, is a counter; a switch moves once or twice."""
_SHOWN = 20  # characters of a cell


def set_aside(dataset: Dataset, named: Collection[str] = ()) -> Dataset:
    """`dataset` without columns that no detector can learn from, which one warning lists.

    Columns of numbers in `named` stay: the owner knows them. Raises GruardError when
    no column is left.
    """
    found: dict[str, list[str]] = {kind: [] for kind in ("text", *_KINDS)}
    found["text"] = [f"{name} ('{cell[:_SHOWN]}')" for name, cell in dataset.text.items()]
    kept = []
    for column, name in enumerate(dataset.channels):
        kind = _kind([recording.values[:, column] for recording in dataset.recordings])
        if kind is None or name in named:
            kept.append(column)
        else:
            found[kind].append(name)
    listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.items() if names)
    if not listed:
        return dataset
    if not kept:
        raise GruardError(
            f"{dataset.recordings[0].name}: no column is left to learn from ({listed}); "
            "add a sensor's column"
        )
    warning = f"columns set aside: {listed}; to keep one with numbers, name it in the settings file"
    recordings = tuple(_with_columns(recording, kept) for recording in dataset.recordings)
    return replace(dataset, recordings=recordings, warnings=(*dataset.warnings, warning))


def _kind(pieces: Sequence[Float32]) -> str | None:
    """What a column is instead of a channel; None for a channel."""
    known = [piece[np.isfinite(piece)] for piece in pieces]
    return next((kind for kind, holds in _KINDS.items() if holds(known)), None)


def _empty(pieces: Sequence[Float32]) -> bool:
    return not any(map(len, pieces))


def _constant(pieces: Sequence[Float32]) -> bool:
    readings = np.concatenate(pieces)
    return bool(readings.min() == readings.max())


def _counting(pieces: Sequence[Float32]) -> bool:
    steps = np.concatenate([np.diff(piece) for piece in pieces])
    one_way = bool((steps >= 0).all() or (steps <= 0).all())
    return one_way and np.count_nonzero(steps) >= FEWEST_RISES


_KINDS: dict[str, Callable[[Sequence[Float32]], bool]] = {
    "empty": _empty,
    "constant": _constant,
    "counting": _counting,
}


def _with_columns(recording: Recording, columns: Sequence[int]) -> Recording:
    names = tuple(recording.channels[column] for column in columns)
    return replace(recording, channels=names, values=recording.values[:, columns])
