"""The verdict: does the int8 step behave as the float step, alone and over thousands of samples?

Both run through the runtime's own `step` with the same manifest; only the graph differs. Limits are
explained in docs/validation.md. Every check can fail, and the tests spoil a model to prove it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from convert.metrics import agreement, auc, first_hits, intervals, rank_correlation
from convert.rollout import Rollout, roll, roll_all
from convert.streams import FaultyRecording, repeated
from convert.threshold import debounce
from edge_runtime.record import Flag
from edge_runtime.step import FORECAST_CLIP, Model

Float32 = npt.NDArray[np.float32]

ROLLOUT_STEPS = 4000
EDGE = 400  # rows at the end of the first and last pass whose state errors are compared
ONE_STEP_SAMPLES = 400
GRACE = 10  # samples after a fault in which its alarm still counts
TIE = 0.1  # of the threshold
# An absolute state error this small is rounding noise; its growth means nothing.
STATE_NOISE = 0.005
SMALLEST_ERROR = 0.1  # of the innovation scale; forecasts better than this are all alike


@dataclass(frozen=True)
class Check:
    """One comparison: `value` must be within [low, high]."""

    name: str
    value: float
    low: float
    high: float
    meaning: str

    @property
    def passed(self) -> bool:
        """Whether the value is finite and within its limits."""
        return bool(np.isfinite(self.value)) and self.low <= self.value <= self.high

    def to_dict(self) -> dict[str, Any]:
        """JSON form; a value that is not a number is None."""
        value = self.value if np.isfinite(self.value) else None
        return {**asdict(self), "value": value, "passed": self.passed}


@dataclass(frozen=True)
class Evidence:
    """What the checks looked at, kept for the pictures."""

    int8_faulty: Rollout
    float_faulty: Rollout
    stream: FaultyRecording
    int8_long: Rollout
    float_long: Rollout


@dataclass(frozen=True)
class Verdict:
    """All checks and their evidence."""

    checks: tuple[Check, ...]
    evidence: Evidence = field(repr=False)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def validate(
    quantised: Model, reference: Model, clean: Sequence[Float32], stream: FaultyRecording
) -> Verdict:
    """Compare the int8 model `quantised` with the float model `reference`.

    clean: raw held-out recordings [n, channels]; stream: the same kind of rows with known faults.
    """
    if quantised.manifest.linear:
        return _linear_verdict(quantised, clean, stream)
    content = repeated(clean, min(ROLLOUT_STEPS // 2, sum(map(len, clean))))
    long = repeated([content], -(-ROLLOUT_STEPS // len(content)) * len(content))
    evidence = Evidence(
        int8_faulty=roll(quantised, stream.rows),
        float_faulty=roll(reference, stream.rows),
        stream=stream,
        int8_long=roll(quantised, long),
        float_long=roll(reference, long),
    )
    checks = [
        *one_step_checks(quantised, reference, evidence.int8_faulty),
        *rollout_checks(evidence.int8_long, evidence.float_long, len(content)),
        *clean_checks(
            roll_all(quantised, clean), roll_all(reference, clean), quantised.innovation_scale
        ),
        *detection_checks(quantised, reference, evidence),
    ]
    return Verdict(tuple(checks), evidence)


def _linear_verdict(model: Model, clean: Sequence[Float32], stream: FaultyRecording) -> Verdict:
    """A linear model has no int8 form; its float32 steps are compared with the plain formula."""
    faulty = roll(model, stream.rows)
    long = roll(model, repeated(clean, ROLLOUT_STEPS))
    evidence = Evidence(faulty, faulty, stream, long, long)
    return Verdict(tuple(formula_checks(model, [faulty, long])), evidence)


def formula_checks(model: Model, rollouts: Sequence[Rollout]) -> list[Check]:
    """The runtime's forecasts against the regression in float64, over the same trusted readings."""
    worst, largest = 0.0, 0.0
    for rollout in rollouts:
        trusted = rollout.trusted.astype(np.float64)
        order = len(model.highway)
        lags = np.lib.stride_tricks.sliding_window_view(trusted[:-1], order, axis=0)[..., ::-1]
        expected = np.einsum("nck,kc->nc", lags, model.highway.astype(np.float64))
        if len(model.cross):
            flat = lags.transpose(0, 2, 1).reshape(len(lags), -1)
            expected += flat @ model.cross.T.astype(np.float64)
        expected = np.clip(expected, -FORECAST_CLIP, FORECAST_CLIP)
        # After a reset the lags are made up until readings have taken their place.
        reset = np.array([bool(record.flags & Flag.RESET) for record in rollout.records[:-1]])
        whole = ~np.lib.stride_tricks.sliding_window_view(reset, order).any(axis=1)
        errors = np.abs(rollout.forecast[order:] - expected)[whole]
        worst = float(np.maximum(worst, errors.max(initial=0.0)))  # keeps a NaN
        largest = float(np.maximum(largest, np.abs(rollout.forecast).max()))
    return [
        Check("linear: forecast off the formula, max", worst, 0, 1e-3, "channel scales"),
        Check("linear: forecast, max", largest, 0, float(FORECAST_CLIP), "channel scales"),
    ]


def one_step_checks(quantised: Model, reference: Model, seen: Rollout) -> list[Check]:
    """The same inputs through both graphs once; forecast errors in innovation scales."""
    picked = np.linspace(0, len(seen.traces) - 1, min(ONE_STEP_SAMPLES, len(seen.traces)))
    inputs = [seen.traces[int(i)].inputs for i in picked]
    pairs = [(quantised.graph(i), reference.graph(i)) for i in inputs]

    def errors(value: Callable[[Mapping[str, Float32], Mapping[str, Float32]], Float32]) -> Float32:
        return np.array(
            [value(i, a) - value(i, b) for i, (a, b) in zip(inputs, pairs, strict=True)]
        )

    checks = []
    if quantised.graph.gated:
        worst = float(np.abs(errors(lambda _, out: out["gate_next"])).max())
        checks += [Check("one step: gate, max", worst, 0, 0.06, "trust in a reading, 0 to 1")]
    if quantised.graph.state_sizes:
        forecast = errors(lambda _, out: out["correction"])
        worst, unit = float(np.abs(forecast).max()), "innovation scales"
        checks += [
            Check("one step: forecast, RMS", _rms(forecast), 0, 0.08, unit),
            Check("one step: forecast, max", worst, 0, 0.5, unit),
            Check("one step: state, RMS", _rms(errors(_next_states)), 0, 0.02, "state, -1 to 1"),
        ]
    return checks


def rollout_checks(a: Rollout, b: Rollout, content: int) -> list[Check]:
    """Both models left alone for thousands of steps: do they stay together?

    The rollout repeats the same `content` rows, so that the end of its last pass can be compared
    with the same rows in its first: how hard a stretch is says nothing about drift. Without a GRU
    there is no state to compare.
    """
    if not a.hidden.shape[1]:
        return []
    squares = ((a.hidden - b.hidden).astype(np.float64) ** 2).mean(axis=1)
    edge = min(EDGE, content // 2)
    start = np.sqrt(squares[content - edge : content].mean())
    end = np.sqrt(squares[-edge:].mean())
    growth = max(end, STATE_NOISE) / max(start, STATE_NOISE)
    overall = float(np.sqrt(squares.mean()))
    return [
        Check("rollout: state, RMS", overall, 0, 0.05, f"over {len(squares)} steps"),
        Check("rollout: state, last pass over first", float(growth), 0, 1.5, "no drift apart"),
    ]


def clean_checks(
    quantised: Sequence[Rollout], reference: Sequence[Rollout], innovation_scale: Float32
) -> list[Check]:
    """Clean recordings: the same errors, the same gates, and scores that rank alike.

    Errors are compared where both gates are open. Where one closes its channel runs on forecasts,
    whose errors say how long it was closed and nothing about the arithmetic; how often the gates
    disagree is a check of its own.
    """
    pairs = list(zip(quantised, reference, strict=True))
    open_both = np.concatenate([_open(a) & _open(b) for a, b in pairs])
    # A channel that hardly ever errs (constant, exactly predicted) has nothing to compare.
    floor = (SMALLEST_ERROR * innovation_scale.astype(np.float64)) ** 2
    ratios = (floor + _variances(quantised, open_both)) / (floor + _variances(reference, open_both))
    worst = float(ratios[np.argmax(np.abs(np.log(ratios)))])
    disagree = np.concatenate([_open(a) != _open(b) for a, b in pairs]).mean()
    rows = [a.settled & b.settled for a, b in pairs]
    scores = [np.concatenate([r.score[k] for r, k in zip(side, rows, strict=True)])
              for side in (quantised, reference)]  # fmt: skip
    return [
        Check("clean: residual variance, worst channel", worst, 0.95, 1.05, "int8 over float"),
        Check("clean: gates that disagree", float(disagree) * 100, 0, 2, "% of readings"),
        Check("clean: score rank correlation", rank_correlation(*scores), 0.97, 1, "Spearman"),
    ]


def detection_checks(quantised: Model, reference: Model, evidence: Evidence) -> list[Check]:
    """The same faults, found alike and at the same time, with the threshold that ships."""
    a, b, stream = evidence.int8_faulty, evidence.float_faulty, evidence.stream
    both = a.settled & b.settled
    drop = auc(b.score[both], stream.faulty[both]) - auc(a.score[both], stream.faulty[both])
    margins = (_margins(quantised, a), _margins(reference, b))
    same, kappa = agreement(*_decisions(*margins, both))
    alarm_a, alarm_b = (np.array([r.alarm for r in side.records]) for side in (a, b))
    events = [e for e in intervals(stream.faulty) if both[e[0] : e[1]].all()]
    hits_a, hits_b = first_hits(alarm_a, events, GRACE), first_hits(alarm_b, events, GRACE)
    found_a, found_b = (sum(hit is not None for hit in hits) for hits in (hits_a, hits_b))
    pairs = zip(hits_a, hits_b, strict=True)
    shifts = [abs(x - y) for x, y in pairs if x is not None and y is not None]
    count = max(len(events), 1)
    return [
        Check("faults: AUC lost", drop, -1, 0.005, "float minus int8"),
        Check(
            "faults: event recall lost",
            100 * (found_b - found_a) / count,
            -100,
            # One event more or less is no verdict where there are fewer than fifty.
            max(2.0, 100 / count),
            f"points; int8 finds {found_a} of {len(events)}",
        ),
        Check("alarms: agreement", same * 100, 99.5, 100, "% of decisions"),
        Check("alarms: Cohen's kappa", kappa, 0.97, 1, "beyond chance"),
        Check(
            "alarms: delay shift, p95",
            float(np.quantile(shifts, 0.95)) if shifts else float("nan"),
            0,
            2,
            "samples",
        ),
    ]


def _decisions(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], settled: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Debounced decisions of two score margins, without those that hang by a thread in both.

    A fault that creeps over the threshold does so some samples earlier in one arithmetic; while
    both scores are within a tenth of the threshold, which of them is above it says nothing.
    """
    used = settled[-len(a) :] & (np.maximum(np.abs(a), np.abs(b)) >= TIE)
    return (a > 0)[used], (b > 0)[used]


def _margins(model: Model, rollout: Rollout) -> npt.NDArray[np.float64]:
    """Debounced score over the model's own threshold, as a share of the threshold."""
    threshold = model.manifest.thresholds[model.graph.kernel_id].value
    scores = debounce(rollout.score.astype(np.float64), model.manifest.alarm)
    return (scores - threshold) / abs(threshold)


def _next_states(inputs: Mapping[str, Float32], outputs: Mapping[str, Float32]) -> Float32:
    layers = sum(name.startswith("state_") for name in inputs)
    blended = []
    for i in range(layers):
        candidate = outputs[f"candidate_{i}"]
        blended.append(candidate + outputs[f"update_{i}"] * (inputs[f"state_{i}"] - candidate))
    return np.concatenate(blended)


def _open(rollout: Rollout) -> npt.NDArray[np.bool_]:
    """Where a usable reading is trusted, or not used at all: [n, channels]."""
    return (rollout.gate >= 0.5) | (rollout.mask == 0)


def _variances(
    rollouts: Sequence[Rollout], chosen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Mean squared error of the forecast per channel over the `chosen` usable readings."""
    errors = np.concatenate([(r.value - r.forecast) * r.mask for r in rollouts]).astype(np.float64)
    used = np.concatenate([r.mask > 0 for r in rollouts]) & chosen
    return (errors**2 * used).sum(axis=0) / np.maximum(used.sum(axis=0), 1)


def _rms(errors: Float32) -> float:
    return float(np.sqrt((errors.astype(np.float64) ** 2).mean()))
