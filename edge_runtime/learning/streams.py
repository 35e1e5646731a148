"""The rows a conversion is judged on: held-out clean recordings, also with injected faults."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Channel
from edge_runtime.detector.inputs import channel_scaler, restored
from edge_runtime.learning.faults import FaultEvent, inject
from edge_runtime.learning.prepare import standard_rows
from edge_runtime.learning.run import Run
from edge_runtime.learning.thinning import Span, fitted_rows, fitted_spans, rest_spans

Float32 = npt.NDArray[np.float32]
SPACING = 150
# From hardly visible to gross, in channel scales: enough alarms to compare, and misses as well.
FAULT_SIZES = (2.0, 24.0)
FEWEST_JUDGED = 2000  # rows of a run
FAULTY_ROWS = 4000  # of the stream with injected faults
ROLLOUT_STEPS = 4000  # of a free rollout over clean rows


@dataclass(frozen=True)
class FaultyRecording:
    """Raw rows [n, channels] with anomalies, and for each row whether an anomaly is visible.

    seams: rows at which another recording begins.
    """

    rows: Float32
    faulty: npt.NDArray[np.bool_]
    events: tuple[FaultEvent, ...]
    seams: tuple[int, ...] = ()


def faulty_twin_of_run(run: Run, clean: Sequence[Float32]) -> FaultyRecording:
    """Return the `faulty_twin` of `clean` rows that the conversion of `run` is judged on."""
    scale, seed = run.weights["innovation_scale"], run.config.seed + 1
    return faulty_twin(clean, run.config.channels, run.config.period, scale, seed, FAULTY_ROWS)


def clean_test_rows(run: Run) -> list[Float32]:
    """Return test recordings without the rows labelled anomalous; each stretch is a recording."""
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
    """Join raw clean `recordings` up to `length` rows and inject a fault every 150 rows.

    A row counts as faulty if a reading is at least two innovation scales off or missing. It does
    not count if all watched readings are missing, because nothing is scored there.
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
    """Repeat all `recordings`, end to end, up to `length` rows.

    The seams are anomalies, the same ones for every model that is compared.
    """
    joined = np.concatenate(recordings)
    return np.concatenate([joined] * -(-length // len(joined)))[:length]


def seams_of(recordings: Sequence[Float32], length: int) -> tuple[int, ...]:
    """Return the rows of `repeated` at which another recording begins, without row 0."""
    lengths = list(map(len, recordings)) * -(-length // sum(map(len, recordings)))
    return tuple(int(start) for start in np.cumsum(lengths) if start < length)


def clean_rows(run: Run) -> list[Float32]:
    """Return all rows that a linear model is fitted and cross-fitted on."""
    return [*run.rows["train"], *run.rows["validate"], *run.rows["calibrate"]]


def fitted_and_rest(run: Run) -> tuple[list[Span], list[Span]]:
    """Return the spans of `clean_rows` that a linear detector is fitted on, and those between."""
    lengths = list(map(len, clean_rows(run)))
    if run.every:
        return [(number, 0, length) for number, length in enumerate(lengths) if length], []
    return fitted_spans(lengths), rest_spans(lengths)


def held_out(run: Run) -> list[Float32]:
    """Return clean rows that neither training nor scaling used: calibration and clean test rows."""
    return [*run.rows["calibrate"], *clean_test_rows(run)]


def clean_judged_rows(run: Run) -> list[Float32]:
    """Return rows to compare int8 and float on: held-out rows, plus training rows if too few.

    Only the arithmetic is compared, so rows of the training part are as good as held-out ones, and
    better than a few rows repeated many times.
    """
    rows = held_out(run)
    missing = FEWEST_JUDGED - sum(map(len, rows))
    for recording in reversed(run.rows["train"]):
        if missing <= 0:
            break
        rows.append(recording[-missing:])
        missing -= len(rows[-1])
    return rows


def clean_samples(run: Run) -> dict[str, Float32]:
    """Return the arrays of calibration.npz: standardised clean rows, and which are usable."""
    calibrate = fitted_rows(run.rows["calibrate"])
    rows = standard_rows(calibrate, run.config.channels, run.config.period)
    arrays = {f"value/{i:03d}": value for i, value in enumerate(rows.values)}
    return arrays | {f"mask/{i:03d}": mask for i, mask in enumerate(rows.masks)}
