"""Checks of the arithmetic: do the exported models compute what was trained?

export   The trained model against its exported float twin. Training runs whole sequences in
         TensorFlow; the twin is one exported step in the runtime. The check covers everything
         between them: unrolling, export, host arithmetic.
one step The same inputs through the int8 and the float graph once.
rollout  Both models run freely. Their states agree closely until a gate opens in one arithmetic and
         not in the other; then they differ until the state has forgotten it. A mean hides that, so
         bursts are reported as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convert.metrics import intervals
from edge_runtime.detector.cell import Model
from edge_runtime.learning.check import Check
from edge_runtime.learning.rollout import Rollout, inputs_at, roll
from edge_runtime.learning.run import Run
from edge_runtime.record import Flag

Float32 = npt.NDArray[np.float32]
# Standardised rows [n, channels] and their mask to forecasts and gates [n, channels].
Trained = Callable[[Float32, Float32], tuple[Float32, Float32]]
EXPORT_ROWS = 400
# Training has no tiers: from the first step with one of these flags on, the forecasts may differ.
GOVERNED = Flag.FREE_RUN | Flag.RESYNC | Flag.RESET
ONE_STEP_SAMPLES = 400  # of each rollout
Float64 = npt.NDArray[np.float64]
TOLERANCE = 0.05  # of the state, which lies within -1 and 1
EDGE = 400  # rows at the end of the first and last pass whose state errors are compared
# An absolute state error this small is rounding noise; its growth means nothing.
STATE_NOISE = 0.005


def trained_model(run: Run) -> Trained:
    """Return the model of a run as training runs it."""

    def forward(values: Float32, mask: Float32) -> tuple[Float32, Float32]:
        import tensorflow as tf

        from edge_runtime.learning.highway import Highway
        from train.cell import AnomalyGatedGRU
        from train.cell_config import CellConfig

        weights = run.weights
        highway = Highway(weights["highway"], weights["cross"])
        gated = np.array([not c.exogenous for c in run.config.channels], np.float32)
        config = CellConfig(**run.config.sizes)
        model = AnomalyGatedGRU(config, highway, weights["innovation_scale"], gated)
        model.assign(weights)
        batch = tf.constant(values[np.newaxis]), tf.constant(mask[np.newaxis])
        out = tf.function(model.call, autograph=False)(*batch)
        return out["forecast"].numpy()[0], out["gate"].numpy()[0]

    return forward


def export_checks(trained: Trained, reference: Model, seen: Rollout) -> list[Check]:
    """Compare `trained` with `seen`, a rollout of the float twin `reference`, on the same rows."""
    rows = _ungoverned(seen)
    forecast, gate = trained(seen.value[:rows], seen.mask[:rows])
    errors = np.abs(forecast - seen.forecast[:rows]) / reference.innovation_scale
    names = reference.manifest.channel_names
    meaning, worst = f"innovation scales, {rows} steps", names[int(errors.max(axis=0).argmax())]
    checks = [Check("export: forecast, max", float(errors.max()), 0, 0.01, meaning, worst)]
    if reference.graph.gated:
        apart = np.abs(gate - seen.gate[:rows])
        worst = names[int(apart.max(axis=0).argmax())]
        unit = "trust in a reading, 0 to 1"
        checks.append(Check("export: gate, max", float(apart.max()), 0, 0.005, unit, worst))
    return checks


def _ungoverned(seen: Rollout) -> int:
    """Return the number of steps before the first flag of `GOVERNED`; at most `EXPORT_ROWS`."""
    governed = np.flatnonzero(seen.flags[:EXPORT_ROWS] & GOVERNED)
    return int(governed[0]) if len(governed) else len(seen.flags[:EXPORT_ROWS])


def one_step_checks(quantised: Model, reference: Model, *seen: Rollout) -> list[Check]:
    """Run inputs of the rollouts `seen` through both graphs once; errors in innovation scales."""
    inputs = [step for rollout in seen for step in _spread(rollout)]
    pairs = [(quantised.graph(i), reference.graph(i)) for i in inputs]
    names = quantised.manifest.channel_names

    def errors(value: Callable[[Mapping[str, Float32], Mapping[str, Float32]], Float32]) -> Float32:
        return np.array(
            [value(i, a) - value(i, b) for i, (a, b) in zip(inputs, pairs, strict=True)]
        )

    def worst(of: Float32) -> str:
        return names[int(np.abs(of).max(axis=0).argmax())]

    checks = []
    if quantised.graph.gated:
        gate = errors(lambda _, out: out["gate_next"])
        largest, unit = float(np.abs(gate).max()), "trust in a reading, 0 to 1"
        checks += [Check("one step: gate, max", largest, 0, 0.06, unit, worst(gate))]
    if quantised.graph.state_sizes:
        forecast = errors(lambda _, out: out["correction"])
        largest, unit = float(np.abs(forecast).max()), "innovation scales"
        noisiest = names[int((forecast.astype(np.float64) ** 2).sum(axis=0).argmax())]
        state = _rms(errors(_next_states))
        checks += [
            Check("one step: forecast, RMS", _rms(forecast), 0, 0.08, unit, noisiest),
            Check("one step: forecast, max", largest, 0, 0.5, unit, worst(forecast)),
            Check("one step: state, RMS", state, 0, 0.02, "state, -1 to 1"),
        ]
    return checks


def _spread(rollout: Rollout) -> list[Mapping[str, Float32]]:
    """Return the graph inputs of evenly spaced steps of the rollout."""
    count = len(rollout.score)
    picked = np.linspace(0, count - 1, min(ONE_STEP_SAMPLES, count))
    return inputs_at(rollout, picked.astype(int))


def _next_states(inputs: Mapping[str, Float32], outputs: Mapping[str, Float32]) -> Float32:
    layers = sum(name.startswith("state_") for name in inputs)
    blended = []
    for i in range(layers):
        candidate = outputs[f"candidate_{i}"]
        blended.append(candidate + outputs[f"update_{i}"] * (inputs[f"state_{i}"] - candidate))
    return np.concatenate(blended)


@dataclass(frozen=True)
class Bursts:
    """Stretches of steps whose state error is over the tolerance.

    rms: over all steps. count, longest: how many stretches, and the steps of the longest.
    largest: the largest error of one step, which is the step `at`.
    """

    stream: str
    steps: int
    rms: float
    count: int
    longest: int
    largest: float
    at: int

    def sentence(self) -> str:
        """Describe the bursts in one sentence."""
        if not self.count:
            return f"{self.stream}: no step over {TOLERANCE:g}, largest error {self.largest:.3f}"
        stretches = "one stretch" if self.count == 1 else f"{self.count} stretches"
        return (
            f"{self.stream}: {stretches} over {TOLERANCE:g}, the longest {self.longest} steps; "
            f"largest error {self.largest:.3f} at step {self.at}"
        )


def states_along(model: Model, rows: Float32) -> Float32:
    """Return the recurrent state [n, all units] after each raw row, from a fresh state."""
    return roll(model, rows).hidden


def state_errors(a: Float32, b: Float32) -> Float64:
    """Return for each step the RMS over the units of the difference of two runs of states: [n]."""
    squares = (a - b).astype(np.float64) ** 2
    return np.sqrt(squares.sum(axis=1) / max(squares.shape[1], 1))


def bursts_of(stream: str, errors: Float64) -> Bursts:
    """Find the stretches of `errors` [n] over the tolerance."""
    over = intervals(errors > TOLERANCE)
    return Bursts(
        stream=stream,
        steps=len(errors),
        rms=_rms(errors),
        count=len(over),
        longest=max((stop - start for start, stop in over), default=0),
        largest=float(errors.max()),
        at=int(errors.argmax()),
    )


def rollout_checks(errors: Float64, content: int) -> list[Check]:
    """Check the state errors [n] of a free rollout over clean rows.

    The rollout repeats the same `content` rows. The end of its last pass is compared with the same
    rows in its first pass, so that only drift, not the rows, makes a difference.
    """
    edge = min(EDGE, content // 2)
    start, end = _rms(errors[content - edge : content]), _rms(errors[-edge:])
    growth = max(end, STATE_NOISE) / max(start, STATE_NOISE)
    return [
        Check("rollout: state, RMS", _rms(errors), 0, TOLERANCE, f"over {len(errors)} steps"),
        Check("rollout: state, last pass over first", float(growth), 0, 1.5, "no drift apart"),
    ]


def state_check(stream: str, errors: Float64) -> Check:
    """Check the state errors [n] of a stream with anomalies, where gates open and close."""
    return Check(f"{stream}: state, RMS", _rms(errors), 0, TOLERANCE, f"over {len(errors)} steps")


def _rms(errors: Float32 | Float64) -> float:
    return float(np.sqrt((errors.astype(np.float64) ** 2).mean()))
