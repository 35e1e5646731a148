"""The anomaly score: four smoothed views of one step, each standardised on clean rows.

With innovation e, its clean covariance C, the standardised reading x, its clean covariance P and
the gate's logits l, all over the scored (not exogenous) channels:

    residual  r = mean_i log(1 + (e_i / q_i)^2 / 4)      heavy-tailed: no channel drowns the others
    distance  d = sqrt(e' (C + aI)^-1 e)                 Mahalanobis, for lost correlation
    level     v = sqrt(x' (P + aI)^-1 x)                 for faults a forecaster learns away
    gate      k = mean_i log(1 + exp(-l_i))              the gate's own evidence

A reading that is missing or fails its rules counts as a large error a_i, the larger the rarer
that was in clean rows: a sensor that has gone must not make the machine look healthier. Its x and
its gate's evidence count as 0.

Each is smoothed exponentially (s <- s + a (part - s), with one constant while it rises and one
while it falls) and standardised with centre and deviation of clean rows. The score is the largest
of the four, each times its weight: many small errors, one lost correlation, a strange place and a
closed gate are different alarms, and none may dilute another. Higher is stranger. A gate that no
labels have taught has the weight 0: it protects the state, and is not heard.
"""

from dataclasses import dataclass

import numpy as np

from edge_runtime import numerics
from edge_runtime.bundle import manifest
from edge_runtime.record import Float32

PARTS = ("residual", "distance", "level", "gate")
# Beyond this many channel scales one reading is as wrong as another; it bounds every sum below.
SCORE_CLIP = np.float32(50)
_LEVEL_PART = np.array([part == "level" for part in PARTS], np.float32)
_LEVEL_TERM = np.array([[0], [0], [1]], np.float32)
_QUARTER = np.float32(0.25)
_ONE = np.float32(1)
_TINY = np.float32(1e-6)


@dataclass(frozen=True)
class ScoreConstants:
    """The manifest's score section as float32 arrays, ready for stepping."""

    attack: np.float32
    decay: np.float32
    weights: Float32
    part_mean: Float32
    part_std: Float32
    residual_scale: Float32
    absent: Float32  # the error that an unusable reading counts as
    channel_mean: Float32  # [3, channels]: residual, evidence, level
    typical: Float32  # [3, 1]: mean of channel_mean over the scored channels
    distance_root: Float32
    level_root: Float32
    log_table: Float32
    scored: Float32  # 1 where a channel is scored, 0 where exogenous


@dataclass(frozen=True)
class ScoreState:
    """Smoothed parts [4] and smoothed per-channel terms [3, channels]."""

    parts: Float32
    terms: Float32


def score_constants(source: manifest.Manifest) -> ScoreConstants:
    """Arrays of the manifest's score section."""
    score = source.score
    means = np.array((score.residual_mean, score.evidence_mean, score.level_mean), np.float32)
    scored = np.array([not c.exogenous for c in source.channels], np.float32)
    count = np.maximum(numerics.ordered_sum(scored), _ONE)
    typical = [max(numerics.ordered_sum(row * scored) / count, _TINY) for row in means]
    return ScoreConstants(
        attack=np.float32(score.attack),
        decay=np.float32(score.decay),
        weights=np.array(score.weights, np.float32),
        part_mean=np.array(score.part_mean, np.float32),
        part_std=np.array(score.part_std, np.float32),
        residual_scale=np.array(score.residual_scale, np.float32),
        absent=np.array(score.absent, np.float32),
        channel_mean=means,
        typical=np.array(typical, np.float32)[:, np.newaxis],
        distance_root=np.array(score.distance_root, np.float32),
        level_root=np.array(score.level_root, np.float32),
        log_table=np.array(source.tables.log, np.float32),
        scored=scored,
    )


def initial_score(constants: ScoreConstants) -> ScoreState:
    """The state of a machine that has been behaving normally."""
    return ScoreState(constants.part_mean.copy(), constants.channel_mean.copy())


def score_parts(
    innovation: Float32, value: Float32, doubt: Float32, mask: Float32, constants: ScoreConstants
) -> tuple[Float32, Float32]:
    """Unsmoothed parts [4] and per-channel terms [3, channels] of one step.

    innovation, value: standardised, finite where `mask` is 1. doubt: log(1 + e^-logit).
    """
    e, x, residual, evidence = own_terms(innovation, value, doubt, mask, constants)
    count = scored_count(constants)
    distance = numerics.ordered_matvec(constants.distance_root, e)
    level = numerics.ordered_matvec(constants.level_root, x)
    parts = np.array(
        [
            numerics.ordered_sum(residual) / count,
            numerics.root(numerics.ordered_sum(distance * distance)),
            numerics.root(numerics.ordered_sum(level * level)),
            numerics.ordered_sum(evidence) / count,
        ],
        np.float32,
    )
    return parts, np.stack([residual, evidence, x * x])


def own_terms(
    innovation: Float32, value: Float32, doubt: Float32, mask: Float32, constants: ScoreConstants
) -> tuple[Float32, Float32, Float32, Float32]:
    """Error e, reading x, residual and evidence of each channel by itself; of one row or many."""
    usable = mask * constants.scored
    e = np.where(mask > 0, numerics.clip(innovation, SCORE_CLIP), constants.absent)
    e = e * constants.scored
    x = numerics.clip(value, SCORE_CLIP) * usable
    ratio = e / constants.residual_scale
    residual = numerics.table_log(_ONE + _QUARTER * (ratio * ratio), constants.log_table)
    return e, x, residual, doubt * usable


def scored_count(constants: ScoreConstants) -> np.float32:
    """How many channels are scored, at least 1."""
    return max(numerics.ordered_sum(constants.scored), _ONE)


def update_score(
    parts: Float32,
    terms: Float32,
    state: ScoreState,
    constants: ScoreConstants,
    settling: bool = False,
) -> ScoreState:
    """The state after a step with unsmoothed `parts` and `terms`.

    settling: the forecast has not settled, so that only the level, which needs none, is believed.
    """
    term_rate = np.where(terms > state.terms, constants.attack, constants.decay)
    if settling:
        term_rate = term_rate * _LEVEL_TERM
    smoothed_terms = state.terms + term_rate * (terms - state.terms)
    return ScoreState(smoothed_parts(parts, state.parts, constants, settling), smoothed_terms)


def smoothed_parts(
    parts: Float32, before: Float32, constants: ScoreConstants, settling: bool
) -> Float32:
    """Smoothed parts [4] after a step with unsmoothed `parts`; `settling` as in `update_score`."""
    rate = np.where(parts > before, constants.attack, constants.decay)
    if settling:
        rate = rate * _LEVEL_PART
    smoothed: Float32 = before + rate * (parts - before)
    return smoothed


def without_forecasts(state: ScoreState, constants: ScoreConstants) -> ScoreState:
    """The state after a reset: what was said by forecasts that are no longer believed is gone."""
    calm = initial_score(constants)
    return ScoreState(
        with_level(state.parts, calm.parts),
        np.where(_LEVEL_TERM > 0, state.terms, calm.terms),
    )


def with_level(level: Float32, parts: Float32) -> Float32:
    """`parts` [4] with the level of `level` [4], which needs no forecast."""
    found: Float32 = np.where(_LEVEL_PART > 0, level, parts)
    return found


def total_score(smoothed: Float32, constants: ScoreConstants) -> np.float32:
    """The score of smoothed parts [4]."""
    return largest(heights(smoothed, constants), constants)


def heights(smoothed: Float32, constants: ScoreConstants) -> Float32:
    """Smoothed parts [4], each standardised and times its weight."""
    weighted: Float32 = constants.weights * ((smoothed - constants.part_mean) / constants.part_std)
    return weighted


def largest(values: Float32, constants: ScoreConstants) -> np.float32:
    """The largest of [4]; a part that does not count does not cap it from below either."""
    return np.float32(max(values[constants.weights > 0]))


def blame(state: ScoreState, constants: ScoreConstants, limit: int = 3) -> list[int]:
    """Channels behind the score, worst first: at most `limit`, each at least half the worst.

    A channel's share is the weighted sum over residual, evidence and squared level of
    log(1 + excess), the excess over its clean mean in units of the mean over all channels.
    """
    excess = np.maximum(state.terms - constants.channel_mean, np.float32(0))
    logs = numerics.table_log(_ONE + excess / constants.typical, constants.log_table)
    residual, level, gate = (constants.weights[i] for i in (0, 2, 3))
    shares = (residual * logs[0] + gate * logs[1] + level * logs[2]) * constants.scored
    order = np.argsort(-shares, kind="stable")[:limit]
    worst = shares[order[0]]
    return [int(i) for i in order if shares[i] > 0 and shares[i] >= worst / 2]
