"""How long a change must last, and which channels had not settled when the recording ended.

A short recording does not show where a channel will settle. A channel was still moving at the end
if, of eight blocks in time order with means m, much of the variance lies between blocks, and blocks
half a recording apart differ more than neighbours:

    W = var(m) / (var(m) + mean variance within)
    G = mean (m_{k+4} - m_k)^2 / mean (m_{k+1} - m_k)^2

A channel has not settled if W G > 0.2. Its level is still scored until later samples show that it
keeps moving, because a slow daily cycle looks like a drift in the first hours (docs/changes.md).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import ChangeRule, Channel
from edge_runtime.detector.inputs import channel_scaler, in_mode, is_present, standardise
from edge_runtime.learning.decimals import vector

Float32 = npt.NDArray[np.float32]

BLOCKS, SUSPECT = 8, 0.2
SHARE, SHORTEST, LONGEST = 12, 30, 240  # a change lasts a twelfth of the recording, within bounds
BASELINE, FOLLOW = 3.0, 20.0  # rates, over the rows of the recording


def change_section(
    clean: Sequence[Float32], channels: Sequence[Channel], moving: bool
) -> ChangeRule:
    """Return the manifest's section from healthy rows [n, channels] in raw units, in time order.

    moving: whether the centre of the detector may move, so that it can follow a channel.
    """
    rows = np.concatenate([_in_mode(rows, channels) for rows in clean])
    after = int(np.clip(len(rows) // SHARE, SHORTEST, LONGEST))
    watched = np.array([not channel.exogenous for channel in channels])
    follow = np.where(unsettled(rows) & watched & moving, min(FOLLOW / len(rows), 1.0), 0.0)
    return ChangeRule(after, min(BASELINE / len(rows), 1.0), vector(follow))


def _in_mode(rows: Float32, channels: Sequence[Channel]) -> Float32:
    """Return raw `rows`; with operating modes, standardised by each row's mode."""
    scaler, present = channel_scaler(tuple(channels)), is_present(rows)
    if scaler.modes is None:
        return rows
    seen = in_mode(rows, present, scaler)
    return np.where(seen.mask, standardise(rows, seen.mask, seen.scaler), np.float32(np.nan))


def unsettled(rows: Float32) -> npt.NDArray[np.bool_]:
    """Return bool [channels]: whether the level of `rows` [n, channels] still moved at the end."""
    # numpy's masked arrays have no types.
    masked: Any = np.ma
    blocks = np.array_split(masked.masked_invalid(rows.astype(np.float64)), BLOCKS)
    means = masked.array([block.mean(axis=0) for block in blocks])
    within = masked.array([block.var(axis=0) for block in blocks]).mean(axis=0)
    between = means.var(axis=0, ddof=1)
    share = between / np.maximum(between + within, _tiny(rows))
    half = BLOCKS // 2
    apart = ((means[half:] - means[:-half]) ** 2).mean(axis=0)
    steps = (np.diff(means, axis=0) ** 2).mean(axis=0)
    growth = apart / np.maximum(steps, _tiny(rows))
    moving: npt.NDArray[np.bool_] = masked.filled(share * growth > SUSPECT, False)
    return moving


def _tiny(rows: Float32) -> npt.NDArray[np.float64]:
    """Return the variance [channels] below which differences are rounding."""
    largest = np.nan_to_num(np.abs(rows.astype(np.float64)), posinf=0.0).max(axis=0)
    return np.asarray(np.maximum((1e-6 * largest) ** 2, 1e-30))
