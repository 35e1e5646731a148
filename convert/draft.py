"""The manifest as it grows: a neutral draft first, then constants measured on clean rows.

Shapes of the score (residual scales, covariances) come from training and early-stopping rows; where
it is centred, and every threshold, comes from calibration rows that training never saw.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from convert.rollout import Rollout
from edge_runtime import manifest as m
from edge_runtime import numerics
from edge_runtime.errors import GruardError
from edge_runtime.fallback import VIEWS, initial_views, update_views
from edge_runtime.flatbuffer import GraphSummary
from train.run_folder import Run

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SMOOTHING = 0.1
WEIGHTS = (1.0, 1.0, 0.5, 1.0)  # residual, distance, level, gate
SMALLEST_RESIDUAL_SCALE = 0.05
SHRINKAGE = 0.01
FALLBACK_SMOOTHING, FALLBACK_SLACK = 0.1, 1.0
FALLBACK_MARGIN = 1.5  # over the largest value clean rows ever showed
FEWEST_SAME, FEWEST_MISSING = 32, 48
UNLIMITED = 1e30
WARMUP, SHORTEST_WARMUP = 100, 16
WINDOW_SECONDS, HOUR_SECONDS = 600, 3600


def draft_manifest(run: Run, graph: GraphSummary, version: int) -> m.Manifest:
    """A manifest around `graph` with a neutral score and no threshold yet."""
    config, count = run.config, len(run.config.channels)
    zeros, ones = (0.0,) * count, (1.0,) * count
    identity = _matrix(np.eye(count))
    logit = graph.tensors[graph.outputs["logit"]]
    softplus = numerics.softplus_table(logit.scales[0], logit.zero_points[0])
    return m.Manifest(
        schema=m.SCHEMA,
        name=config.name,
        version=version,
        period=config.period,
        channels=config.channels,
        inputs=_tensors(graph, graph.inputs),
        outputs=_tensors(graph, graph.outputs),
        forecast=m.Forecast(
            _matrix(run.weights["highway"]), _vector(run.weights["innovation_scale"])
        ),
        score=m.Score(
            SMOOTHING,
            WEIGHTS,
            (0.0,) * 4,
            (1.0,) * 4,
            ones,
            zeros,
            zeros,
            zeros,
            identity,
            identity,
        ),
        alarm=m.Alarm(m=2, n=3, clear_after=10),
        tiers=tier_bounds(config.period, sum(len(rows) for rows in run.rows["train"])),
        fallback=m.Fallback(
            FALLBACK_SMOOTHING, FALLBACK_SLACK, *((UNLIMITED,) * count for _ in VIEWS)
        ),
        thresholds={"tflite-builtin": _no_threshold()},
        tables=m.Tables(_vector(softplus), _vector(numerics.log_table())),
        validation=m.Validation(passed=False, forced=False),
        provenance=m.Provenance(config.data_sha256, run.weights_sha256, config.seed, {}),
        members={},
    )


def tier_bounds(period: float | None, train_rows: int) -> m.Tiers:
    """Bounds of the tiers; a short recording gets a shorter warm-up."""
    seconds = period or 1.0
    return m.Tiers(
        closed_limit=48,
        lost_limit=16,
        contradiction_limit=8,
        free_run_limit=16,
        resync_channel=8,
        resync_all=24,
        window=max(round(WINDOW_SECONDS / seconds), WINDOW_SECONDS),
        hour=max(round(HOUR_SECONDS / seconds), HOUR_SECONDS),
        warmup=int(np.clip(train_rows // 20, SHORTEST_WARMUP, WARMUP)),
        frozen_limit=32,
        saturated_limit=1.0,
        agree=100,
    )


def with_score_shapes(draft: m.Manifest, seen: Sequence[Rollout]) -> m.Manifest:
    """Residual scales and covariances from rollouts over training and early-stopping rows."""
    errors = np.concatenate([(r.value - r.forecast) * r.mask for r in seen]).astype(np.float64)
    values = np.concatenate([r.value * r.mask for r in seen]).astype(np.float64)
    masks = np.concatenate([r.mask for r in seen]) > 0
    scale = [
        float(np.quantile(np.abs(errors[masks[:, i], i]), 0.99)) if masks[:, i].any() else 1.0
        for i in range(errors.shape[1])
    ]
    score = replace(
        draft.score,
        residual_scale=_vector(np.maximum(scale, SMALLEST_RESIDUAL_SCALE)),
        distance_root=_matrix(_inverse_root(errors)),
        level_root=_matrix(_inverse_root(values)),
    )
    return replace(draft, score=score)


def with_score_centres(draft: m.Manifest, held_out: Sequence[Rollout]) -> m.Manifest:
    """Mean and deviation of the smoothed parts on settled calibration rows.

    Raises GruardError when no row has settled.
    """
    parts = np.concatenate([r.parts[r.settled] for r in held_out]).astype(np.float64)
    if not len(parts):
        raise GruardError(
            "the calibration rows end before the model has settled; "
            "record the healthy machine for longer"
        )
    terms = np.concatenate([r.terms[r.settled] for r in held_out]).astype(np.float64).mean(axis=0)
    score = replace(
        draft.score,
        part_mean=_vector(parts.mean(axis=0)),
        part_std=_vector(np.maximum(parts.std(axis=0), 1e-3)),
        residual_mean=_vector(terms[0]),
        evidence_mean=_vector(terms[1]),
        level_mean=_vector(terms[2]),
    )
    return replace(draft, score=score)


def with_fallback_limits(draft: m.Manifest, clean: Sequence[Rollout]) -> m.Manifest:
    """Limits of the statistical detector: the largest clean value of each view, with a margin."""
    count = len(draft.channels)
    largest = np.full((len(VIEWS), count), 1e-3, np.float32)
    endless = np.full(count, np.inf, np.float32)
    for rollout in clean:
        state = initial_views(count)
        for value, mask in zip(rollout.value, rollout.mask > 0, strict=True):
            views, state = update_views(
                value, mask, FALLBACK_SMOOTHING, FALLBACK_SLACK, endless, state
            )
            largest = np.maximum(largest, views)
    limits = dict(zip(VIEWS, FALLBACK_MARGIN * largest, strict=True))
    # A channel that never moved in the recording may go on doing so.
    constant = largest[VIEWS.index("change")] <= 1e-3
    limits["same"] = np.where(constant, UNLIMITED, np.maximum(limits["same"], FEWEST_SAME))
    limits["missing"] = np.maximum(limits["missing"], FEWEST_MISSING)
    fallback = m.Fallback(
        FALLBACK_SMOOTHING, FALLBACK_SLACK, **{name: _vector(v) for name, v in limits.items()}
    )
    return replace(draft, fallback=fallback)


def with_state_limit(draft: m.Manifest, clean: Sequence[Rollout]) -> m.Manifest:
    """How much of the state may sit at the edge of its range: half-way from clean rows to all.

    A healthy trained state may well rest at ±1 in some units, so no fixed share can tell it from a
    broken one.
    """
    share = max(float(r.saturated.max()) for r in clean)
    tiers = replace(draft.tiers, saturated_limit=(1 + share) / 2)
    return replace(draft, tiers=tiers)


def _inverse_root(rows: Float64) -> Float64:
    """W with WᵀW = (C + aI)⁻¹ for the second moments C of `rows` [n, channels]."""
    moments = rows.T @ rows / len(rows)
    shrunk = moments + SHRINKAGE * np.eye(len(moments))
    return np.linalg.inv(np.linalg.cholesky(shrunk))


def _tensors(graph: GraphSummary, names: Mapping[str, int]) -> dict[str, m.Tensor]:
    described = {}
    for name in sorted(names):
        tensor = graph.tensors[names[name]]
        described[name] = m.Tensor(
            tensor.shape, tensor.dtype, tensor.scales[0], tensor.zero_points[0]
        )
    return described


def _no_threshold() -> m.Threshold:
    return m.Threshold(
        math.inf, math.inf, 0.0, "none", 0.0, 0.0, 0, 0.0, False, 0.0, "not calibrated"
    )


def _vector(values: npt.ArrayLike) -> m.Vector:
    """float32 values as Python floats, exactly."""
    return tuple(float(v) for v in np.asarray(values, np.float32))


def _matrix(values: npt.ArrayLike) -> m.Matrix:
    return tuple(_vector(row) for row in np.asarray(values, np.float32))
