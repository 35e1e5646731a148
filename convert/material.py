"""The rows on which a model is judged: those of its run, or those of another recording."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convert.metrics import intervals
from convert.streams import FaultyRecording, clean_test_rows, faulty_twin
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.errors import GruardError
from edge_runtime.sources.sample_period import check_file_period
from train.prepare import require_readings
from train.recording import Recording, read_recordings
from train.run_folder import Run
from train.split import clean_parts

Float32 = npt.NDArray[np.float32]

FEWEST_JUDGED = 2000  # rows of a run
FAULTY_ROWS = 4000  # of the stream with injected faults
FEWEST_ROWS = 400  # of a recording that is to judge a model
MARGIN = 128  # rows around an anomaly that do not count as clean
MOST_CLEAN = 8000


@dataclass(frozen=True)
class Material:
    """Raw rows to judge on; labelled: recorded anomalies, None where there are none."""

    clean: Sequence[Float32]
    faulty: FaultyRecording
    labelled: FaultyRecording | None = None


def material_of_run(run: Run) -> Material:
    """What the conversion of `run` is judged on."""
    clean = judged_rows(run)
    scale, seed = run.weights["innovation_scale"], run.config.seed + 1
    twin = faulty_twin(clean, run.config.channels, run.config.period, scale, seed, FAULTY_ROWS)
    labels = run.labels["test"]
    return Material(clean, twin, labelled_stream(run.rows["test"], labels) if labels else None)


def held_out(run: Run) -> list[Float32]:
    """Clean rows that neither training nor scaling saw: calibration and clean test rows."""
    return [*run.rows["calibrate"], *clean_test_rows(run)]


def judged_rows(run: Run) -> list[Float32]:
    """Rows to compare int8 and float on: held-out ones, and the latest training rows if too few.

    It is the arithmetic that is compared, so rows that training saw do no harm; a handful of rows
    repeated for ever would.
    """
    rows = held_out(run)
    missing = FEWEST_JUDGED - sum(map(len, rows))
    for recording in reversed(run.rows["train"]):
        if missing <= 0:
            break
        rows.append(recording[-missing:])
        missing -= len(rows[-1])
    return rows


def material_of_file(file: Path, manifest: Manifest) -> Material:
    """The recording in the CSV `file` as material for the bundle of `manifest`.

    Rows without a label count as clean; the first `MOST_CLEAN` clean rows are used. Raises
    GruardError for a file of other channels or another sample period, and for one that is too
    short.
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
    return Material(clean, twin, labelled_stream([r.values for r in marked], labels))


def _clean(recordings: Sequence[Recording]) -> list[Float32]:
    pieces, room = [], MOST_CLEAN
    for recording in recordings:
        for piece in clean_parts(recording, MARGIN):
            pieces.append(piece.values[:room])
            room -= len(pieces[-1])
    return [piece for piece in pieces if len(piece)]


LEAD = 200  # rows before an anomaly, for the model to settle in
TAIL = 50
LONGEST = 4000


def labelled_stream(
    recordings: Sequence[Float32], labels: Sequence[npt.NDArray[np.int8]]
) -> FaultyRecording | None:
    """The surroundings of all labelled rows, end to end, `LONGEST` rows at most; None without any.

    recordings: raw rows [n, channels]; labels: [n], not 0 where anomalous. The seams are anomalies
    of the same kind for every model that is compared.
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
