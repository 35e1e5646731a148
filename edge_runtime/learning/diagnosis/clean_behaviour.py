"""Clean behaviour for the diagnosis: the distribution of the contributions of healthy rows.

Everything is measured out of sample: each fold is judged by a covariance estimated without it,
because rows judged by their own covariance look calmer than new rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime import numerics
from edge_runtime.bundle.manifest import Channel
from edge_runtime.detector.inputs import BEYOND_BELIEF, channel_scaler, in_mode, standardise
from edge_runtime.learning.smoothing import smoothed
from edge_runtime.symptoms import READING_CLIP, VIEWS, ContributionConstants, SymptomConstants

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SMOOTHING = (0.1, 0.01)
SHRINKAGE = 0.01
FOLDS = 3
SETTLING = 200
PERSISTENCE = 32
WINDOW = 2000  # rows of a window when only some windows are used
# A rest is a symptom only if it is this many times as long as the longest clean one; never, if a
# clean stretch was a single rest.
REPEAT_MARGIN, NEVER = 3.0, 1e30


@dataclass(frozen=True)
class Stretch:
    """A recording as the diagnosis gets it: reading and present, float32 [n, channels]."""

    reading: Float32
    present: Float32


def stretch(rows: Float32, channels: tuple[Channel, ...]) -> Stretch:
    """Standardise raw rows [n, channels]; a missing reading repeats the last one."""
    seen = in_mode(rows, np.abs(rows) < BEYOND_BELIEF, channel_scaler(channels))
    present, reading = seen.mask, standardise(rows, seen.mask, seen.scaler)
    latest = np.maximum.accumulate(np.where(present, np.arange(len(rows))[:, np.newaxis], 0))
    held = np.take_along_axis(reading, latest, axis=0)
    return Stretch(np.clip(held, -READING_CLIP, READING_CLIP), present.astype(np.float32))


def sampled(pieces: Sequence[Stretch], most: int) -> list[Stretch]:
    """Return `pieces`, or evenly spread windows of them with about `most` rows in total."""
    share = most / sum(len(piece.reading) for piece in pieces)
    if share >= 1:
        return list(pieces)
    windows = [window for piece in pieces for window in _windows(piece)]
    return [w for i, w in enumerate(windows) if int((i + 1) * share) > int(i * share)]


def clean_behaviour(
    whole: Sequence[Stretch], exogenous: npt.NDArray[np.bool_]
) -> tuple[SymptomConstants, list[tuple[SymptomConstants, list[Stretch]]]]:
    """Return the constants of all clean rows, and per fold those made without it and its rows."""
    folds = _folds(whole)
    shapes, seen = [], []
    for index in range(FOLDS):
        others = [piece for k, fold in enumerate(folds) if k != index for piece in fold]
        shapes.append(contribution_shape(others))
        seen += [(piece, *_clean(piece, shapes[-1])) for piece in folds[index]]
    final = _with_spread(contribution_shape(whole), seen, exogenous)
    parts = []
    for shape, fold in zip(shapes, folds, strict=True):
        measured = replace(shape, deviation=final.contribution.deviation)
        parts.append((replace(final, contribution=measured), fold))
    return final, parts


def contribution_shape(pieces: Sequence[Stretch]) -> ContributionConstants:
    """Measure mean and shrunk precision of all views over `pieces`; deviations are set to one."""
    views = np.concatenate([_views(piece.reading) for piece in pieces])
    count = views.shape[2]
    flat = views.reshape(len(views), -1)
    covariance = np.cov(flat, rowvar=False)
    covariance += np.diag(SHRINKAGE * np.diag(covariance) + 1e-4)
    precision = np.linalg.inv(covariance)
    by_channel = precision.reshape(VIEWS, count, VIEWS, count)
    block = np.stack([np.linalg.inv(by_channel[:, i, :, i]) for i in range(count)], axis=2)
    return ContributionConstants(
        smoothing=np.array(SMOOTHING, np.float32),
        center=flat.mean(axis=0).reshape(VIEWS, count).astype(np.float32),
        precision=precision.astype(np.float32),
        block=block.astype(np.float32),
        deviation=np.ones(count, np.float32),
    )


def _folds(whole: Sequence[Stretch]) -> list[list[Stretch]]:
    """Cut into three folds: whole recordings, or thirds of each if there are fewer than three."""
    if len(whole) >= FOLDS:
        return [list(whole[k::FOLDS]) for k in range(FOLDS)]
    return [list(parts) for parts in zip(*(_cut(piece, FOLDS) for piece in whole), strict=True)]


def _windows(piece: Stretch) -> list[Stretch]:
    return _cut(piece, -(-len(piece.reading) // WINDOW))


def _cut(piece: Stretch, parts: int) -> list[Stretch]:
    cuts = zip(*(np.array_split(a, parts) for a in (piece.reading, piece.present)), strict=True)
    return [Stretch(reading, present) for reading, present in cuts]


def _views(reading: Float32) -> Float64:
    """Return the views [n, 3, channels] of settled rows."""
    x = reading.astype(np.float64)
    fast, slow = (smoothed(x, rate, x[0]) for rate in SMOOTHING)
    views: Float64 = np.stack([x - fast, fast - slow, slow], axis=1)
    return views[min(SETTLING, len(x) // 4) :]


def _clean(piece: Stretch, shape: ContributionConstants) -> tuple[Float64, Float64, Float64]:
    """Return distance [n], explained and fault [n, channels] of settled clean rows."""
    views = _views(piece.reading) - shape.center
    weighted = (views.reshape(len(views), -1) @ shape.precision).reshape(views.shape)
    reconstruction = np.einsum("abj,tbj->taj", shape.block, weighted)
    distance = (views * weighted).sum(axis=(1, 2))
    return distance, (weighted * reconstruction).sum(axis=1), reconstruction.sum(axis=1)


def _with_spread(
    shape: ContributionConstants,
    seen: Sequence[tuple[Stretch, Float64, Float64, Float64]],
    exogenous: npt.NDArray[np.bool_],
) -> SymptomConstants:
    distance, explained, fault = (np.concatenate([s[i] for s in seen]) for i in (1, 2, 3))
    deviation = np.sqrt((fault**2).mean(axis=0)) + 1e-4
    sums = [_window_sums(f / deviation) for _, _, _, f in seen if len(f) > PERSISTENCE]
    moves = np.concatenate([np.diff(piece.reading, axis=0) for piece, *_ in seen])
    jumps = np.concatenate([np.diff(f / deviation, axis=0) for _, _, _, f in seen])
    repeats = [_longest_repeat(piece.reading) for piece, *_ in seen]

    def vector(values: npt.ArrayLike) -> Float32:
        return np.asarray(values, np.float32)

    return SymptomConstants(
        contribution=replace(shape, deviation=vector(deviation)),
        explained_mean=vector(explained.mean(axis=0)),
        explained_high=vector(np.quantile(explained, 0.99, axis=0) + 1e-3),
        distance_mean=np.float32(distance.mean() + 1e-3),
        move_mean=vector((moves.astype(np.float64) ** 2).mean(axis=0) + 1e-6),
        jump_mean=vector((jumps**2).mean(axis=0) + 1e-6),
        persistence=vector((np.concatenate(sums) ** 2).mean(axis=0) / PERSISTENCE + 1e-3),
        longest_repeat=vector(np.max(repeats, axis=0)),
        blameable=vector(~exogenous),
        log_table=numerics.log_table(),
    )


def _window_sums(fault: Float64) -> Float64:
    total = np.cumsum(fault, axis=0)
    return total[PERSISTENCE:] - total[:-PERSISTENCE]


def _longest_repeat(reading: Float32) -> Float64:
    """Return how many consecutive samples [channels] may equal the one before."""
    longest = run = np.zeros(reading.shape[1])
    for same in np.diff(reading, axis=0) == 0:
        run = np.where(same, run + 1, 0)
        longest = np.maximum(longest, run)
    return np.where(run == len(reading) - 1, NEVER, REPEAT_MARGIN * longest + 1)
