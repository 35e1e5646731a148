"""Run recordings through the runtime's own step and keep the internal values of every step.

If the C core is built, it runs the step around the model's own graph; otherwise numpy does. Both
give the same bits.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.cell import Model, Traces, errors_of
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.score import (
    ScoreConstants,
    ScoreState,
    heights,
    initial_score,
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
    """The internal values of each step over one recording; one array row per sample.

    tier, flags, alarm: of the records, [n]. inputs: of the graph by name, [n, …]. value, mask,
    forecast, own, ahead, gate, trusted, doubt: [n, channels]. hidden: [n, all units]. raw_parts,
    raw_terms: unsmoothed score parts [n, 6] and per-channel terms [n, 3, channels]. parts, terms:
    smoothed, [n, memories, 6] and as before. score: [n]. measured: [n], False where no watched
    channel had a reading, so nothing is scored. settling: [n], True where the forecasts are not
    used yet. settled: [n], True where they are used, something was measured and the model is
    trusted. kept: [n], False where the machine was probably not healthy (`learning.cleaning`).
    saturated: [n], share of the state at the edge of its range.
    """

    tier: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint16]
    alarm: npt.NDArray[np.bool_]
    inputs: Mapping[str, Float32]
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


_ARRAYS = tuple(field.name for field in fields(Rollout) if field.name != "inputs")


def roll(model: Model, rows: Float32) -> Rollout:
    """Run `rows` (raw units [n, channels]) from a fresh state.

    The score is always the model's, also in records that the fallback answers.
    """
    try:
        return _on_core(model, rows)
    except GruardError:  # the core is not built, or cannot run this model
        return stepwise(model, rows)


def _on_core(model: Model, rows: Float32) -> Rollout:
    found = roll_on_core(model, rows)
    errors = errors_of(found.value, found.mask, found.forecast, found.own, found.ahead)
    parts, terms = parts_of_rows(errors, found.value, found.doubt, found.mask, model.score)
    return _rollout(
        model,
        tier=found.records["tier"],
        flags=found.records["flags"],
        alarm=found.records["alarm"] > 0,
        inputs=found.inputs,
        raw_parts=parts,
        raw_terms=terms,
        **{name: getattr(found, name) for name in _AS_FOUND},
    )


def stepwise(model: Model, rows: Float32) -> Rollout:
    """Do the same as `roll` with the step in Python, which is the reference."""
    steps = list(_steps(model, rows))
    records, traces, scores, settling = zip(*steps, strict=True)
    return _rollout(
        model,
        tier=np.array([record.tier for record in records], np.uint8),
        flags=np.array([record.flags for record in records], np.uint16),
        alarm=np.array([record.alarm for record in records], bool),
        inputs={name: np.array([t.inputs[name] for t in traces]) for name in traces[0].inputs},
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
        parts=np.array([score.parts for score in scores]),
        terms=np.array([score.terms for score in scores]),
        score=np.array([t.score for t in traces]),
        measured=np.array([t.measured for t in traces], bool),
        settling=np.array(settling, bool),
    )


def _steps(model: Model, rows: Float32) -> Iterator[tuple[Record, Traces, ScoreState, bool]]:
    """Yield record, internal values, score and whether the forecasts are not used yet."""
    state, fallback = initial_state(model), Fallback(model.manifest, model.model_hash)
    for index, values in enumerate(rows):
        sample = Sample(index, None, values)
        plan, shadow = state.tiers, fallback.step(sample, state.change.centre)
        record, state, trace = step(model, sample, state, shadow)
        settling = is_settling(plan, is_mostly_masked(trace.mask, model.watched))
        yield record, trace, state.score, settling


def records_of(model: Model, rows: Float32) -> list[Record]:
    """Return the records of the device over `rows` (raw units [n, channels])."""
    manifest, threshold = model.manifest, model.manifest.thresholds[model.graph.kernel_id].value
    try:
        found = roll_on_core(model, rows).records
    except GruardError:
        return [record for record, *_ in _steps(model, rows)]
    made = Records(manifest.channel_names, model.model_hash, threshold)
    return list(made.of_rows(rows, found))


def inputs_at(rollout: Rollout, rows: Iterable[int]) -> list[Mapping[str, Float32]]:
    """Return the inputs of the graph in some steps, by name."""
    return [{name: values[row] for name, values in rollout.inputs.items()} for row in rows]


def _rollout(model: Model, **inside: Any) -> Rollout:
    """Build a Rollout, with the fields that follow from the others."""
    return Rollout(
        kept=np.ones(len(inside["tier"]), bool),
        settled=inside["measured"] & ~inside["settling"] & (inside["tier"] != 3),
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

    The unsmoothed parts and the answers of the device stay unchanged.
    """
    state = initial_score(constants)
    parts, terms = [], []
    reset = (rollout.flags & Flag.RESET) != 0
    for row in range(len(rollout.tier)):
        if rollout.measured[row]:
            new_parts, new_terms = rollout.raw_parts[row], rollout.raw_terms[row]
            settling = bool(rollout.settling[row])
            state = update_score(new_parts, new_terms, state, constants, settling)
        parts.append(state.parts)
        terms.append(state.terms)
        if reset[row]:
            state = without_forecasts(state, constants)
    smooth = np.array(parts)
    score = heights(smooth, constants)[:, :, constants.weights > 0].max(axis=(1, 2))
    return replace(rollout, parts=smooth, terms=np.array(terms), score=score)


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
    cut: dict[str, Any] = {name: getattr(rollout, name)[start:stop] for name in _ARRAYS}
    return Rollout(inputs={n: v[start:stop] for n, v in rollout.inputs.items()}, **cut)


def joined(rollouts: Sequence[Rollout]) -> Rollout:
    """Join stretches end to end, as if they were the rollout of one recording."""
    whole = {name: np.concatenate([getattr(r, name) for r in rollouts]) for name in _ARRAYS}
    inputs = {n: np.concatenate([r.inputs[n] for r in rollouts]) for n in rollouts[0].inputs}
    return Rollout(inputs=inputs, **whole)


def roll_all(model: Model, recordings: Sequence[Float32]) -> list[Rollout]:
    """Roll each recording from a fresh state."""
    return [roll(model, rows) for rows in recordings]
