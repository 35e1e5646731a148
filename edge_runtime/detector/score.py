"""The anomaly score: six parts of one step, each smoothed and standardised on clean rows.

With the errors e, f and h of the forecast, the own forecast and the forecast ahead
(`detector.linear`), the clean covariance C of e, the standardised reading x, its clean covariance P
and the gate's logits l, all over the scored (not exogenous) channels:

    residual  r = mean_i log(1 + (e_i / q_i)^2 / 4)      heavy-tailed: no channel hides the others
    own       the same of f                              for faults that other channels explain away
    distance  d = sqrt(e' (C + aI)^-1 e)                 Mahalanobis, for lost correlation
    level     v = sqrt(x' (P + aI)^-1 x)                 for faults that a forecaster learns away
    ahead     the residual of h                          for slow faults
    gate      k = mean_i log(1 + exp(-l_i))              the gate's own evidence

A reading that is missing or breaks its rules counts as a large error a_i, the larger the rarer that
was in clean rows: a lost sensor must not make the machine look healthier. Its x and its gate's
evidence count as 0.

Each part is smoothed exponentially (s <- s + a (min(part, ceiling) - s), with one constant while it
rises and one while it falls) by one or several memories, and standardised with centre and deviation
of clean rows. The score is the largest of all, each times its weight: many small errors, one lost
correlation, a strange level and a closed gate are different alarms, and none may dilute another. A
higher score is stranger. A gate trained without labels has the weight 0: it protects the state, but
does not count in the score.

Where clean errors are white, a long memory finds what no single reading shows; the ceilings keep a
single outlier from filling it. Where errors come in clusters, there is one short memory without a
ceiling, which would hide how large a fault is (docs/accuracy.md).
"""

from dataclasses import dataclass

import numpy as np

from edge_runtime import numerics
from edge_runtime.bundle import manifest
from edge_runtime.bundle.manifest import PARTS
from edge_runtime.record import Float32

# Channel scales beyond which a larger error means no more; bounds every sum below.
SCORE_CLIP = np.float32(50)
_LEVEL_PART = np.array([part == "level" for part in PARTS], np.float32)
_LEVEL_TERM = np.array([[0], [0], [1]], np.float32)
_TERM_WEIGHTS = tuple(PARTS.index(part) for part in ("residual", "gate", "level"))
_QUARTER = np.float32(0.25)
_ONE, _ZERO = np.float32(1), np.float32(0)
_TINY = np.float32(1e-6)


@dataclass(frozen=True)
class ScoreConstants:
    """The manifest's score section as float32 arrays.

    attack, decay: [memories, 1]. ceiling, mean, std: [memories, 6].
    """

    weights: Float32
    attack: Float32
    decay: Float32
    ceiling: Float32
    mean: Float32
    std: Float32
    error_scale: Float32  # [3, channels]: residual, own, ahead
    absent: Float32  # [3, channels], the error that an unusable reading counts as
    heard: Float32  # [3, 1]: 1 where there is such a forecast
    channel_mean: Float32  # [3, channels]: errors, evidence, level
    typical: Float32  # [3, 1]: mean of channel_mean over the scored channels
    distance_root: Float32
    level_root: Float32
    log_table: Float32
    scored: Float32  # 1 where a channel is scored, 0 where exogenous


@dataclass(frozen=True)
class ScoreState:
    """Smoothed parts [memories, 6] and smoothed per-channel terms [3, channels]."""

    parts: Float32
    terms: Float32


def score_constants(source: manifest.Manifest) -> ScoreConstants:
    """Return the manifest's score section as arrays."""
    score, memories = source.score, source.score.memories
    means = np.array((score.residual_mean, score.evidence_mean, score.level_mean), np.float32)
    scored = np.array([not c.exogenous for c in source.channels], np.float32)
    count = np.maximum(numerics.ordered_sum(scored), _ONE)
    typical = [max(numerics.ordered_sum(row * scored) / count, _TINY) for row in means]
    heard = [True, bool(source.forecast.own), bool(source.forecast.ahead)]
    return ScoreConstants(
        weights=np.array(score.weights, np.float32),
        attack=np.array([[memory.attack] for memory in memories], np.float32),
        decay=np.array([[memory.decay] for memory in memories], np.float32),
        ceiling=np.array([memory.ceiling for memory in memories], np.float32),
        mean=np.array([memory.mean for memory in memories], np.float32),
        std=np.array([memory.std for memory in memories], np.float32),
        error_scale=np.array(score.error_scale, np.float32),
        absent=np.array(score.absent, np.float32),
        heard=np.array(heard, np.float32)[:, np.newaxis],
        channel_mean=means,
        typical=np.array(typical, np.float32)[:, np.newaxis],
        distance_root=np.array(score.distance_root, np.float32),
        level_root=np.array(score.level_root, np.float32),
        log_table=np.array(source.tables.log, np.float32),
        scored=scored,
    )


def initial_score(constants: ScoreConstants) -> ScoreState:
    """Return the state of a machine that has been behaving normally."""
    return ScoreState(constants.mean.copy(), constants.channel_mean.copy())


def score_parts(
    errors: Float32, value: Float32, doubt: Float32, mask: Float32, constants: ScoreConstants
) -> tuple[Float32, Float32]:
    """Return the unsmoothed parts [6] and per-channel terms [3, channels] of one step.

    errors: [3, channels], of the forecasts in `detector.linear`; they and value [channels]
    standardised, finite where `mask` is 1. doubt: log(1 + e^-logit).
    """
    e, x, terms, evidence = own_terms(errors, value, doubt, mask, constants)
    count = scored_count(constants)
    residual, own, ahead = (numerics.ordered_sum(row) / count for row in terms)
    distance = numerics.ordered_matvec(constants.distance_root, e)
    level = numerics.ordered_matvec(constants.level_root, x)
    parts = np.array(
        [
            residual,
            own,
            numerics.root(numerics.ordered_sum(distance * distance)),
            numerics.root(numerics.ordered_sum(level * level)),
            ahead,
            numerics.ordered_sum(evidence) / count,
        ],
        np.float32,
    )
    return parts, np.stack([of_all_errors(terms), evidence, x * x])


def own_terms(
    errors: Float32, value: Float32, doubt: Float32, mask: Float32, constants: ScoreConstants
) -> tuple[Float32, Float32, Float32, Float32]:
    """Return the error e, the reading x, the terms of all errors and the evidence by channel.

    errors: [..., 3, channels], the rest [..., channels]: one row or many. Returns the terms as
    errors are, the rest as value.
    """
    usable = mask * constants.scored
    present = (mask > 0)[..., np.newaxis, :]
    every = np.where(present, numerics.clip(errors, SCORE_CLIP), constants.absent)
    every = every * (constants.scored * constants.heard)
    x = numerics.clip(value, SCORE_CLIP) * usable
    ratio = every / constants.error_scale
    terms = numerics.table_log(_ONE + _QUARTER * (ratio * ratio), constants.log_table)
    return every[..., 0, :], x, terms, doubt * usable


def of_all_errors(terms: Float32) -> Float32:
    """Return the sum [..., channels] of each channel's terms [..., 3, channels]."""
    total: Float32 = terms[..., 0, :] + terms[..., 1, :] + terms[..., 2, :]
    return total


def scored_count(constants: ScoreConstants) -> np.float32:
    """Return the number of scored channels, at least 1."""
    return max(numerics.ordered_sum(constants.scored), _ONE)


def update_score(
    parts: Float32,
    terms: Float32,
    state: ScoreState,
    constants: ScoreConstants,
    settling: bool = False,
) -> ScoreState:
    """Return the state after a step with unsmoothed `parts` and `terms`.

    settling: the forecast has not settled, so only the level, which needs none, is updated.
    """
    term_rate = np.where(terms > state.terms, constants.attack[0], constants.decay[0])
    if settling:
        term_rate = term_rate * _LEVEL_TERM
    smoothed_terms = state.terms + term_rate * (terms - state.terms)
    return ScoreState(smoothed_parts(parts, state.parts, constants, settling), smoothed_terms)


def smoothed_parts(
    parts: Float32, before: Float32, constants: ScoreConstants, settling: bool
) -> Float32:
    """Return the parts smoothed with unsmoothed `parts` [6]; `settling` as in `update_score`."""
    parts = np.minimum(parts, constants.ceiling)
    rate = np.where(parts > before, constants.attack, constants.decay)
    if settling:
        rate = rate * _LEVEL_PART
    smoothed: Float32 = before + rate * (parts - before)
    return smoothed


def without_forecasts(state: ScoreState, constants: ScoreConstants) -> ScoreState:
    """Return the state after a reset, without what came from the old forecasts."""
    calm = initial_score(constants)
    return ScoreState(
        with_level(state.parts, calm.parts),
        np.where(_LEVEL_TERM > 0, state.terms, calm.terms),
    )


def with_level(level: Float32, parts: Float32) -> Float32:
    """Return `parts` [..., 6] with the level of `level`, which needs no forecast."""
    merged: Float32 = np.where(_LEVEL_PART > 0, level, parts)
    return merged


def total_score(smoothed: Float32, constants: ScoreConstants) -> np.float32:
    """Return the score of smoothed parts [memories, 6]."""
    return largest(heights(smoothed, constants), constants)


def heights(smoothed: Float32, constants: ScoreConstants) -> Float32:
    """Return smoothed parts [memories, 6], each standardised and times its weight."""
    weighted: Float32 = constants.weights * ((smoothed - constants.mean) / constants.std)
    return weighted


def largest(values: Float32, constants: ScoreConstants) -> np.float32:
    """Return the largest of [memories, 6]; a part of weight 0 is no lower bound."""
    return np.float32(max(values[:, constants.weights > 0].ravel()))


def blame(state: ScoreState, constants: ScoreConstants, limit: int = 3) -> list[int]:
    """Return channels behind the score, worst first: at most `limit`, each half the worst or more.

    A channel's share is the weighted sum over errors, evidence and squared level of
    log(1 + excess), the excess over its clean mean in units of the mean over all channels.
    """
    excess = np.maximum(state.terms - constants.channel_mean, _ZERO)
    logs = numerics.table_log(_ONE + excess / constants.typical, constants.log_table)
    errors, gate, level = (constants.weights[i] for i in _TERM_WEIGHTS)
    shares = (errors * logs[0] + gate * logs[1] + level * logs[2]) * constants.scored
    order = np.argsort(-shares, kind="stable")[:limit]
    worst = shares[order[0]]
    return [int(i) for i in order if shares[i] > 0 and shares[i] >= worst / 2]
