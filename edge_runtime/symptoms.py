"""Symptoms: each channel's fault over the last samples, as decaying sums.

Without an alarm the sums forget within some 16 samples, long enough to contain a short spike when
the debounced alarm rises; during an alarm they keep some 128. A sample's weight for a channel is
how far that channel's fault f stands out, so that the sums describe the fault and not the calm
around it.

Contributions: how much of a deviation each single channel can explain. A fault of one sensor can
only affect what is computed from that sensor's own readings. So every channel i has three views,
z_i = (x - fast, fast - slow, slow) with two exponential averages of its reading x, minus their
clean means. With O, the inverse of the clean covariance of all views of all channels,

    D   = z' O z                 squared Mahalanobis distance from clean behaviour
    v_i = (O_ii)^-1 (O z)_i      the fault in channel i that would explain most, one value a view
    r_i = (O z)_i' v_i           what it explains: D - r_i is the distance without channel i
    f_i = 1' v_i / d_i           the same fault in the reading itself, in clean deviations

v_i is the multi-dimensional reconstruction of Alcala and Qin (Automatica 45, 2009), r_i their
reconstruction-based contribution: if only channel i is at fault, no other channel explains more,
and what remains is as on clean rows. No forecast and no gate is needed. Vectors of views are
ordered by view first, then by channel.

A batch of b independent samples has one axis more, the last: [n, b] for [n], with constants [n, 1]
and so on (`learning.diagnosis`). The bits are those of one sample at a time.
"""

import enum
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime import numerics
from edge_runtime.record import Float32

VIEWS = 3
# A sample reads all (3 n)² numbers of the precision: 9216 of them, 37 kB, for 32 channels.
MOST_CHANNELS = 32
READING_CLIP = np.float32(16)
KEEP_CALM, KEEP_ALARM = np.float32(15 / 16), np.float32(127 / 128)
# A missing or repeated sample weighs as much as a reading ten deviations off.
MISSING_WORTH = np.float32(100)
_NOTICED = np.float32(0.5)  # of the clean 99 % quantile of what a channel explains
_CLEAR_FAULT = np.float32(4)  # squared deviations at which a sample counts half
_SMALL_SHARE = np.float32(1 / 16)  # of the squared peak, likewise
_DWARFED = np.float32(16)  # times the squared peak so far
_MOVE_GAIN = np.float32(4)
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)

Bools = npt.NDArray[np.bool_]
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
    """Result for one sample, n channels. weighted: O z. reconstruction: v. Both [3, n]."""

    distance: Scalar
    weighted: Float32
    reconstruction: Float32
    explained: Float32  # r [n]
    fault: Float32  # f [n]


class Sum(enum.IntEnum):
    """Rows of `SymptomState.sums`; ages are in samples, f is the fault, x the expected reading.

    A new sample, of age 0, adds to the first nine; an older one also to the ages.
    """

    COUNT = 0
    FAULT = 1
    FAULT2 = 2
    EXPECTED = 3
    EXPECTED2 = 4
    EXPECTED_FAULT = 5
    MOVE = 6  # log of the squared change of the reading
    JUMP = 7  # log of the squared change of f
    SPREAD = 8  # log of the squared distance of f from its mean so far
    AGE = 9
    AGE_FAULT = 10
    AGE2 = 11
    EXPLAINED = 12
    OTHER_FAULT = 13  # f of this channel without the most suspicious one
    OTHER_EXPLAINED = 14
    MISSING = 15


class Peak(enum.IntEnum):
    """Rows of `SymptomState.peaks`, the largest squares of the last samples."""

    FAULT = 0
    JUMP_OUT = 1  # change of f away from zero
    JUMP_BACK = 2
    OTHER_FAULT = 3


@dataclass(frozen=True)
class SymptomConstants:
    """How the contributions vary on clean rows; vectors are [n channels]."""

    contribution: ContributionConstants
    explained_mean: Float32
    explained_high: Float32  # 99 % quantile
    distance_mean: np.float32
    move_mean: Float32  # mean squared change of the reading
    jump_mean: Float32  # mean squared change of f
    persistence: Float32  # variance of a sum of f, over that of independent samples
    longest_repeat: Float32  # samples for which a clean reading stays the same
    blameable: Float32  # 0 for exogenous channels
    log_table: Float32


@dataclass(frozen=True)
class SymptomState:
    """Memory of the symptoms. reading, fault, repeats, started: [n channels]."""

    reading: Float32
    averages: Float32  # [2, n], the fast and the slow one
    fault: Float32
    repeats: Float32
    started: Float32  # 1 once a reading has been seen
    sums: Float32  # [len(Sum), n]
    peaks: Float32  # [len(Peak), n]
    seen: Scalar  # sum of the weights of the samples
    age: Scalar  # number of samples in the sums
    distance: Scalar


def initial_symptoms(channels: int) -> SymptomState:
    """Return the state before the first sample."""
    zero = np.zeros(channels, np.float32)
    averages = np.zeros((VIEWS - 1, channels), np.float32)
    sums = np.zeros((len(Sum), channels), np.float32)
    peaks = np.zeros((len(Peak), channels), np.float32)
    return SymptomState(zero, averages, zero, zero, zero, sums, peaks, _ZERO, _ZERO, _ZERO)


def observe(
    reading: Float32,
    present: Float32,
    alarm: bool | Bools,
    state: SymptomState,
    constants: SymptomConstants,
) -> SymptomState:
    """Return the state after one sample.

    reading: [n] standardised, finite, including rejected readings. present: 1 where there is a
    reading at all; elsewhere the last one is held. alarm: whether the alarm is on. In a batch
    everything has a last axis, the alarm too.
    """
    arrived = present > 0
    x = np.where(arrived, numerics.clip(reading, READING_CLIP), state.reading)
    if not state.started.all():
        state = _begun(x, arrived, state)
    averages = state.averages + constants.contribution.smoothing[:, np.newaxis] * (
        x - state.averages
    )
    now = contributions(x, averages, constants.contribution)
    excess = (now.explained / constants.explained_high).max(axis=0)
    excess = np.maximum(excess - _NOTICED, _ZERO)
    weight = excess / (excess + _NOTICED)
    keep = _keep(alarm)
    square = now.fault * now.fault
    move = x - state.reading
    jump = now.fault - state.fault
    jump = jump * jump / constants.jump_mean * state.started
    sums = _aged(state.sums, keep)
    sums[: Sum.EXPLAINED] *= _relevance(square, state.peaks)
    sums[: Sum.AGE] += _news(x, move, jump, present, now.fault, square, sums, state, constants)
    other_fault = np.zeros_like(x)
    if np.any(weight):
        left = _others(now, state, constants)
        other_fault = left.fault
        worth = np.array([now.explained, left.fault, left.explained])
        sums[Sum.EXPLAINED : Sum.MISSING] += weight * worth
    sums[Sum.MISSING] += _ONE - present
    out = jump * (square > state.fault * state.fault)
    latest = np.array([square, out, jump - out, weight * (other_fault * other_fault)])
    return SymptomState(
        reading=x,
        averages=averages,
        fault=now.fault,
        repeats=_repeats(move, arrived, keep, state, constants),
        started=np.maximum(state.started, present),
        sums=sums,
        peaks=np.maximum(keep * state.peaks, latest * present),
        seen=keep * state.seen + weight,
        age=keep * state.age + _ONE,
        distance=keep * state.distance + weight * now.distance,
    )


def suspicion(state: SymptomState, constants: SymptomConstants) -> Float32:
    """Return how much of the deviation each channel [n] explains, including missing readings."""
    explained = state.sums[Sum.EXPLAINED] - state.seen * constants.explained_mean
    stuck = np.maximum(state.repeats - constants.longest_repeat, _ZERO)
    absent = MISSING_WORTH * (state.sums[Sum.MISSING] + stuck)
    total: Float32 = (np.maximum(explained, _ZERO) + absent) * constants.blameable
    return total


def _begun(x: Float32, arrived: Bools, state: SymptomState) -> SymptomState:
    """Start channels without an earlier reading as if they had always been at `x`."""
    fresh = state.started == 0
    return replace(
        state,
        reading=np.where(fresh, x, state.reading),
        averages=np.where(fresh, x, state.averages),
        repeats=np.where(fresh & arrived, -_ONE, state.repeats),
    )


def _others(now: Contributions, state: SymptomState, constants: SymptomConstants) -> Contributions:
    """Return the contributions of all channels without the most suspicious one."""
    suspects = suspicion(state, constants) + now.explained * constants.blameable
    return without(suspects.argmax(axis=0), now, constants.contribution)


def _keep(alarm: bool | Bools) -> Scalar:
    if isinstance(alarm, np.ndarray):
        return np.where(alarm, KEEP_ALARM, KEEP_CALM)
    return KEEP_ALARM if alarm else KEEP_CALM


def _relevance(square: Float32, peaks: Float32) -> Float32:
    """Return the weight of the past, which a much larger fault makes small."""
    past = _DWARFED * (peaks[Peak.FAULT] + _ONE)
    relevance: Float32 = np.minimum(past / np.maximum(square, _ONE), _ONE)
    return relevance


def _aged(sums: Float32, keep: Scalar) -> Float32:
    """Make all samples one sample older, with less weight."""
    aged = sums.copy()
    aged[Sum.AGE2] += _TWO * sums[Sum.AGE] + sums[Sum.COUNT]
    aged[Sum.AGE : Sum.AGE2] += sums[: Sum.FAULT2]
    aged *= keep
    return aged


def _news(
    x: Float32,
    move: Float32,
    jump: Float32,
    present: Float32,
    fault: Float32,
    square: Float32,
    sums: Float32,
    state: SymptomState,
    constants: SymptomConstants,
) -> Float32:
    """Return what a sample of age 0 adds to the sums of each channel's own fault, [9, n]."""
    peak = state.peaks[Peak.FAULT]
    weight = present * (square / (square + _CLEAR_FAULT + _SMALL_SHARE * peak))
    expected = x / constants.contribution.deviation - fault
    count = sums[Sum.COUNT]
    off = (fault - sums[Sum.FAULT] / np.maximum(count, _HALF)) * (count > _HALF)
    squares = np.array([_MOVE_GAIN * (move * move / constants.move_mean), jump, off * off])
    added = np.empty((Sum.AGE, *x.shape), np.float32)
    added[Sum.COUNT] = _ONE
    added[Sum.FAULT] = fault
    added[Sum.FAULT2] = square
    added[Sum.EXPECTED] = expected
    added[Sum.EXPECTED2] = expected * expected
    added[Sum.EXPECTED_FAULT] = expected * fault
    added[Sum.MOVE :] = numerics.table_log(_ONE + squares, constants.log_table)
    added *= weight
    return added


def _repeats(
    move: Float32,
    arrived: Bools,
    keep: Scalar,
    state: SymptomState,
    constants: SymptomConstants,
) -> Float32:
    """Count samples in a row with the same reading; a long row decays slowly afterwards."""
    after = keep * state.repeats * (state.repeats > constants.longest_repeat)
    moved = np.where(move == 0, state.repeats + _ONE, after)
    repeats: Float32 = np.where(arrived, moved, state.repeats)
    return repeats


def contributions(
    reading: Float32, averages: Float32, constants: ContributionConstants
) -> Contributions:
    """Return D, v, r and f for finite reading [n] and averages [2, n], fast and slow."""
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
    """Return the contributions after `channel` is replaced by its reconstruction."""
    count = seen.fault.shape[0]
    if isinstance(channel, np.ndarray):  # one for each sample of a batch
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
    reconstruction = numerics.ordered_matvec(constants.block, weighted)
    explained: Float32 = np.add.accumulate(weighted * reconstruction)[-1]
    fault: Float32 = np.add.accumulate(reconstruction)[-1] / constants.deviation
    return Contributions(distance, weighted, reconstruction, explained, fault)
