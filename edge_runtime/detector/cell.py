"""The cell: forecast, gate and recurrent unit pass over one sample; `step` takes the decisions.

All host arithmetic is float32; only the graph is int8. Device, calibration and validation run this
same code, so what is measured is what ships.

Notation, all in standardised units: x reading, m mask, mu forecast, e = x - mu innovation,
s its clean scale, g gate, u = mu + g e trusted reading, h recurrent state.
"""

from dataclasses import dataclass, replace

import numpy as np

from edge_runtime import numerics
from edge_runtime.bundle.manifest import Manifest, Tensor
from edge_runtime.detector import change, score, tiers
from edge_runtime.detector.diagnosing import diagnosis_constants
from edge_runtime.detector.inputs import (
    VALUE_CLIP,
    Scaler,
    ValidityRules,
    channel_scaler,
    validity_rules,
)
from edge_runtime.detector.interpreter import StepGraph
from edge_runtime.detector.linear import LinearForecasts, lines_of, one_ahead, others
from edge_runtime.diagnosis import DiagnosisConstants
from edge_runtime.record import Float32

INNOVATION_CLIP = np.float32(4)
EVIDENCE_CLIP = np.float32(8)
# The graph gets forecast and innovation within tighter bounds, in training too: an int8 scale wide
# enough for every outlier would be too coarse for the rest. Larger innovations still show in the
# evidence, larger levels in the float highway.
GRAPH_FORECAST_CLIP = np.float32(3)
GRAPH_INNOVATION_CLIP = np.float32(2)
INPUT_STEP = np.float32(0.5)
"""Error of its forecast from which on an exogenous channel counts as moved during a gap."""
_ONE, _ZERO = np.float32(1), np.float32(0)


@dataclass(frozen=True)
class Model:
    """A graph with the manifest's constants as arrays."""

    manifest: Manifest
    names: tuple[str, ...]  # of the channels
    graph: StepGraph
    model_hash: str
    scaler: Scaler
    rules: ValidityRules
    lines: LinearForecasts
    innovation_scale: Float32
    watched: Float32  # 0 where exogenous
    gated: Float32  # 0 where there is no gate or it never closes (exogenous)
    gate_limit: np.float32  # largest magnitude; the int8 range of a gate can end a little beyond 1
    score: score.ScoreConstants
    change: change.ChangeConstants
    state_limits: tuple[tuple[np.float32, np.float32], ...]  # range of each int8 state input
    diagnosis: DiagnosisConstants | None


@dataclass(frozen=True)
class Recurrent:
    """What forecasts depend on: trusted readings [depth, channels], states, gate, correction."""

    history: Float32
    hidden: tuple[Float32, ...]
    gate: Float32
    correction: Float32
    value: Float32  # last reading, 0 where it was unusable
    mask: Float32


@dataclass(frozen=True)
class Traces:
    """Intermediate results of one step, for calibration and validation; vectors [channels].

    value: less the centre. score: the model's own, also in tier 3; `step` sets it and `measured`.
    """

    value: Float32
    mask: Float32
    forecast: Float32
    own: Float32  # see `detector.linear`
    ahead: Float32
    gate: Float32
    trusted: Float32  # input of the next forecasts
    doubt: Float32
    parts: Float32  # unsmoothed [6]
    terms: Float32  # unsmoothed [3, channels]
    hidden: tuple[Float32, ...]
    inputs: dict[str, Float32]
    outputs: dict[str, Float32]
    score: np.float32 = _ZERO
    measured: bool = False


def build_model(source: Manifest, graph: StepGraph, model_hash: str) -> Model:
    """Return `graph` with the constants of `source` as arrays."""
    watched = np.array([not c.exogenous for c in source.channels], np.float32)
    states = [source.inputs[f"state_{i}"] for i in range(len(graph.state_sizes))]
    limits = tuple(
        (
            np.float32((-127 - s.zero_point) * s.scale),
            np.float32((126 - s.zero_point) * s.scale),
        )
        for s in states
    )
    return Model(
        manifest=source,
        names=source.channel_names,
        graph=graph,
        model_hash=model_hash,
        scaler=channel_scaler(source.channels),
        rules=validity_rules(source.channels, source.period),
        lines=lines_of(source.forecast),
        innovation_scale=np.array(source.forecast.innovation_scale, np.float32),
        watched=watched,
        gated=watched * np.float32(graph.gated),
        gate_limit=_gate_limit(source.outputs.get("gate_next")),
        score=score.score_constants(source),
        change=change.change_constants(source),
        state_limits=limits,
        diagnosis=diagnosis_constants(source),
    )


def _gate_limit(codes: Tensor | None) -> np.float32:
    if codes is None:
        return _ONE
    scale, zero_point = np.float32(codes.scale), np.float32(codes.zero_point)
    ends = numerics.dequantise(np.array([-128, 127], np.int8), scale, zero_point)
    return np.float32(max(_ONE, *np.abs(ends)))


def start_recurrent(model: Model, value: Float32) -> Recurrent:
    """Return the recurrent state of a machine that has always been at `value`."""
    channels = len(value)
    return Recurrent(
        history=np.repeat(value[np.newaxis], model.lines.depth, axis=0),
        hidden=tuple(np.zeros(size, np.float32) for size in model.graph.state_sizes),
        gate=np.ones(channels, np.float32),
        correction=np.zeros(channels, np.float32),
        value=value,
        mask=np.zeros(channels, np.float32),
    )


def shifted(recurrent: Recurrent, shift: Float32) -> Recurrent:
    """Return the same state relative to a centre that has moved by `shift` [channels]."""
    return replace(
        recurrent,
        history=numerics.clip(recurrent.history - shift, VALUE_CLIP),
        value=np.where(
            recurrent.mask > 0, numerics.clip(recurrent.value - shift, VALUE_CLIP), _ZERO
        ),
    )


def forecast(model: Model, recurrent: Recurrent) -> Float32:
    """Return mu [channels]: the highway over the trusted readings plus the GRU's correction."""
    correction = model.innovation_scale * recurrent.correction
    return one_ahead(model.lines, recurrent.history, correction)


def errors_of(
    value: Float32, mask: Float32, forecast: Float32, own: Float32, ahead: Float32
) -> Float32:
    """Return the errors [..., 3, channels] of the three forecasts of readings [..., channels]."""
    return np.stack([mask * (value - each) for each in (forecast, own, ahead)], axis=-2)


def advance(
    model: Model,
    value: Float32,
    mask: Float32,
    recurrent: Recurrent,
    held_open: Float32,
    phase: tiers.Phase,
    after_gap: bool = False,
) -> tuple[Traces, Recurrent]:
    """Run the graph once and return the step's results and the next recurrent state.

    after_gap: the rows before had no readings. If an exogenous channel has moved meanwhile, the
    gate is held open: it would reject the machine's response, and the forecast never recover.
    """
    mu = forecast(model, recurrent)
    own, ahead = others(model.lines, recurrent.history)
    if after_gap and bool(((np.abs(value - mu) >= INPUT_STEP) & (mask > model.watched)).any()):
        held_open = np.ones_like(held_open)
    # A free run ignores every gated reading; exogenous ones are still used.
    used = mask * (_ONE - model.gated) if phase is tiers.Phase.FREE_RUN else mask
    inputs = graph_inputs(model, value, mask, used, mu, recurrent, held_open)
    outputs = model.graph(inputs)
    # Without a gate every usable reading is trusted; without a GRU nothing is corrected.
    gate, doubt = used, np.zeros_like(used)
    if model.graph.gated:
        gate, doubt = outputs["gate_next"], outputs["doubt"]
    correction = outputs["correction"] if recurrent.hidden else recurrent.correction
    trusted = mu + gate * (used * numerics.clip(value - mu, INNOVATION_CLIP))
    hidden = tuple(
        outputs[f"candidate_{i}"] + outputs[f"update_{i}"] * (h - outputs[f"candidate_{i}"])
        for i, h in enumerate(recurrent.hidden)
    )
    following = Recurrent(
        history=np.concatenate([trusted[np.newaxis], recurrent.history[:-1]]),
        hidden=hidden,
        gate=gate,
        correction=correction,
        value=value,
        mask=mask,
    )
    errors = errors_of(value, mask, mu, own, ahead)
    parts, terms = score.score_parts(errors, value, doubt, mask, model.score)
    traces = Traces(
        value, mask, mu, own, ahead, gate, trusted, doubt, parts, terms, hidden, inputs, outputs
    )
    return traces, following


def graph_inputs(
    model: Model,
    value: Float32,
    mask: Float32,
    used: Float32,
    mu: Float32,
    recurrent: Recurrent,
    held_open: Float32,
) -> dict[str, Float32]:
    """Return the graph's named inputs, float32 [n] each. used: mask of the readings it may use."""
    scale = model.innovation_scale
    evidence = used * numerics.clip((value - mu) / scale, EVIDENCE_CLIP) / EVIDENCE_CLIP
    moved = numerics.clip((value - recurrent.value) / scale, EVIDENCE_CLIP)
    inputs = {
        "innovation": used * numerics.clip(value - mu, GRAPH_INNOVATION_CLIP),
        "forecast": numerics.clip(mu, GRAPH_FORECAST_CLIP),
        "evidence": evidence,
        "magnitude": np.abs(evidence),
        "difference": used * recurrent.mask * moved / EVIDENCE_CLIP,
        "mask": used,
        "guarded": used * model.gated * (_ONE - held_open),
        "gate": recurrent.gate,
    }
    for layer, hidden in enumerate(recurrent.hidden):
        inputs[f"state_{layer}"] = hidden
    return inputs
