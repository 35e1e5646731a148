"""Choose the detector that ships, without labels, by faults injected into held-out clean rows.

The same rows, with the same sensor faults and machine disturbances, go through every candidate.
Each is judged by the average precision of the runtime's score: how well faulty rows rank above
clean ones, independent of a threshold. A larger model must beat a smaller one by a margin, so that
no network ships because of noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge_runtime import numerics
from edge_runtime.bundle.manifest import ERRORS, PARTS
from edge_runtime.detector.score import ScoreConstants, heights
from edge_runtime.detector.score import smoothed_parts as smoothed
from edge_runtime.learning.faults import clean_shape, disturb, inject, log_uniform
from edge_runtime.learning.highway import Highway
from edge_runtime.learning.prepare import Rows
from edge_runtime.learning.score import (
    absent_error,
    centre_of,
    inverse_root,
    parts_of_rows,
    residual_scale,
)
from train.cell import AnomalyGatedGRU
from train.cell_config import CellConfig

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Average precision that a larger model must gain. Over eight streams a gated network gained less on
# all of twelve servers, where labels show no advantage, and more on the pumps and the watch, where
# labels show one (docs/accuracy.md).
MARGIN = 0.02
# What it must have gained after `train.fit.EARLY_SHARE` of its training. By then networks that
# shipped had gained more, and those that had gained less never gained `MARGIN`.
EARLY_GAIN = MARGIN / 2
STREAMS = 8  # faulty copies of the held-out rows
MOST_ROWS = 3000
SPACING = 120  # rows per fault
SIZES = (0.5, 8.0)  # channel scales
SETTLING = 32
ATTACK, DECAY = 0.2, 0.1
COMPARED = ("residual", "distance", "level")  # parts of the score


@dataclass(frozen=True)
class Candidate:
    """A model that could ship. name: as reports show it. weights: arrays by name."""

    name: str
    sizes: CellConfig
    weights: Mapping[str, Float32]


@dataclass(frozen=True)
class Streams:
    """Standardised rows [streams, n, channels], the clean stream first, and which are faulty."""

    values: Float32
    masks: Float32
    faulty: Bools  # [streams, n]


def average_precision(scores: Float64, positive: Bools) -> float:
    """Return the mean precision at the rank of each positive row; ties count against the score."""
    order = np.lexsort((positive, -scores))
    hits = positive[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else 0.0


def judge(
    candidates: Sequence[Candidate], held_out: Rows, exogenous: Bools, seed: int
) -> dict[str, float]:
    """Return the average precision of each candidate, by name, on faults in `held_out`."""
    streams = make_streams(held_out, exogenous, seed)
    return {c.name: _precision(c, streams, exogenous) for c in candidates}


def choose(candidates: Sequence[Candidate], precisions: Mapping[str, float]) -> Candidate:
    """Return the first candidate, unless a later (larger) one beats it by `MARGIN`."""
    chosen = candidates[0]
    for candidate in candidates[1:]:
        if precisions[candidate.name] >= precisions[chosen.name] + MARGIN:
            chosen = candidate
    return chosen


def make_streams(held_out: Rows, exogenous: Bools, seed: int) -> Streams:
    """Join the latest held-out rows and return them clean and with a fault every `SPACING` rows.

    A row counts as faulty when a reading is missing or half a channel scale off.
    """
    clean = np.concatenate(held_out.values)[-MOST_ROWS:]
    mask = np.concatenate(held_out.masks)[-MOST_ROWS:]
    values, masks, faulty = [clean], [mask], [np.zeros(len(clean), bool)]
    for number in range(STREAMS):
        rng = np.random.default_rng((seed, number))
        inject_into = _with_disturbances if number % 2 else _with_faults
        rows, usable = inject_into(clean, mask, exogenous, rng)
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
    rows, shape = clean.copy(), clean_shape(clean, exogenous)
    for start in range(SETTLING + 1, len(clean) - SPACING // 2, SPACING):
        size = log_uniform(rng, *SIZES)
        window = rows[start : start + SPACING]
        disturbed, _ = disturb(window, 0, int(rng.integers(5, SPACING // 2)), size, shape, rng)
        rows[start : start + SPACING] = disturbed
    return rows, mask


def _precision(candidate: Candidate, streams: Streams, exogenous: Bools) -> float:
    out = forecasts(candidate, streams.values, streams.masks, exogenous)
    rows = Scored(
        (streams.values - out["forecast"]) * streams.masks, streams.values, out["doubt"],
        streams.masks,
    )  # fmt: skip
    rows = Scored(*(array[:, SETTLING:] for array in rows))
    constants = clean_constants(rows, exogenous)
    scores = total_scores(smoothed_parts(rows, constants), constants)
    return average_precision(scores.ravel(), streams.faulty[:, SETTLING:].ravel())


def forecasts(
    candidate: Candidate, values: Float32, masks: Float32, exogenous: Bools
) -> dict[str, Float32]:
    """Return forecast and doubt [streams, n, channels] of the whole-sequence model."""
    weights = candidate.weights
    highway = Highway(weights["highway"], weights["cross"])
    gated = (~exogenous).astype(np.float32)
    model = AnomalyGatedGRU(candidate.sizes, highway, weights["innovation_scale"], gated)
    model.assign(weights)
    run = tf.function(model.call, autograph=False, jit_compile=True)
    out = run(tf.constant(values), tf.constant(masks))
    doubt = np.logaddexp(0.0, -out["logit"].numpy()) if candidate.sizes.gate_layers else 0.0
    forecast = out["forecast"].numpy()
    return {"forecast": forecast, "doubt": np.broadcast_to(doubt, forecast.shape)}


class Scored(NamedTuple):
    """The inputs of a score, each [streams, n, channels]."""

    innovation: Float32
    value: Float32
    doubt: Float32
    mask: Float32


def clean_constants(rows: Scored, exogenous: Bools) -> ScoreConstants:
    """Measure the score's constants on the first stream, which is clean.

    Only the forecast is compared. The further forecasts are the same for all candidates, and
    injected faults would judge the gate's doubt by the faults that it was trained on.
    """
    innovation, value, _, mask = (array[0] for array in rows)
    width, kinds = innovation.shape[1], len(ERRORS)
    scored = (~exogenous).astype(np.float32)
    scale = residual_scale(innovation, mask)
    ones, zeros = np.ones((kinds, width), np.float32), np.zeros((kinds, width), np.float32)
    heard = np.array([[kind == "residual"] for kind in ERRORS], np.float32)
    neutral = ScoreConstants(
        weights=np.array([part in COMPARED for part in PARTS], np.float32),
        attack=np.array([[ATTACK]], np.float32),
        decay=np.array([[DECAY]], np.float32),
        ceiling=np.full((1, len(PARTS)), np.inf, np.float32),
        mean=np.zeros((1, len(PARTS)), np.float32),
        std=np.ones((1, len(PARTS)), np.float32),
        error_scale=np.where(heard > 0, scale, ones),
        absent=np.where(heard > 0, absent_error(scale, mask), zeros),
        heard=heard,
        channel_mean=np.zeros((3, width), np.float32),
        typical=np.ones((3, 1), np.float32),
        distance_root=inverse_root(innovation * scored),
        level_root=inverse_root(value * scored),
        log_table=numerics.log_table(),
        scored=scored,
    )
    centre, deviation = centre_of(smoothed_parts(Scored(*(a[:1] for a in rows)), neutral)[0])
    return replace(
        neutral, mean=centre[np.newaxis].astype(np.float32),
        std=deviation[np.newaxis].astype(np.float32),
    )  # fmt: skip


def smoothed_parts(rows: Scored, constants: ScoreConstants) -> Float32:
    """Return smoothed score parts [streams, n, 6]; each stream is smoothed by itself."""
    raw = []
    for innovation, value, doubt, mask in zip(*rows, strict=True):
        errors = np.stack([innovation, *[np.zeros_like(innovation)] * (len(ERRORS) - 1)], axis=1)
        raw.append(parts_of_rows(errors, value, doubt, mask, constants)[0])
    parts = np.array(raw)[:, :, np.newaxis]
    before, smooth = parts[:, 0], []
    for row in parts.transpose(1, 0, 2, 3):
        before = smoothed(row, before, constants, settling=False)
        smooth.append(before[:, 0])
    return np.array(smooth).transpose(1, 0, 2)


def total_scores(smooth: Float32, constants: ScoreConstants) -> Float64:
    """Return the score [...] of smoothed parts [..., 6]."""
    score: Float64 = heights(smooth, constants)[..., constants.weights > 0].max(axis=-1)
    return score.astype(np.float64)
