"""The record of one step: what was found, in the words of the channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_runtime.detector import score, tiers
from edge_runtime.detector.inputs import Bools
from edge_runtime.diagnosis import Diagnosis
from edge_runtime.record import Flag, Record, Sample

if TYPE_CHECKING:  # the step makes the record
    from edge_runtime.detector.step import Model, Traces


@dataclass(frozen=True)
class Outcome:
    """The model's own verdict on one sample. diagnosis: of its alarm, None where there is none."""

    total: float
    alarm: bool
    score: score.ScoreState
    diagnosis: Diagnosis | None


def step_record(
    model: Model,
    sample: Sample,
    traces: Traces,
    outcome: Outcome,
    plan: tiers.TierState,
    fallback: Record,
) -> Record:
    """The record; in tier 3 score, alarm and blame are those of the `fallback`'s record."""
    names = model.manifest.channel_names
    tier = tiers.tier_of(plan)
    shut = (traces.gate < tiers.CLOSED_BELOW) & (model.watched > 0)
    imputed = _named(names, shut | (traces.mask == 0))
    record = Record(
        index=sample.index,
        time=sample.time,
        tier=tier,
        flags=_flags(bool(imputed), plan),
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
    found = outcome.diagnosis
    if found is None:
        return record
    return replace(record, kind=found.kind, probability=found.probability, sensor=found.sensor)


def _flags(imputed: bool, plan: tiers.TierState) -> Flag:
    flags = Flag.IMPUTED if imputed else Flag(0)
    if plan.phase is tiers.Phase.FREE_RUN:
        flags |= Flag.FREE_RUN
    if plan.phase is tiers.Phase.RESYNC or bool((plan.forced > 0).any()):
        flags |= Flag.RESYNC
    if plan.warmup > 0:
        flags |= Flag.WARMUP
    return flags


def _blamed(model: Model, outcome: Outcome) -> tuple[str, ...]:
    if not outcome.alarm:
        return ()
    found = outcome.diagnosis
    # Where no channel stands out by itself, those behind the score are better than none.
    blamed = (found.channels if found else ()) or score.blame(outcome.score, model.score)
    return tuple(model.manifest.channel_names[i] for i in blamed)


def _named(names: tuple[str, ...], chosen: Bools) -> tuple[str, ...]:
    return tuple(name for name, yes in zip(names, chosen, strict=True) if yes)
