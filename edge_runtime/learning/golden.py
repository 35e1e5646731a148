"""The recording of a bundle's golden vectors, and the answers of the shipping model to it.

The recording covers all three tiers: clean rows until shortly after the model has settled, one
fault of every kind, an outage longer than bridge and free run, then clean rows until the recurrent
unit has re-synchronised.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Manifest
from edge_runtime.detector.cell import Model
from edge_runtime.detector.golden import FEWEST_STEPS, MOST_STEPS, ROWS, THRESHOLD, replay
from edge_runtime.detector.inputs import channel_scaler, restored
from edge_runtime.learning.draft import no_threshold
from edge_runtime.learning.faults import ALL, inject
from edge_runtime.learning.prepare import standard_rows
from edge_runtime.learning.rollout import roll
from edge_runtime.learning.streams import repeated

Float32 = npt.NDArray[np.float32]

SETTLED = 24  # clean rows between the warm-up and the first fault
SLOT = 24  # rows for each kind of fault
LENGTHS = (6, 12)  # of a fault that is not a spike
SIZES = (4.0, 12.0)  # of a fault, in channel scales
BLIND = 4  # rows of an outage beyond the bound of its free run
SLACK = 16  # clean rows after the last re-synchronisation
# Of the settled scores: low enough that alarms come and go, whatever the real threshold is.
ALARM_QUANTILE, CLEAR_QUANTILE = 0.7, 0.6


def golden_vectors(
    model: Model, recordings: Sequence[Float32], seed: int
) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of `golden.npz` of the model that ships.

    recordings: raw clean rows [n, channels]. The answers include the diagnosis, so `model` must
    contain the final one.
    """
    rows = golden_rows(model.manifest, recordings, seed)
    threshold = _threshold(model, rows)
    steps = list(replay(model, rows, threshold))
    answers = {name: np.array([step[name] for step in steps]) for name in steps[0]}
    return {ROWS: rows, THRESHOLD: threshold, **answers}


def golden_rows(manifest: Manifest, recordings: Sequence[Float32], seed: int) -> Float32:
    """Return raw rows [n, channels] with one fault of every kind, reproducibly from `seed`."""
    rng, tiers = np.random.default_rng(seed), manifest.tiers
    settled = tiers.warmup + SETTLED
    faulty = settled + SLOT * len(ALL)
    outage = tiers.bridge + tiers.free_run_limit + BLIND
    length = faulty + outage + tiers.resync_all + SLACK
    rows = repeated(recordings, min(max(length, FEWEST_STEPS), MOST_STEPS)).copy()
    standard = standard_rows([rows], manifest.channels, manifest.period)
    value, mask = standard.values[0], standard.masks[0] > 0
    scaler = channel_scaler(manifest.channels)
    exogenous = np.array([channel.exogenous for channel in manifest.channels])
    for number, kind in enumerate(ALL):
        slot = slice(settled + SLOT * number, settled + SLOT * (number + 1))
        found = inject(
            value[slot], rng, kinds=(kind,), events=(1, 1), sizes=SIZES, lengths=LENGTHS,
            exogenous=exogenous, first=SLOT // 4, spaced=True,
        )  # fmt: skip
        raw = restored(found.values, mask[slot], scaler)
        # All other readings keep their bits.
        rows[slot] = np.where(found.values != value[slot], raw, rows[slot])
        rows[slot][found.mask == 0] = np.nan
    rows[faulty : faulty + outage] = np.nan
    return rows


def _threshold(model: Model, rows: Float32) -> npt.NDArray[np.float64]:
    never = replace(model.manifest, thresholds={model.graph.kernel_id: no_threshold()})
    scores = roll(replace(model, manifest=never), rows).score[model.manifest.tiers.warmup :]
    levels = np.quantile(scores, [ALARM_QUANTILE, CLEAR_QUANTILE])
    return np.asarray(levels.astype(np.float32), np.float64)
