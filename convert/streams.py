"""The rows a conversion is judged on: held-out clean recordings, and the same with known faults."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Channel
from edge_runtime.detector.inputs import channel_scaler, restored
from train.faults import FaultEvent, inject
from train.prepare import standard_rows
from train.run_folder import Run

Float32 = npt.NDArray[np.float32]
SPACING = 150
# From hardly visible to gross, in channel scales: enough alarms to compare, and misses as well.
FAULT_SIZES = (2.0, 24.0)


@dataclass(frozen=True)
class FaultyRecording:
    """Raw rows [n, channels] with injected faults, and for each row whether one is visible.

    seams: rows at which another recording begins.
    """

    rows: Float32
    faulty: npt.NDArray[np.bool_]
    events: tuple[FaultEvent, ...]
    seams: tuple[int, ...] = ()


def clean_test_rows(run: Run) -> list[Float32]:
    """Test recordings without the rows labelled anomalous; each stretch is a recording."""
    labels = run.labels["test"] or [np.zeros(len(rows), np.int8) for rows in run.rows["test"]]
    pieces = []
    for rows, label in zip(run.rows["test"], labels, strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate([[1], label != 0, [1]])))
        pieces += [rows[a:b] for a, b in edges.reshape(-1, 2)]
    return [piece for piece in pieces if len(piece)]


def faulty_twin(
    recordings: Sequence[Float32],
    channels: tuple[Channel, ...],
    period: float | None,
    innovation_scale: Float32,
    seed: int,
    length: int,
) -> FaultyRecording:
    """Raw clean `recordings`, end to end up to `length` rows, with a fault every 150 rows.

    A row counts as faulty where a reading is at least two innovation scales off or missing, but
    not where all are: nothing was measured there, and nothing is judged.
    """
    scaler = channel_scaler(channels)
    clean = repeated(recordings, length)
    standard = standard_rows([clean], channels, period)
    value, mask = standard.values[0], standard.masks[0]
    count = max(len(clean) // SPACING, 1)
    injection = inject(
        value,
        np.random.default_rng(seed),
        events=(count, count),
        sizes=FAULT_SIZES,
        exogenous=np.array([c.exogenous for c in channels]),
        first=min(SPACING, len(clean) // 4),
        spaced=True,
    )
    raw = restored(injection.values, mask > 0, scaler)
    raw[(mask * injection.mask) == 0] = np.nan
    visible = np.abs(injection.values - value) >= 2 * innovation_scale
    faulty = ((injection.labels > 0) & (visible | (injection.mask == 0))).any(axis=1)
    watched = np.array([not c.exogenous for c in channels])
    faulty &= np.isfinite(raw[:, watched]).any(axis=1)
    return FaultyRecording(raw, faulty, injection.events, seams_of(recordings, len(raw)))


def repeated(recordings: Sequence[Float32], length: int) -> Float32:
    """All `recordings` end to end, over and over, cut to `length` rows.

    The seams are anomalies, of the same kind for every model that is compared.
    """
    joined = np.concatenate(recordings)
    return np.concatenate([joined] * -(-length // len(joined)))[:length]


def seams_of(recordings: Sequence[Float32], length: int) -> tuple[int, ...]:
    """Where in `repeated` of the same arguments another recording begins, but for the first."""
    lengths = list(map(len, recordings)) * -(-length // sum(map(len, recordings)))
    return tuple(int(start) for start in np.cumsum(lengths) if start < length)


def clean_rows(run: Run) -> list[Float32]:
    """All rows a linear model is fitted and cross-fitted on."""
    return [*run.rows["train"], *run.rows["validate"], *run.rows["calibrate"]]
