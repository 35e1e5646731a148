"""Run recordings through the runtime's own step and keep the internal values of every step.

If the C core is built, it runs the step around the model's own graph; otherwise numpy does. Both
give the same bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.cell import Model, errors_of
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.score import (
    ScoreConstants,
    initial_score,
    total_score,
    update_score,
    without_forecasts,
)
from edge_runtime.detector.step import initial_state, step
from edge_runtime.detector.tiers import is_mostly_masked, is_settling
from edge_runtime.errors import GruardError
from edge_runtime.learning.score import parts_of_rows
from edge_runtime.native.engine import Records, roll_on_core
from edge_runtime.record import Flag, Record, Sample

Float32 = npt.NDArray[np.float32]
_NO_STATE = np.zeros(0, np.float32)
_AS_FOUND = (
    "value", "mask", "forecast", "own", "ahead", "gate", "trusted", "doubt", "hidden", "parts",
    "terms", "score", "measured", "settling",
)  # fmt: skip


@dataclass(frozen=True)
class Rollout:
    """One recording's records and the internal values of each step; one array row per sample.

    inputs: of the graph, by name. value, mask, forecast, own, ahead, gate, trusted, doubt:
    [n, channels]. hidden: [n, all units]. raw_parts, raw_terms: unsmoothed score parts [n, 6] and
    per-channel terms [n, 3, channels]. parts, terms: smoothed, [n, memories, 6] and as before.
    score: [n]. measured: [n], False where no watched channel had a reading, so nothing is scored.
    settling: [n], True where the forecasts are not used yet. settled: [n], True where they are
    used, something was measured and the model is trusted. kept: [n], False where the machine was
    probably not healthy (`learning.cleaning`). saturated: [n], share of the state at the edge of
    its range.
    """

    records: tuple[Record, ...]
    inputs: tuple[Mapping[str, Float32], ...]
    value: Float32
    mask: Float32
    forecast: Float32
    own: Float32
    ahead: Float32
    gate: Float32
    trusted: Float32
    doubt: Float32
    hidden: Float32
    raw_parts: Float32
    raw_terms: Float32
    parts: Float32
    terms: Float32
    score: Float32
    measured: npt.NDArray[np.bool_]
    settling: npt.NDArray[np.bool_]
    settled: npt.NDArray[np.bool_]
    kept: npt.NDArray[np.bool_]
    saturated: npt.NDArray[np.float64]


def roll(model: Model, rows: Float32) -> Rollout:
    """Run `rows` (raw units [n, channels]) from a fresh state.

    The score is always the model's, also in records that the fallback answers.
    """
    try:
        return _on_core(model, rows)
    except GruardError:  # the core is not built, or cannot run this model
        return stepwise(model, rows)


def _on_core(model: Model, rows: Float32) -> Rollout:
    manifest, found = model.manifest, roll_on_core(model, rows)
    threshold = manifest.thresholds[model.graph.kernel_id].value
    inputs = zip(*found.inputs.values(), strict=True)
    records = Records(manifest.channel_names, model.model_hash, threshold)
    errors = errors_of(found.value, found.mask, found.forecast, found.own, found.ahead)
    parts, terms = parts_of_rows(errors, found.value, found.doubt, found.mask, model.score)
    return _rollout(
        model,
        tuple(records.of_rows(rows, found.records)),
        inputs=tuple(dict(zip(found.inputs, row, strict=True)) for row in inputs),
        raw_parts=parts,
        raw_terms=terms,
        **{name: getattr(found, name) for name in _AS_FOUND},
    )


def stepwise(model: Model, rows: Float32) -> Rollout:
    """Do the same as `roll` with the step in Python, which is the reference."""
    state, fallback = initial_state(model), Fallback(model.manifest, model.model_hash)
    records, traces, parts, terms, settling = [], [], [], [], []
    for index, values in enumerate(rows):
        sample = Sample(index, None, values)
        plan, shadow = state.tiers, fallback.step(sample, state.change.centre)
        record, state, trace = step(model, sample, state, shadow)
        settling.append(is_settling(plan, is_mostly_masked(trace.mask, model.watched)))
        records.append(record)
        traces.append(trace)
        parts.append(state.score.parts)
        terms.append(state.score.terms)
    return _rollout(
        model,
        tuple(records),
        inputs=tuple(trace.inputs for trace in traces),
        value=np.array([t.value for t in traces]),
        mask=np.array([t.mask for t in traces]),
        forecast=np.array([t.forecast for t in traces]),
        own=np.array([t.own for t in traces]),
        ahead=np.array([t.ahead for t in traces]),
        gate=np.array([t.gate for t in traces]),
        trusted=np.array([t.trusted for t in traces]),
        doubt=np.array([t.doubt for t in traces]),
        hidden=np.array([np.concatenate([_NO_STATE, *t.hidden]) for t in traces]),
        raw_parts=np.array([t.parts for t in traces]),
        raw_terms=np.array([t.terms for t in traces]),
        parts=np.array(parts),
        terms=np.array(terms),
        score=np.array([t.score for t in traces]),
        measured=np.array([t.measured for t in traces], bool),
        settling=np.array(settling, bool),
    )


def _rollout(model: Model, records: tuple[Record, ...], **inside: Any) -> Rollout:
    """Build a Rollout, with the fields that follow from the others."""
    trusted = np.array([record.tier != 3 for record in records], bool)
    return Rollout(
        records=records,
        kept=np.ones(len(records), bool),
        settled=inside["measured"] & ~inside["settling"] & trusted,
        saturated=_saturated(model, inside["hidden"]),
        **inside,
    )


def _saturated(model: Model, hidden: Float32) -> npt.NDArray[np.float64]:
    """Return the share of the state's units at the edge of their int8 range: [n]."""
    layers = np.split(hidden, np.cumsum(model.graph.state_sizes)[:-1], axis=1)
    edges = [
        ((layer <= low) | (layer >= high)).sum(axis=1)
        for layer, (low, high) in zip(layers, model.state_limits, strict=False)
    ]
    return sum(edges, np.zeros(len(hidden))) / max(hidden.shape[1], 1)


def rescored(rollout: Rollout, constants: ScoreConstants) -> Rollout:
    """Score the rollout again with another smoothing, centre and weight of the score's parts.

    The unsmoothed parts and the records stay unchanged.
    """
    state = initial_score(constants)
    parts, terms = [], []
    for row, record in enumerate(rollout.records):
        if rollout.measured[row]:
            new_parts, new_terms = rollout.raw_parts[row], rollout.raw_terms[row]
            settling = bool(rollout.settling[row])
            state = update_score(new_parts, new_terms, state, constants, settling)
        parts.append(state.parts)
        terms.append(state.terms)
        if Flag.RESET in record.flags:
            state = without_forecasts(state, constants)
    scores = [total_score(smoothed, constants) for smoothed in parts]
    return replace(rollout, parts=np.array(parts), terms=np.array(terms), score=np.array(scores))


def remeasured(rollout: Rollout, constants: ScoreConstants) -> Rollout:
    """Compute unsmoothed parts and terms again with other scales and covariances."""
    parts, terms = parts_of_rows(
        errors_in(rollout), rollout.value, rollout.doubt, rollout.mask, constants
    )
    return replace(rollout, raw_parts=parts, raw_terms=terms)


def errors_in(rollout: Rollout) -> Float32:
    """Return errors [n, 3, channels] of all forecasts, 0 where a reading was unusable."""
    return errors_of(rollout.value, rollout.mask, rollout.forecast, rollout.own, rollout.ahead)


def stretch(rollout: Rollout, start: int, stop: int) -> Rollout:
    """Return the steps from `start` up to, not including, `stop`."""
    return Rollout(**{f.name: getattr(rollout, f.name)[start:stop] for f in fields(Rollout)})


def joined(rollouts: Sequence[Rollout]) -> Rollout:
    """Join stretches end to end, as if they were the rollout of one recording."""
    every: dict[str, Any] = {}
    for name in (f.name for f in fields(Rollout)):
        parts = [getattr(r, name) for r in rollouts]
        every[name] = sum(parts, ()) if isinstance(parts[0], tuple) else np.concatenate(parts)
    return Rollout(**every)


def roll_all(model: Model, recordings: Sequence[Float32]) -> list[Rollout]:
    """Roll each recording from a fresh state."""
    return [roll(model, rows) for rows in recordings]
