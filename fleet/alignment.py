"""Bring assets of one type to common units: how their sensors differ in level and spread.

The standardised rows of a type's assets share a covariance C. Asset i shows them with a gain and an
offset of its own in each channel: d_i * x - m_i are rows of the type. A scaler from a median and a
deviation would take another load for another sensor, and would break tight relations, such as flow
by speed. So gains and offsets are those under which all channels together look like the type: the
most probable ones, where the rows are Gaussian, the gains log-normal and the offsets Gaussian. How
much assets of the type differ is measured on them. With few rows an asset is taken for usual.

Settings are the same for all assets, so exogenous channels have gain 1 and offset 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Channel, Matrix, Place, Vector
from edge_runtime.learning.decimals import matrix, vector
from edge_runtime.learning.prepare import Rows

Float64 = npt.NDArray[np.float64]

PERSISTENCE = 100.0
"""Rows that say as much as one independent row. 30 to 300 predicted other rows of simulated pumps
about as well, 10 and 1,000 worse."""
RIDGE, SMALLEST_RIDGE = 1e-3, 1e-6  # of the variances, added to the covariance
STILL = 0.01  # of the usual variance: a channel that hardly moves says nothing about its gain
ROUNDS, SWEEPS = 6, 10
FIRST_GUESS = 0.01  # variance of the logarithm of the gains, before it is measured


@dataclass(frozen=True)
class Moments:
    """Of the complete standardised rows of one asset. mean: [channels], covariance: of them."""

    rows: int
    mean: Float64
    covariance: Float64


@dataclass(frozen=True)
class Alignment:
    """What assets of a type share, in the scales of the type's channels.

    center: their usual mean. covariance: of the rows of one asset. gains, offsets: how much assets
    differ, as variances of the logarithm of gains and of offsets; 0 for exogenous channels.
    """

    center: Vector
    covariance: Matrix
    gains: Vector
    offsets: Vector


def moments_of(rows: Rows) -> Moments | None:
    """Return the moments of `rows`; None with fewer complete rows than channels."""
    pairs = zip(rows.values, rows.masks, strict=True)
    complete = np.concatenate([v[m.all(axis=1)] for v, m in pairs]).astype(np.float64)
    if len(complete) <= complete.shape[1]:
        return None
    return Moments(len(complete), complete.mean(axis=0), np.cov(complete.T, bias=True))


def fit_alignment(assets: Sequence[Moments], exogenous: npt.NDArray[np.bool_]) -> Alignment:
    """Return what `assets` share, and how much they differ. exogenous: [channels]."""
    gains = [np.ones(len(exogenous)) for _ in assets]
    spread = np.where(exogenous, 0.0, FIRST_GUESS)
    weights = np.array([each.rows for each in assets], np.float64)
    covariance = np.zeros((len(exogenous),) * 2)
    for _ in range(ROUNDS):
        scaled = [np.outer(d, d) * a.covariance for d, a in zip(gains, assets, strict=True)]
        covariance = np.average(scaled, axis=0, weights=weights)
        found = [
            _gains(asset, covariance, spread, known)
            for asset, known in zip(assets, gains, strict=True)
        ]
        usual = np.exp(np.mean([np.log(each) for each, _ in found], axis=0))
        gains = [each / usual for each, _ in found]
        unknown = np.mean([variance for _, variance in found], axis=0)
        spread = np.where(exogenous, 0.0, np.var(np.log(gains), axis=0) + unknown)
    means = np.array([d * asset.mean for d, asset in zip(gains, assets, strict=True)])
    # What the settings explain is another load, not another sensor.
    slope = _slope(covariance, exogenous)
    chance = np.diag(covariance - covariance[:, exogenous] @ slope) * np.mean(PERSISTENCE / weights)
    left = means - means[:, exogenous] @ slope
    differ = np.maximum(left.var(axis=0) - chance, 0.0)
    return Alignment(
        center=vector(means.mean(axis=0)),
        covariance=matrix(covariance),
        gains=vector(spread),
        offsets=vector(np.where(exogenous, 0.0, differ)),
    )


def aligned(
    channels: tuple[Channel, ...], asset: Moments, alignment: Alignment
) -> tuple[Channel, ...]:
    """Return the type's `channels` with the scaler of an asset.

    asset: its rows, standardised by `channels`.
    """
    covariance, center = np.array(alignment.covariance), np.array(alignment.center)
    spread, differ = np.array(alignment.gains), np.diag(alignment.offsets)
    gain, _ = _gains(asset, covariance, spread, np.ones(len(channels)))
    chance = covariance * (PERSISTENCE / asset.rows)
    found = gain * asset.mean - center
    offset = differ @ np.linalg.solve(differ + chance + _ridge(covariance), found)
    return tuple(
        replace(
            channel,
            center=_moved(channel.center, channel.scale, gain[i], offset[i]).center,
            scale=_moved(channel.center, channel.scale, gain[i], offset[i]).scale,
            modes=tuple(_moved(p.center, p.scale, gain[i], offset[i]) for p in channel.modes),
        )
        if not channel.exogenous
        else channel
        for i, channel in enumerate(channels)
    )


def _gains(
    asset: Moments, covariance: Float64, spread: Float64, known: Float64
) -> tuple[Float64, Float64]:
    """Return the gains [channels] of an asset, from `known` ones on, and what is left open.

    Each is the most probable one given those of the other channels. What is left open is the
    variance of its logarithm.
    """
    both = np.linalg.inv(covariance + _ridge(covariance)) * asset.covariance
    own, usual = np.diag(asset.covariance), np.diag(covariance)
    moved = (own > STILL * usual) & (usual > STILL * own)
    count, gains, variance = asset.rows / PERSISTENCE, known.copy(), spread.copy()
    for _ in range(SWEEPS):
        for i in np.flatnonzero((spread > 0) & moved):
            alone = float(both[i, i])
            others = float(both[i] @ gains) - alone * gains[i]
            likely = (-others + np.sqrt(others**2 + 4 * alone)) / (2 * alone)
            certain = count * (alone * likely**2 + 1) * spread[i]
            gains[i] = likely ** (certain / (certain + 1))
            variance[i] = spread[i] / (certain + 1)
    return gains, variance


def _slope(covariance: Float64, exogenous: npt.NDArray[np.bool_]) -> Float64:
    """Return the regression of all channels on the exogenous ones: [exogenous, channels]."""
    inside = np.ix_(exogenous, exogenous)
    regular = covariance[inside] + _ridge(covariance)[inside]
    return np.asarray(np.linalg.solve(regular, covariance[exogenous]))


def _ridge(covariance: Float64) -> Float64:
    return np.diag(np.maximum(RIDGE * np.diag(covariance), SMALLEST_RIDGE))


def _moved(center: float, scale: float, gain: float, offset: float) -> Place:
    """Return the place in which the raw readings of an asset standardise to rows of the type."""
    width = np.float32(scale / gain)
    return Place(float(np.float32(center + offset * width)), float(width))
