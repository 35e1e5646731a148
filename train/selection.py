"""Which detector earns its bytes: chosen without labels, by faults put into held-out clean rows.

The same rows, with the same faults of sensors and disturbances of the machine, go through every
candidate. Each is judged by the average precision of its score (how well faulty rows rank above
clean ones, whatever the threshold); the score is the runtime's own. A larger model must beat a
smaller one by a margin, so that a network is never shipped for a difference that is noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge_runtime import numerics
from edge_runtime.detector.score import (
    ScoreConstants,
    ScoreState,
    score_parts,
    total_score,
    update_score,
)
from train.batches import Rows
from train.cell import AnomalyGatedGRU
from train.cell_config import CellConfig
from train.disturbance import disturb, habits
from train.faults import inject
from train.highway import Highway
from train.score_shapes import absent_error, centre_of, inverse_root, residual_scale

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Average precision that a larger model must gain. Over eight streams, a network gained less than
# that on ten of twelve servers, where it has nothing to offer, and more in most trainings on a pump
# and a watch, where labels mostly agree (docs/accuracy.md).
MARGIN = 0.01
STREAMS = 8  # faulty copies of the held-out rows
MOST_ROWS = 3000
SPACING = 120  # rows per fault
SIZES = (0.5, 8.0)  # channel scales
SETTLING = 32
ATTACK, DECAY = 0.2, 0.1


@dataclass(frozen=True)
class Candidate:
    """A model that could ship: its name in reports, its sizes and its arrays by name."""

    name: str
    sizes: CellConfig
    weights: Mapping[str, Float32]


@dataclass(frozen=True)
class Streams:
    """Standardised rows [streams, n, channels], clean one first, and their faulty rows."""

    values: Float32
    masks: Float32
    faulty: Bools  # [streams, n]


def average_precision(scores: Float64, positive: Bools) -> float:
    """Mean precision at the rank of each positive row, ties broken against the detector."""
    order = np.lexsort((positive, -scores))
    hits = positive[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else 0.0


def judge(
    candidates: Sequence[Candidate], held_out: Rows, exogenous: Bools, seed: int
) -> dict[str, float]:
    """Average precision of each candidate, by name, on faults in `held_out`."""
    streams = make_streams(held_out, exogenous, seed)
    return {c.name: _precision(c, streams, exogenous) for c in candidates}


def choose(candidates: Sequence[Candidate], precisions: Mapping[str, float]) -> Candidate:
    """The first candidate, unless a later (larger) one beats the choice so far by `MARGIN`."""
    chosen = candidates[0]
    for candidate in candidates[1:]:
        if precisions[candidate.name] >= precisions[chosen.name] + MARGIN:
            chosen = candidate
    return chosen


def make_streams(held_out: Rows, exogenous: Bools, seed: int) -> Streams:
    """The latest held-out rows, end to end, clean and with faults every `SPACING` rows.

    A row counts as faulty where a reading is missing or half a channel scale off.
    """
    clean = np.concatenate(held_out.values)[-MOST_ROWS:]
    mask = np.concatenate(held_out.masks)[-MOST_ROWS:]
    values, masks, faulty = [clean], [mask], [np.zeros(len(clean), bool)]
    for number in range(STREAMS):
        rng = np.random.default_rng((seed, number))
        spoiled = _with_disturbances if number % 2 else _with_faults
        rows, usable = spoiled(clean, mask, exogenous, rng)
        wrong = (np.abs(rows - clean) > SIZES[0]) | (usable < mask)
        values.append(rows * usable)
        masks.append(usable)
        faulty.append(wrong.any(axis=1))
    return Streams(np.stack(values), np.stack(masks), np.stack(faulty))


def _with_faults(
    clean: Float32, mask: Float32, exogenous: Bools, rng: np.random.Generator
) -> tuple[Float32, Float32]:
    count = max(len(clean) // SPACING, 1)
    injection = inject(
        clean,
        rng,
        events=(count, count),
        sizes=SIZES,
        exogenous=exogenous,
        first=min(SETTLING + 1, len(clean) // 4),
        spaced=True,
    )
    return injection.values, mask * injection.mask


def _with_disturbances(
    clean: Float32, mask: Float32, exogenous: Bools, rng: np.random.Generator
) -> tuple[Float32, Float32]:
    if np.count_nonzero(~exogenous) < 2:
        return _with_faults(clean, mask, exogenous, rng)
    rows, known = clean.copy(), habits(clean, exogenous)
    for start in range(SETTLING + 1, len(clean) - SPACING // 2, SPACING):
        size = float(np.exp(rng.uniform(*np.log(SIZES))))
        window = rows[start : start + SPACING]
        disturbed, _ = disturb(window, 0, int(rng.integers(5, SPACING // 2)), size, known, rng)
        rows[start : start + SPACING] = disturbed
    return rows, mask


def _precision(candidate: Candidate, streams: Streams, exogenous: Bools) -> float:
    out = forecasts(candidate, streams.values, streams.masks, exogenous)
    innovations = (streams.values - out["forecast"]) * streams.masks
    every = list(zip(innovations, streams.values, out["doubt"], streams.masks, strict=True))
    constants = clean_constants(*every[0], exogenous)
    scores = np.concatenate(
        [total_scores(smoothed_parts(*stream, constants), constants) for stream in every]
    )
    return average_precision(scores, streams.faulty[:, SETTLING:].ravel())


def forecasts(
    candidate: Candidate, values: Float32, masks: Float32, exogenous: Bools
) -> dict[str, Float32]:
    """forecast, doubt [streams, n, channels] of the whole-sequence model."""
    weights = candidate.weights
    highway = Highway(weights["highway"], weights["cross"])
    gated = (~exogenous).astype(np.float32)
    model = AnomalyGatedGRU(candidate.sizes, highway, weights["innovation_scale"], gated)
    model.assign(weights)
    out = tf.function(model.call, jit_compile=True)(tf.constant(values), tf.constant(masks))
    doubt = np.logaddexp(0.0, -out["logit"].numpy()) if candidate.sizes.gate_layers else 0.0
    forecast = out["forecast"].numpy()
    return {"forecast": forecast, "doubt": np.broadcast_to(doubt, forecast.shape)}


def clean_constants(
    innovation: Float32, value: Float32, doubt: Float32, mask: Float32, exogenous: Bools
) -> ScoreConstants:
    """The score's constants from the clean stream [n, channels], settled.

    The gate's doubt has no weight: made-up faults would judge it by what it was taught.
    """
    width, clean = innovation.shape[1], innovation[SETTLING:]
    scale = residual_scale(clean, mask[SETTLING:])
    neutral = ScoreConstants(
        attack=np.float32(ATTACK),
        decay=np.float32(DECAY),
        weights=np.array([1, 1, 1, 0], np.float32),
        part_mean=np.zeros(4, np.float32),
        part_std=np.ones(4, np.float32),
        residual_scale=scale,
        absent=absent_error(scale, mask[SETTLING:]),
        channel_mean=np.zeros((3, width), np.float32),
        typical=np.ones((3, 1), np.float32),
        distance_root=inverse_root(clean),
        level_root=inverse_root(value[SETTLING:]),
        log_table=numerics.log_table(),
        scored=(~exogenous).astype(np.float32),
    )
    smooth = smoothed_parts(innovation, value, doubt, mask, neutral)
    centre, deviation = (array.astype(np.float32) for array in centre_of(smooth))
    return replace(neutral, part_mean=centre, part_std=deviation)


def smoothed_parts(
    innovation: Float32, value: Float32, doubt: Float32, mask: Float32, constants: ScoreConstants
) -> Float32:
    """Smoothed score parts [n - SETTLING, 4] of one stream."""
    rows = [
        score_parts(innovation[i], value[i], doubt[i], mask[i], constants)
        for i in range(SETTLING, len(value))
    ]
    state = ScoreState(rows[0][0], rows[0][1])
    smooth = []
    for parts, terms in rows:
        state = update_score(parts, terms, state, constants)
        smooth.append(state.parts)
    return np.array(smooth)


def total_scores(smooth: Float32, constants: ScoreConstants) -> Float64:
    """The score [n] of smoothed parts [n, 4]."""
    return np.array([total_score(parts, constants) for parts in smooth], np.float64)
