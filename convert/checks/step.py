"""One step: the same inputs through both graphs."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from convert.checks.check import Check
from convert.rollout import Rollout
from edge_runtime.detector.cell import Model

Float32 = npt.NDArray[np.float32]

ONE_STEP_SAMPLES = 400  # of each rollout


def one_step_checks(quantised: Model, reference: Model, *seen: Rollout) -> list[Check]:
    """The inputs of the rollouts `seen` through both graphs once; errors in innovation scales."""
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
    """Graph inputs of steps that lie evenly in the rollout."""
    count = len(rollout.inputs)
    picked = np.linspace(0, count - 1, min(ONE_STEP_SAMPLES, count))
    return [rollout.inputs[int(i)] for i in picked]


def _next_states(inputs: Mapping[str, Float32], outputs: Mapping[str, Float32]) -> Float32:
    layers = sum(name.startswith("state_") for name in inputs)
    blended = []
    for i in range(layers):
        candidate = outputs[f"candidate_{i}"]
        blended.append(candidate + outputs[f"update_{i}"] * (inputs[f"state_{i}"] - candidate))
    return np.concatenate(blended)


def _rms(errors: Float32) -> float:
    return float(np.sqrt((errors.astype(np.float64) ** 2).mean()))
