"""Contributions: how much of a deviation one channel alone can explain.

A fault of one sensor can only touch what is computed from that sensor's own readings. So every
channel i is seen in three views, z_i = (x - fast, fast - slow, slow) with two exponential averages
of its reading x, minus their clean means. With O, the inverse of the clean covariance of all views
of all channels,

    D   = z' O z                 squared Mahalanobis distance from clean behaviour
    v_i = (O_ii)^-1 (O z)_i      the fault in channel i that would explain most, one value a view
    r_i = (O z)_i' v_i           what it explains: D - r_i is the distance without channel i
    f_i = 1' v_i / d_i           the same fault in the reading itself, in clean deviations

v_i is the multi-dimensional reconstruction of Alcala and Qin (Automatica 45, 2009), r_i their
reconstruction-based contribution: if channel i alone is at fault, no other channel explains more,
and what remains is as on clean rows. No forecast and no gate is needed. Vectors of views are
ordered by view first, then by channel.

A batch of b samples that do not depend on each other has one axis more, the last: [n, b] for [n],
with constants [n, 1] and so on (`convert.diagnosis.fault_batch`). The bits are those of one sample
at a time.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime import numerics
from edge_runtime.record import Float32

VIEWS = 3
# Every sample reads all (3 n)² numbers of the precision: 9216 of them, 37 kB, for 32 channels.
MOST_CHANNELS = 32
Scalar = np.float32 | Float32  # one number a sample: [b] in a batch
Channel = int | np.intp | npt.NDArray[np.intp]


@dataclass(frozen=True)
class ContributionConstants:
    """What clean rows look like, for n channels, in standardised units."""

    smoothing: Float32  # [2]: of the fast and of the slow average
    center: Float32  # [3, n]
    precision: Float32  # O, [3 n, 3 n]
    block: Float32  # (O_ii)^-1, [3, 3, n]
    deviation: Float32  # d, [n]


@dataclass(frozen=True)
class Contributions:
    """One sample's answer, n channels. weighted: O z. reconstruction: v. Both [3, n]."""

    distance: Scalar
    weighted: Float32
    reconstruction: Float32
    explained: Float32  # r [n]
    fault: Float32  # f [n]


def contributions(
    reading: Float32, averages: Float32, constants: ContributionConstants
) -> Contributions:
    """D, v, r and f of one sample; reading [n] and its averages [2, n], fast and slow, finite."""
    views = np.empty((VIEWS, *reading.shape), np.float32)
    views[0], views[1:] = reading, averages
    views[:-1] -= averages
    views -= constants.center
    flat = views.reshape(-1, *reading.shape[1:])
    weighted = numerics.ordered_matvec(constants.precision, flat)
    distance = numerics.ordered_sum(flat * weighted)
    return _explained(distance, weighted.reshape(views.shape), constants)


def without(
    channel: Channel, seen: Contributions, constants: ContributionConstants
) -> Contributions:
    """The contributions that are left once `channel` has been replaced by its reconstruction."""
    count = seen.fault.shape[0]
    if isinstance(channel, np.ndarray):  # another one for each sample of a batch
        samples = np.arange(len(channel))
        fault = seen.reconstruction[:, channel, samples]
        explained = seen.explained[channel, samples]
        columns = channel + count * np.arange(VIEWS)[:, np.newaxis]
        touched = constants.precision[:, columns, 0]
    else:
        fault, explained = seen.reconstruction[:, channel], seen.explained[channel]
        touched = constants.precision[:, channel::count]
    weighted = seen.weighted - numerics.ordered_matvec(touched, fault).reshape(seen.weighted.shape)
    return _explained(seen.distance - explained, weighted, constants)


def _explained(
    distance: Scalar, weighted: Float32, constants: ContributionConstants
) -> Contributions:
    reconstruction = np.add.accumulate(constants.block * weighted, axis=1)[:, -1]
    explained: Float32 = np.add.accumulate(weighted * reconstruction)[-1]
    fault: Float32 = np.add.accumulate(reconstruction)[-1] / constants.deviation
    return Contributions(distance, weighted, reconstruction, explained, fault)
