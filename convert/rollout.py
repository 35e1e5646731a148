"""Recordings through the runtime's own step, with everything inside it kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.fallback import Fallback
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.score import ScoreConstants, initial_score, total_score, update_score
from edge_runtime.step import Model, Traces, initial_state, saturated_share, step

Float32 = npt.NDArray[np.float32]
_NO_STATE = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Rollout:
    """One recording's records and traces; every array has one row per sample.

    value, mask, forecast, gate, trusted, doubt: [n, channels]. hidden: [n, all units]. parts:
    smoothed score parts [n, 4]. terms: smoothed per-channel terms [n, 3, channels]. score: [n].
    settled: [n], False during warm-up and while the model is distrusted. saturated: [n], share of
    the state at the edge of its range.
    """

    records: tuple[Record, ...]
    traces: tuple[Traces, ...]
    value: Float32
    mask: Float32
    forecast: Float32
    gate: Float32
    trusted: Float32
    doubt: Float32
    hidden: Float32
    parts: Float32
    terms: Float32
    score: Float32
    settled: npt.NDArray[np.bool_]
    saturated: Float32


def roll(model: Model, rows: Float32) -> Rollout:
    """Run `rows` (raw units [n, channels]) from a fresh state.

    The score is the model's own also where the fallback answers the record.
    """
    state, fallback = initial_state(model), Fallback(model.manifest, model.model_hash)
    records, traces, parts, terms, settled = [], [], [], [], []
    for index, values in enumerate(rows):
        sample = Sample(index, None, values)
        record, state, trace = step(model, sample, state, fallback.step(sample))
        records.append(record)
        traces.append(trace)
        parts.append(state.score.parts)
        terms.append(state.score.terms)
        settled.append(record.tier != 3)
    return Rollout(
        records=tuple(records),
        traces=tuple(traces),
        value=np.array([t.value for t in traces]),
        mask=np.array([t.mask for t in traces]),
        forecast=np.array([t.forecast for t in traces]),
        gate=np.array([t.gate for t in traces]),
        trusted=np.array([t.trusted for t in traces]),
        doubt=np.array([t.doubt for t in traces]),
        hidden=np.array([np.concatenate([_NO_STATE, *t.hidden]) for t in traces]),
        parts=np.array(parts),
        terms=np.array(terms),
        score=np.array([total_score(smoothed, model.score) for smoothed in parts]),
        settled=np.array(settled),
        saturated=np.array([saturated_share(model, t.hidden) for t in traces]),
    )


def rescored(rollout: Rollout, constants: ScoreConstants) -> Rollout:
    """The same rollout under another smoothing, centre and weight of the score's parts.

    The constants that make the unsmoothed parts must be the ones it was rolled with. Its records
    keep the old verdicts.
    """
    state = initial_score(constants)
    parts, terms = [], []
    for trace, record in zip(rollout.traces, rollout.records, strict=True):
        if not record.flags & Flag.WARMUP:
            state = update_score(trace.parts, trace.terms, state, constants)
        parts.append(state.parts)
        terms.append(state.terms)
    scores = [total_score(smoothed, constants) for smoothed in parts]
    return replace(rollout, parts=np.array(parts), terms=np.array(terms), score=np.array(scores))


def roll_all(model: Model, recordings: Sequence[Float32]) -> list[Rollout]:
    """`roll` for each recording, each from a fresh state."""
    return [roll(model, rows) for rows in recordings]
