"""Labelled stretches: rows that the owner marked as anomalous, with the rows around them.

Only the gate learns from them. They come only from the training part of the recordings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_runtime.bundle.manifest import Channel
from edge_runtime.learning.prepare import standard_rows
from edge_runtime.learning.recording import Recording
from train.batches import BURN_IN, Float32


@dataclass(frozen=True)
class Labelled:
    """Standardised stretches [n, channels], 0 where unusable, their masks, and their labels [n].

    Masks and labels are 0 or 1; each stretch has a labelled row after its first `BURN_IN` rows.
    """

    values: tuple[Float32, ...] = ()
    masks: tuple[Float32, ...] = ()
    labels: tuple[Float32, ...] = ()

    @property
    def arrays(self) -> tuple[Float32, ...]:
        """All arrays that training reads."""
        return (*self.values, *self.masks, *self.labels)


NO_LABELS = Labelled()


def labelled_rows(
    recordings: Sequence[Recording], channels: tuple[Channel, ...], period: float | None
) -> Labelled:
    """Mask and standardise the labelled recordings as the runtime does.

    A recording whose labelled rows all lie in its first `BURN_IN` rows is left out, because the
    state has not settled there.
    """
    labels = [(r.labels != 0).astype(np.float32) for r in recordings if r.labels is not None]
    usable = [i for i, label in enumerate(labels) if label[BURN_IN:].any()]
    rows = standard_rows([recordings[i].values for i in usable], channels, period)
    return Labelled(rows.values, rows.masks, tuple(labels[i] for i in usable))


def draw_labelled(
    labelled: Labelled, length: int, windows: int, rng: np.random.Generator
) -> dict[str, Float32]:
    """Draw windows of labelled stretches; {} without stretches or when `length` <= `BURN_IN`.

    labelled, labelled_mask: [windows, length, channels]; label: [windows, length]. Every stretch is
    equally likely, whatever its length, and every window has a labelled row after its burn-in.
    """
    if not labelled.labels or length <= BURN_IN:
        return {}
    chosen = rng.integers(len(labelled.labels), size=windows)
    starts = [_start(labelled.labels[i], length, rng) for i in chosen]

    def cut(stretches: Sequence[Float32]) -> Float32:
        pieces = [stretches[i][s : s + length] for i, s in zip(chosen, starts, strict=True)]
        return np.stack([_padded(piece, length) for piece in pieces])

    return {
        "labelled": cut(labelled.values),
        "labelled_mask": cut(labelled.masks),
        "label": cut(labelled.labels),
    }


def _start(label: Float32, length: int, rng: np.random.Generator) -> int:
    """Draw the first row of a window around a random labelled row after the burn-in.

    The window may begin inside the event, because a growing fault is not visible at its start.
    """
    row = BURN_IN + int(rng.choice(np.flatnonzero(label[BURN_IN:])))
    earliest = max(row - length + 1, 0)
    latest = min(row - BURN_IN, max(len(label) - length, 0))
    return int(rng.integers(earliest, latest, endpoint=True))


def _padded(rows: Float32, length: int) -> Float32:
    """Append zeros; these rows are masked and follow all others, so they change no result."""
    missing = [(0, length - len(rows)), *[(0, 0)] * (rows.ndim - 1)]
    return np.pad(rows, missing)
