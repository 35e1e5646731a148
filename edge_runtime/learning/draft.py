"""Build the manifest: a neutral draft first, then constants measured on clean rows.

The shapes of the score (residual scales, covariances) and its centre come from all clean rows, each
row scored by shapes that did not see it. Thresholds come from rows that the network did not see.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edge_runtime import numerics
from edge_runtime.bundle import manifest as m
from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.bundle.manifest import PARTS, UNLIMITED
from edge_runtime.detector.fallback import VIEWS
from edge_runtime.detector.kernels import HOST_KERNEL_ID, KERNEL_ID
from edge_runtime.detector.score import score_constants
from edge_runtime.errors import UnfitError
from edge_runtime.learning.decimals import matrix, vector
from edge_runtime.learning.fallback_limits import SLACK, SMOOTHING
from edge_runtime.learning.highway import Kind, fit_ahead, fit_own
from edge_runtime.learning.prepare import Rows
from edge_runtime.learning.rollout import Rollout, errors_in, rescored
from edge_runtime.learning.run import Run
from edge_runtime.learning.score import absent_error, centre_of, inverse_root, residual_scale
from edge_runtime.learning.settling import change_section
from edge_runtime.learning.smoothing import smoothed
from edge_runtime.learning.streams import clean_rows

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# Forecast errors of most machines come in clusters; longer smoothing would delay alarms without a
# gain. If errors are white, a long memory finds faults that no single reading shows; the ceilings
# keep a single outlier from filling it.
QUICK = ((0.2, 0.1, UNLIMITED),)  # attack, decay, ceiling in deviations over the median
PATIENT = ((0.2, 0.2, 5.0), (0.03, 0.03, 3.0), (0.01, 0.01, 3.0))
WHITE = 1.62  # deviation of clean parts smoothed at WHITE_RATE, over that of smoothed white noise
WHITE_RATE = 0.03
FEWEST_MEMORIES = 20.0  # the rows of the threshold must be this many times as long as a memory
# A slow fault shows in a forecast over a longer horizon; a shorter one suffices if errors cluster.
QUICK_HORIZON, PATIENT_HORIZON = (4, 0.7), (16, 0.85)  # samples, weight
# A gate trained only with injected faults closes on new normal behaviour as readily as on faults;
# on real servers its evidence ranked both alike (docs/gate.md). From this many labelled stretches
# on, its evidence is part of the score.
FEWEST_LESSONS = 3
# With one channel, residual and distance carry the same information, so the level weighs more.
LONE_LEVEL = 1.5
WARMUP, SHORTEST_WARMUP = 100, 16
# A single closed gate does not harm the state. If it opened while the fault lasts, the model would
# adapt to the fault and the alarm would end (docs/gate.md).
CLOSED_LIMIT = 1000
MOST_MISSING = 0.25  # of the clean rows; with more, a longer recording would not help
WINDOW_SECONDS, HOUR_SECONDS = 600, 3600


def draft_manifest(run: Run, graph: GraphSummary, version: int) -> m.Manifest:
    """Return a manifest for `graph` with a neutral score and no threshold."""
    config, count = run.config, len(run.config.channels)
    zeros, ones = (0.0,) * count, (1.0,) * count
    level = LONE_LEVEL if sum(not c.exogenous for c in config.channels) == 1 else 1.0
    identity = matrix(np.eye(count))
    softplus = np.zeros(256, np.float32)
    if "logit" in graph.outputs:
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
        forecast=forecast_constants(run.weights),
        score=m.Score(
            weights=(1.0, 0.0, 1.0, level, 0.0, float(config.taught >= FEWEST_LESSONS)),
            memories=tuple(_memory(*each) for each in QUICK),
            error_scale=(ones,) * 3,
            absent=(zeros,) * 3,
            residual_mean=zeros,
            evidence_mean=zeros,
            level_mean=zeros,
            distance_root=identity,
            level_root=identity,
        ),
        alarm=m.AlarmRule(m=2, n=3, clear_after=10),
        tiers=tier_bounds(config.period, _warmup(run, graph)),
        fallback=m.FallbackLimits(SMOOTHING, SLACK, *((UNLIMITED,) * count for _ in VIEWS)),
        thresholds={KERNEL_ID if graph.outputs else HOST_KERNEL_ID: no_threshold()},
        tables=m.Tables(vector(softplus), vector(numerics.log_table())),
        validation=m.Validation(passed=False, forced=False),
        provenance=m.Provenance(
            config.data_sha256, run.weights_sha256, config.seed, config.selection, {}
        ),
        members={},
        proof={},
        columns=config.columns,
        change=change_section(clean_rows(run), config.channels, moving=not graph.inputs),
    )


def forecast_constants(weights: Mapping[str, Float32]) -> m.Forecast:
    """Return the linear part of a run's weights."""
    return m.Forecast(
        matrix(weights["highway"]),
        matrix(weights["cross"]),
        vector(weights["innovation_scale"]),
        own=(),
        ahead=(),
        horizon=0,
    )


def _memory(attack: float, decay: float, *_: float) -> m.Memory:
    """Return a memory without ceilings and with a neutral centre."""
    count = len(PARTS)
    return m.Memory(attack, decay, (UNLIMITED,) * count, (0.0,) * count, (1.0,) * count)


def with_lines(draft: m.Manifest, rows: Rows, white: bool) -> m.Manifest:
    """Add two more forecasts to `draft`, fitted on standardised clean `rows`."""
    order, cross = len(draft.forecast.highway), bool(draft.forecast.cross)
    horizon, weight = PATIENT_HORIZON if white else QUICK_HORIZON
    own = matrix(fit_own(rows.values, rows.masks, order)) if cross else ()
    kind: Kind = "full" if cross else "channel"
    ahead = matrix(fit_ahead(rows.values, rows.masks, order, horizon, kind))
    weights = dict(zip(PARTS, draft.score.weights, strict=True))
    weights |= {"own": float(bool(own)), "ahead": weight if ahead else 0.0}
    forecast = replace(draft.forecast, own=own, ahead=ahead, horizon=horizon if ahead else 0)
    score = replace(draft.score, weights=tuple(weights.values()))
    return replace(draft, forecast=forecast, score=score)


def _warmup(run: Run, graph: GraphSummary) -> int:
    """Return the samples until the state has settled; a highway needs twice its lags."""
    if not graph.inputs:
        return 2 * len(run.weights["highway"])
    rows = sum(len(rows) for rows in run.rows["train"])
    return int(np.clip(rows // 20, SHORTEST_WARMUP, WARMUP))


def tier_bounds(period: float | None, warmup: int) -> m.Tiers:
    """Return the bounds of the tiers, in samples of `period` seconds."""
    seconds = period or 1.0
    return m.Tiers(
        closed_limit=CLOSED_LIMIT,
        lost_limit=16,
        contradiction_limit=8,
        free_run_limit=16,
        resync_channel=8,
        resync_all=24,
        window=max(round(WINDOW_SECONDS / seconds), WINDOW_SECONDS),
        hour=max(round(HOUR_SECONDS / seconds), HOUR_SECONDS),
        warmup=warmup,
        frozen_limit=32,
        saturated_limit=1.0,
        agree=100,
        bridge=m.BRIDGE,
    )


def with_score_shapes(draft: m.Manifest, seen: Sequence[Rollout]) -> m.Manifest:
    """Measure scales of errors and covariances on the kept rows of rollouts.

    The covariances contain only the scored channels. With exogenous ones, every channel that
    follows a set-point would raise the distance.
    """
    # The first forecasts of a rollout lack a full history.
    skip = len(draft.forecast.highway)
    used = [r.kept & (np.arange(len(r.kept)) >= skip) for r in seen]
    errors = np.concatenate([errors_in(r)[rows] for r, rows in zip(seen, used, strict=True)])
    values = np.concatenate([(r.value * r.mask)[u] for r, u in zip(seen, used, strict=True)])
    masks = np.concatenate([r.mask[rows] for r, rows in zip(seen, used, strict=True)])
    forecast = draft.forecast
    watched = np.array([not c.exogenous for c in draft.channels], np.float32)
    there = np.array([True, bool(forecast.own), bool(forecast.ahead)])[:, np.newaxis]
    scales = np.array([residual_scale(errors[:, i], masks) for i in range(len(there))])
    absent = np.array([absent_error(scale, masks) for scale in scales])
    score = replace(
        draft.score,
        error_scale=matrix(np.where(there, scales, 1)),
        absent=matrix(np.where(there, absent, 0)),
        distance_root=matrix(inverse_root(errors[:, 0] * watched)),
        level_root=matrix(inverse_root(values * watched)),
    )
    return replace(draft, score=score)


def is_white(clean: Sequence[Rollout]) -> bool:
    """Return whether residual and distance average out like white noise; errors as `settled`."""
    ratios = [_clustering(clean, PARTS.index(part)) for part in ("residual", "distance")]
    return bool(np.mean(ratios) <= WHITE)


def _clustering(clean: Sequence[Rollout], part: int) -> float:
    """Return the deviation of a smoothed clean part over that of equally smoothed white noise."""
    rate = WHITE_RATE
    raw = [parts[:, part] for parts in settled(clean)]
    joined = np.concatenate(raw)
    smooth = np.concatenate([smoothed(r - joined.mean(), rate) for r in raw])
    return float(smooth.std() / max(float(joined.std()), 1e-9) / np.sqrt(rate / (2 - rate)))


def with_memories(
    draft: m.Manifest, clean: Sequence[Rollout], white: bool, unseen: int
) -> m.Manifest:
    """Add the score's memories to `draft`, with their usual values on settled rows.

    unseen: number of rows for the threshold; a memory too long for them is left out. Errors as
    `settled`.
    """
    raw = np.concatenate(settled(clean))
    middle, spread = centre_of(raw)
    memories = [
        replace(
            _memory(attack, decay),
            ceiling=_ceilings(middle, spread, ceiling),
            # The smoothed parts start from the mean of the unsmoothed ones, as on the device.
            mean=vector(np.minimum(raw, middle + ceiling * spread).mean(axis=0)),
        )
        for number, (attack, decay, ceiling) in enumerate(PATIENT if white else QUICK)
        if number == 0 or decay * unseen >= FEWEST_MEMORIES
    ]
    draft = replace(draft, score=replace(draft.score, memories=tuple(memories)))
    return _with_usual(draft, clean)


def settled(clean: Sequence[Rollout]) -> list[Float64]:
    """Return the raw score parts [n, 6] of the settled rows of each recording that has any.

    Raises UnfitError when no recording has one.
    """
    raw = [r.raw_parts[r.settled].astype(np.float64) for r in clean if r.settled.any()]
    if not raw:
        raise UnfitError(_unsettled(clean))
    return raw


def _unsettled(clean: Sequence[Rollout]) -> str:
    """Say why no row of `clean` has settled, and what to do."""
    missing = 1 - np.concatenate([r.measured for r in clean]).mean()
    if missing < MOST_MISSING:
        longest = max(len(r.score) for r in clean)
        return (
            f"the longest stretch of clean rows without a gap has {longest} rows, and ends before "
            "the model has settled; record the healthy machine for longer, without a break"
        )
    return (
        f"{missing:.0%} of the clean rows have no usable reading of any watched channel, so the "
        "model never settles; leave the empty rows out, or average the readings over longer periods"
    )


def _ceilings(middle: Float64, spread: Float64, height: float) -> m.Vector:
    if height >= UNLIMITED:
        return (UNLIMITED,) * len(middle)
    return vector(middle + height * spread)


def _with_usual(draft: m.Manifest, clean: Sequence[Rollout]) -> m.Manifest:
    terms = np.concatenate([r.raw_terms[r.settled] for r in clean]).astype(np.float64)
    draft = _with_usual_terms(draft, terms.mean(axis=0))
    smooth = [rescored(r, score_constants(draft)) for r in clean]
    parts = np.concatenate([r.parts[r.settled] for r in smooth]).astype(np.float64)
    terms = np.concatenate([r.terms[r.settled] for r in smooth]).astype(np.float64)
    memories = []
    for i, memory in enumerate(draft.score.memories):
        mean, std = centre_of(parts[:, i])
        memories.append(replace(memory, mean=vector(mean), std=vector(std)))
    draft = replace(draft, score=replace(draft.score, memories=tuple(memories)))
    return _with_usual_terms(draft, terms.mean(axis=0))


def _with_usual_terms(draft: m.Manifest, terms: Float64) -> m.Manifest:
    score = replace(
        draft.score,
        residual_mean=vector(terms[0]),
        evidence_mean=vector(terms[1]),
        level_mean=vector(terms[2]),
    )
    return replace(draft, score=score)


def with_state_limit(draft: m.Manifest, clean: Sequence[Rollout]) -> m.Manifest:
    """Set the share of the state that may be at the edge of its range.

    It is halfway from the largest share on clean rows to 1.

    Some units of a healthy state may rest at ±1, so no fixed share separates it from a broken one.
    """
    share = max(float(r.saturated.max()) for r in clean)
    tiers = replace(draft.tiers, saturated_limit=(1 + share) / 2)
    return replace(draft, tiers=tiers)


def _tensors(graph: GraphSummary, names: Mapping[str, int]) -> dict[str, m.Tensor]:
    described = {}
    for name in sorted(names):
        tensor = graph.tensors[names[name]]
        described[name] = m.Tensor(
            tensor.shape, tensor.dtype, tensor.scales[0], tensor.zero_points[0]
        )
    return described


def no_threshold() -> m.Threshold:
    """Return the threshold of a model that is not calibrated: no score is an alarm."""
    return m.Threshold(
        math.inf, math.inf, 0.0, "none", 0.0, 0.0, 0, 0.0, False, 0.0, "not calibrated"
    )
