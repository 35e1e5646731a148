"""The shared parts of all baselines: interface, standardised rows, smoothing, distances."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from edge_runtime.record import Float32

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CLIP = 50.0
CONSTANT_SPREAD = 1e-6  # of the median: less is the rounding of float32
CONSTANT_SCALE = 0.01  # of the median: what counts as one deviation of a constant channel
SMALLEST_SCALE = 1e-6
SMOOTHING = 0.1
SHRINKAGE = 0.01
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Fitted:
    """A fitted detector. score: raw rows [n, channels], a fresh recording, to float64 [n].

    Scoring is causal: row i of the score depends only on rows up to i. parameters: number of stored
    values.
    """

    score: Callable[[Float32], Float64]
    parameters: int

    @property
    def bytes(self) -> int:
        """Size of the parameters in float32."""
        return FLOAT32_BYTES * self.parameters


# fit(train, scored, seed): clean raw recordings [n, channels], bool [channels] that is False for
# inputs of the machine, which a detector may use but must not score.
Fit = Callable[[Sequence[Float32], Bools, int], Fitted]


@dataclass(frozen=True)
class Standardiser:
    """mean, scale: float64 [channels] of the rows that were fitted."""

    mean: Float64
    scale: Float64

    @property
    def parameters(self) -> int:
        """Numbers to keep."""
        return 2 * len(self.mean)

    def __call__(self, rows: Float32) -> Float64:
        """Rows [n, channels] in deviations from the mean, clipped to ±50.

        A reading that is missing repeats the last one before it; before the first it is the mean.
        """
        z = np.clip((_held(rows.astype(np.float64)) - self.mean) / self.scale, -CLIP, CLIP)
        return np.where(np.isnan(z), 0.0, z)


def fit_standardiser(train: Sequence[Float32]) -> Standardiser:
    """Mean and standard deviation of all finite readings; 1 % of |median| for a constant channel.

    Constant channels are kept, because they may move later.
    """
    rows = np.concatenate(train).astype(np.float64)
    rows[~np.isfinite(rows)] = np.nan
    size = np.abs(np.nanmedian(rows, axis=0))
    spread = np.nanstd(rows, axis=0)
    constant = np.maximum(CONSTANT_SCALE * size, SMALLEST_SCALE)
    return Standardiser(
        np.nanmean(rows, axis=0), np.where(spread <= CONSTANT_SPREAD * size, constant, spread)
    )


def ewma(values: Float64, weight: float = SMOOTHING) -> Float64:
    """Exponentially weighted mean over the rows of [n] or [n, m], beginning at the first row."""
    start = (1 - weight) * values[:1]
    smoothed: Float64 = lfilter([weight], [1, weight - 1], values, axis=0, zi=start)[0]
    return smoothed


def shrunk_root(rows: Float64) -> Float64:
    """W with |W e|² = e' (C + 0.01 I)^-1 e, where C is the second moment of `rows` [n, m]."""
    moment = rows.T @ rows / len(rows) + SHRINKAGE * np.eye(rows.shape[1])
    root: Float64 = np.linalg.inv(np.linalg.cholesky(moment))
    return root


def distance(rows: Float64, root: Float64) -> Float64:
    """sqrt(e' (C + 0.01 I)^-1 e) for each row e of [n, m]; root from `shrunk_root`."""
    return np.sqrt(np.square(rows @ root.T).sum(axis=1))


def root_size(width: int) -> int:
    """Numbers in the triangular root of `width` channels."""
    return width * (width + 1) // 2


def split_rows(
    recordings: Sequence[npt.NDArray], start: int, stop: int
) -> tuple[list[npt.NDArray], list[npt.NDArray]]:
    """Recordings, laid end to end, as the pieces inside [start, stop) and those outside it."""
    inside, outside, offset = [], [], 0
    for recording in recordings:
        first, last = (int(np.clip(row - offset, 0, len(recording))) for row in (start, stop))
        inside.append(recording[first:last])
        outside += [recording[:first], recording[last:]]
        offset += len(recording)
    return [piece for piece in inside if len(piece)], [piece for piece in outside if len(piece)]


def _held(rows: Float64) -> Float64:
    """Each missing reading replaced by the last one before it in its channel."""
    known = np.isfinite(rows)
    latest = np.maximum.accumulate(np.where(known, np.arange(len(rows))[:, None], 0), axis=0)
    held = np.take_along_axis(rows, latest, axis=0)
    return np.where(np.isfinite(held), held, np.nan)
