"""One step: from a sample and a state to a record and the next state.

A row in which no watched channel has a reading, or of an unknown operating mode, advances the
forecast but is not judged: score, alarm and diagnosis stay as they were. Otherwise each missing
reading counts as an error.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edge_runtime.detector import change, score, tiers
from edge_runtime.detector.alarm import AlarmState, update_alarm
from edge_runtime.detector.cell import (
    EVIDENCE_CLIP,
    Model,
    Recurrent,
    Traces,
    advance,
    errors_of,
    shifted,
    start_recurrent,
)
from edge_runtime.detector.diagnosing import (
    DiagnosisState,
    advance_diagnosis,
    diagnosis_of,
    initial_diagnosis,
)
from edge_runtime.detector.inputs import (
    Bools,
    ValidityState,
    check_validity,
    in_mode,
    initial_validity,
    is_measured,
    standardise,
)
from edge_runtime.diagnosis import Diagnosis
from edge_runtime.record import Flag, Float32, Record, Sample


@dataclass(frozen=True)
class State:
    """Everything kept from one sample to the next; recurrent: None before the first."""

    validity: ValidityState
    recurrent: Recurrent | None
    score: score.ScoreState
    change: change.ChangeState
    alarm: AlarmState
    tiers: tiers.TierState
    diagnosis: DiagnosisState | None  # None where the bundle has no diagnosis


def initial_state(model: Model) -> State:
    """Return the state before the first sample."""
    channels = len(model.manifest.channels)
    return State(
        validity=initial_validity(channels),
        recurrent=None,
        score=score.initial_score(model.score),
        change=change.initial_change(channels, len(model.score.mean)),
        alarm=AlarmState(),
        tiers=tiers.initial_tiers(channels, model.manifest.tiers.warmup),
        diagnosis=None if model.diagnosis is None else initial_diagnosis(channels),
    )


def ignore_stage(stage: str) -> None:
    """Do nothing; the default `on_stage` callback."""


def step(
    model: Model,
    sample: Sample,
    state: State,
    fallback: Record,
    on_stage: Callable[[str], None] = ignore_stage,
) -> tuple[Record, State, Traces]:
    """Return the record for `sample`, the next state, and the step's traces.

    fallback: the statistical detector's record for the same sample, which answers while the model
    warms up or is distrusted. on_stage: called after each stage: mask, invoke, check.
    """
    mask, validity = check_validity(sample.values, model.rules, state.validity)
    seen = in_mode(sample.values, mask, model.scaler)
    mask, known = seen.mask, bool(seen.known)
    usable = mask.astype(np.float32)
    measured = known and is_measured(sample.values, model.watched)
    on_stage("mask")
    absolute = standardise(sample.values, mask, seen.scaler)
    value = change.from_here(absolute, usable, state.change, model.change)
    recurrent = state.recurrent or start_recurrent(model, value)
    plan = state.tiers
    mostly_masked = tiers.is_mostly_masked(usable, model.watched)
    traces, following = advance(
        model, value, usable, recurrent, tiers.held_open(plan), plan.phase,
        after_gap=tiers.ends_gap(plan, mostly_masked),
    )  # fmt: skip
    on_stage("invoke")
    settling = tiers.is_settling(plan, mostly_masked)
    score_state, change_state = state.score, state.change
    if measured:
        score_state, change_state = _measure(model, traces, absolute, state, settling)
    judged = change.judge(score_state, change_state, model.score)
    alarm = _update_alarm(model, float(judged.here), state) if measured else state.alarm
    observed = _observe(model, traces, recurrent, following)
    tier_state, reset = tiers.observe(plan, observed, model.manifest.tiers)
    tier_state = tiers.agree(tier_state, alarm.active == fallback.alarm, model.manifest.tiers)
    on_stage("check")
    diagnosis, verdict = state.diagnosis, None
    if model.diagnosis is not None and diagnosis is not None:
        if measured:
            diagnosis = advance_diagnosis(
                sample.values, alarm.active, seen.scaler, diagnosis, model.diagnosis
            )
        verdict = diagnosis_of(diagnosis, model.diagnosis) if alarm.active else None
    outcome = _Outcome(float(judged.shown), alarm.active, score_state, verdict)
    moved = change.Moved(change_state, score_state, alarm, None)
    if measured:
        moved = change.move(
            absolute, usable, judged, _levels(model), moved, settling, model.score, model.change
        )
    score_state, after = moved.score, following
    if moved.shift is not None:
        after = shifted(after, moved.shift)
    flags = Flag.CHANGED if state.change.flagged or moved.change.flagged else Flag(0)
    if not known:
        flags |= Flag.UNKNOWN_MODE
    if reset:
        flags |= Flag.RESET
        score_state = score.without_forecasts(score_state, model.score)
        moved = change.without_forecasts(moved, model.score)
        judged = change.judge(score_state, moved.change, model.score)
    following_state = State(
        validity, None if reset else after, score_state, moved.change, moved.alarm, tier_state,
        diagnosis,
    )  # fmt: skip
    # The next forecasts start from the history relative to the new centre.
    record = _record_of(model, sample, traces, outcome, plan, fallback, flags)
    traces = replace(traces, score=judged.score, trusted=after.history[0], measured=measured)
    return record, following_state, traces


def _measure(
    model: Model, traces: Traces, absolute: Float32, state: State, settling: bool
) -> tuple[score.ScoreState, change.ChangeState]:
    """Return the smoothed parts after a measured row, from the centre and as from the recording."""
    parts, before = traces.parts, state.change
    if before.changed:
        errors = errors_of(traces.value, traces.mask, traces.forecast, traces.own, traces.ahead)
        errors = errors + traces.mask * before.pulled
        recorded, _ = score.score_parts(errors, absolute, traces.doubt, traces.mask, model.score)
        before = change.measure_recorded(before, recorded, model.score, settling)
        parts = score.with_level(np.minimum(parts, recorded), parts)  # the nearer place
    return score.update_score(parts, traces.terms, state.score, model.score, settling), before


def _update_alarm(model: Model, total: float, state: State) -> AlarmState:
    """Return the next alarm state; warm-up raises no alarm, and tier 2 clears none."""
    rule, (threshold, clear) = model.manifest.alarm, _levels(model)
    following = update_alarm(total, threshold, clear, rule.m, rule.n, rule.clear_after, state.alarm)
    if state.tiers.warmup > 0:
        return replace(following, active=following.active and state.alarm.active)
    latched = tiers.tier_of(state.tiers) == 2 and state.alarm.active
    return replace(following, active=following.active or latched)


def _levels(model: Model) -> tuple[float, float]:
    """Return the threshold and the clear level."""
    threshold = model.manifest.thresholds[model.graph.kernel_id]
    return threshold.value, threshold.clear


def saturated_share(model: Model, hidden: tuple[Float32, ...]) -> float:
    """Return the share of the state's units at the edge of their int8 range."""
    units = sum(len(h) for h in hidden)
    edges = [
        np.count_nonzero((h <= low) | (h >= high))
        for h, (low, high) in zip(hidden, model.state_limits, strict=True)
    ]
    return sum(edges) / units if units else 0.0


def _observe(
    model: Model, traces: Traces, before: Recurrent, after: Recurrent
) -> tiers.Observation:
    pairs = zip(before.hidden, after.hidden, strict=True)
    return tiers.Observation(
        mask=traces.mask,
        gate=traces.gate,
        innovation=np.minimum(
            np.abs(traces.value - traces.forecast) / model.innovation_scale, EVIDENCE_CLIP
        ),
        watched=model.watched,
        gated=model.gated,
        saturated=saturated_share(model, after.hidden),
        moved=not after.hidden or any(not np.array_equal(a, b) for a, b in pairs),
        input_moved=not np.array_equal(before.value, after.value),
    )


@dataclass(frozen=True)
class _Outcome:
    """The model's own verdict on one sample. diagnosis: of its alarm, or None."""

    total: float
    alarm: bool
    score: score.ScoreState
    diagnosis: Diagnosis | None


def _record_of(
    model: Model,
    sample: Sample,
    traces: Traces,
    outcome: _Outcome,
    plan: tiers.TierState,
    fallback: Record,
    flags: Flag,
) -> Record:
    """Return the record with `flags` and others; in tier 3 with the `fallback`'s verdict."""
    names = model.names
    tier = tiers.tier_of(plan)
    shut = (traces.gate < tiers.CLOSED_BELOW) & (model.watched > 0)
    imputed = _named(names, shut | (traces.mask == 0))
    record = Record(
        index=sample.index,
        time=sample.time,
        tier=tier,
        flags=_flags(flags, bool(imputed), plan),
        valid=tier != 3,
        score=outcome.total,
        threshold=model.manifest.thresholds[model.graph.kernel_id].value,
        alarm=outcome.alarm,
        masked=_named(names, traces.mask == 0),
        imputed=imputed,
        blamed=_blamed(model, outcome),
        model=model.model_hash,
    )
    if tier == 3:
        return replace(
            record,
            flags=record.flags | Flag.FALLBACK,
            score=fallback.score or 0.0,
            threshold=fallback.threshold or 0.0,
            alarm=fallback.alarm,
            blamed=fallback.blamed,
        )
    verdict = outcome.diagnosis
    if verdict is None:
        return record
    return replace(
        record, kind=verdict.kind, probability=verdict.probability, sensor=verdict.sensor
    )


def _flags(flags: Flag, imputed: bool, plan: tiers.TierState) -> Flag:
    if imputed:
        flags |= Flag.IMPUTED
    if plan.phase is tiers.Phase.FREE_RUN:
        flags |= Flag.FREE_RUN
    if plan.phase is tiers.Phase.RESYNC or bool((plan.forced > 0).any()):
        flags |= Flag.RESYNC
    if plan.warmup > 0:
        flags |= Flag.WARMUP
    return flags


def _blamed(model: Model, outcome: _Outcome) -> tuple[str, ...]:
    if not outcome.alarm:
        return ()
    verdict = outcome.diagnosis
    # If the diagnosis blames no channel, name those behind the score.
    blamed = (verdict.channels if verdict else ()) or score.blame(outcome.score, model.score)
    return tuple(model.names[i] for i in blamed)


def _named(names: tuple[str, ...], chosen: Bools) -> tuple[str, ...]:
    return tuple(name for name, yes in zip(names, chosen, strict=True) if yes)
