"""The trained model itself against its exported float twin: is what is compared with what learned?

Training runs whole sequences in TensorFlow; the twin is one exported step inside the device's own
code. Everything between them (the unrolling, the export, the host's arithmetic) is in this check.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from convert.checks.check import Check
from convert.rollout import Rollout
from edge_runtime.detector.cell import Model
from edge_runtime.record import Flag
from train.run_folder import Run

Float32 = npt.NDArray[np.float32]
# Standardised rows [n, channels] and their mask to forecasts and gates [n, channels].
Trained = Callable[[Float32, Float32], tuple[Float32, Float32]]

EXPORT_ROWS = 400
# Training knows no tiers: from the first step that one of them governs, the paths may part.
GOVERNED = Flag.FREE_RUN | Flag.RESYNC | Flag.RESET


def trained_model(run: Run) -> Trained:
    """The model of a run as training runs it."""

    def forward(values: Float32, mask: Float32) -> tuple[Float32, Float32]:
        import tensorflow as tf

        from train.cell import AnomalyGatedGRU
        from train.cell_config import CellConfig
        from train.highway import Highway

        weights = run.weights
        highway = Highway(weights["highway"], weights["cross"])
        gated = np.array([not c.exogenous for c in run.config.channels], np.float32)
        config = CellConfig(**run.config.sizes)
        model = AnomalyGatedGRU(config, highway, weights["innovation_scale"], gated)
        model.assign(weights)
        batch = tf.constant(values[np.newaxis]), tf.constant(mask[np.newaxis])
        out = tf.function(model.call)(*batch)
        return out["forecast"].numpy()[0], out["gate"].numpy()[0]

    return forward


def export_checks(trained: Trained, reference: Model, seen: Rollout) -> list[Check]:
    """The same rows as in `seen`, a rollout of the float twin `reference`, through `trained`."""
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
    """How many steps the rollout began with before a tier took over; at most `EXPORT_ROWS`."""
    records = seen.records[:EXPORT_ROWS]
    return next((i for i, r in enumerate(records) if r.flags & GOVERNED), len(records))
