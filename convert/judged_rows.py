"""The rows that a model is judged on: of its run, or of another recording."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convert.metrics import intervals
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.errors import GruardError
from edge_runtime.learning import streams
from edge_runtime.learning.prepare import unread
from edge_runtime.learning.recording import Recording, bridged, read_recordings
from edge_runtime.learning.run import Run
from edge_runtime.learning.split import clean_parts
from edge_runtime.learning.streams import (
    FaultyRecording,
    clean_judged_rows,
    faulty_twin,
    faulty_twin_of_run,
)
from edge_runtime.sources.sample_period import check_file_period

Float32 = npt.NDArray[np.float32]
FEWEST_ROWS = 400  # clean rows of a recording to judge a model on
MARGIN = 128  # rows around an anomaly that do not count as clean
MOST_CLEAN = 8000
LEAD = 200  # rows before an anomaly, for the model to settle in
TAIL = 50
LONGEST = 4000


@dataclass(frozen=True)
class JudgedRows:
    """Raw rows to judge a model on. labelled: recorded anomalies, None without any."""

    clean: Sequence[Float32]
    faulty: FaultyRecording
    labelled: FaultyRecording | None = None


def judged_rows_of_run(run: Run) -> JudgedRows:
    """Return the rows that the conversion of `run` is judged on."""
    clean = clean_judged_rows(run)
    twin, labels = faulty_twin_of_run(run, clean), run.labels["test"]
    return JudgedRows(clean, twin, labelled_stream(run.rows["test"], labels) if labels else None)


def judged_rows_of_file(file: Path, manifest: Manifest) -> JudgedRows:
    """Read the rows to judge the bundle of `manifest` on from the CSV `file`.

    Rows without a label count as clean; the first `MOST_CLEAN` clean rows are used. Raises
    GruardError for a file with other channels, another sample period, or too few clean rows.
    """
    said, channels = manifest.columns, manifest.channel_names
    check_file_period(file, manifest.period, said, channels)
    dataset = bridged(read_recordings([file], manifest.period, said, channels))
    if missing := unread(dataset.recordings):
        raise GruardError(f"{file}: channel '{missing[0]}' has no reading; record it, too")
    clean = _clean(dataset.recordings)
    if sum(map(len, clean)) < FEWEST_ROWS:
        raise GruardError(
            f"{file}: only {sum(map(len, clean))} clean rows; give a recording of at least "
            f"{FEWEST_ROWS} clean rows"
        )
    scale = np.array(manifest.forecast.innovation_scale, np.float32)
    seed = manifest.provenance.seed + 1
    twin = faulty_twin(clean, manifest.channels, manifest.period, scale, seed, streams.FAULTY_ROWS)
    marked = [r for r in dataset.recordings if r.labels is not None]
    labels = [r.labels for r in marked if r.labels is not None]
    return JudgedRows(clean, twin, labelled_stream([r.values for r in marked], labels))


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
