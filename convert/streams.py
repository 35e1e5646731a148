"""The rows a conversion is judged on: held-out clean recordings, with injected faults, and recorded
anomalies. They come from the run or from another recording.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convert.metrics import intervals
from edge_runtime.bundle.manifest import Channel, Manifest
from edge_runtime.detector.inputs import channel_scaler, restored
from edge_runtime.errors import GruardError
from edge_runtime.sources.sample_period import check_file_period
from train.faults import FaultEvent, inject
from train.prepare import require_readings, standard_rows
from train.recording import Recording, read_recordings
from train.run_folder import Run
from train.split import clean_parts

Float32 = npt.NDArray[np.float32]
SPACING = 150
# From hardly visible to gross, in channel scales: enough alarms to compare, and misses as well.
FAULT_SIZES = (2.0, 24.0)
FEWEST_JUDGED = 2000  # rows of a run
FAULTY_ROWS = 4000  # of the stream with injected faults
FEWEST_ROWS = 400  # clean rows of a recording to judge a model on
MARGIN = 128  # rows around an anomaly that do not count as clean
MOST_CLEAN = 8000
LEAD = 200  # rows before an anomaly, for the model to settle in
TAIL = 50
LONGEST = 4000


@dataclass(frozen=True)
class FaultyRecording:
    """Raw rows [n, channels] with anomalies, and for each row whether an anomaly is visible.

    seams: rows at which another recording begins.
    """

    rows: Float32
    faulty: npt.NDArray[np.bool_]
    events: tuple[FaultEvent, ...]
    seams: tuple[int, ...] = ()


@dataclass(frozen=True)
class JudgedRows:
    """Raw rows to judge a model on. labelled: recorded anomalies, None without any."""

    clean: Sequence[Float32]
    faulty: FaultyRecording
    labelled: FaultyRecording | None = None


def judged_rows_of_run(run: Run) -> JudgedRows:
    """Return the rows that the conversion of `run` is judged on."""
    clean = clean_judged_rows(run)
    scale, seed = run.weights["innovation_scale"], run.config.seed + 1
    twin = faulty_twin(clean, run.config.channels, run.config.period, scale, seed, FAULTY_ROWS)
    labels = run.labels["test"]
    return JudgedRows(clean, twin, labelled_stream(run.rows["test"], labels) if labels else None)


def judged_rows_of_file(file: Path, manifest: Manifest) -> JudgedRows:
    """Read the rows to judge the bundle of `manifest` on from the CSV `file`.

    Rows without a label count as clean; the first `MOST_CLEAN` clean rows are used. Raises
    GruardError for a file with other channels, another sample period, or too few clean rows.
    """
    check_file_period(file, manifest.period)
    dataset = read_recordings([file], manifest.period, channels=manifest.channel_names)
    require_readings(dataset.recordings)
    clean = _clean(dataset.recordings)
    if sum(map(len, clean)) < FEWEST_ROWS:
        raise GruardError(
            f"{file}: only {sum(map(len, clean))} clean rows; give a recording of at least "
            f"{FEWEST_ROWS} clean rows"
        )
    scale = np.array(manifest.forecast.innovation_scale, np.float32)
    seed = manifest.provenance.seed + 1
    twin = faulty_twin(clean, manifest.channels, manifest.period, scale, seed, FAULTY_ROWS)
    marked = [r for r in dataset.recordings if r.labels is not None]
    labels = [r.labels for r in marked if r.labels is not None]
    return JudgedRows(clean, twin, labelled_stream([r.values for r in marked], labels))


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


def _clean(recordings: Sequence[Recording]) -> list[Float32]:
    pieces, room = [], MOST_CLEAN
    for recording in recordings:
        for piece in clean_parts(recording, MARGIN):
            pieces.append(piece.values[:room])
            room -= len(pieces[-1])
    return [piece for piece in pieces if len(piece)]


def labelled_stream(
    recordings: Sequence[Float32], labels: Sequence[npt.NDArray[np.int8]]
) -> FaultyRecording | None:
    """Join all labelled rows with their surroundings, up to `LONGEST` rows; None without labels.

    recordings: raw rows [n, channels]; labels: [n], not 0 where anomalous. The seams are anomalies,
    the same ones for every model that is compared.
    """
    rows, faulty = [], []
    for values, label in zip(recordings, labels, strict=True):
        near = np.zeros(len(values), bool)
        for start, stop in intervals(label != 0):
            near[max(start - LEAD, 0) : stop + TAIL] = True
        rows.append(values[near])
        faulty.append(label[near] != 0)
    if not any(flags.any() for flags in faulty):
        return None
    return FaultyRecording(np.concatenate(rows)[:LONGEST], np.concatenate(faulty)[:LONGEST], ())
