"""A threshold for the arithmetic of this machine, from clean samples run through the detector."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.bundle.reader import Bundle
from edge_runtime.calibration.calibration import Calibration, calibrate, margins_of
from edge_runtime.detector.detector import StepDetector
from edge_runtime.detector.standardise import channel_scaler, restored
from edge_runtime.errors import GruardError
from edge_runtime.record import Float32, Sample
from edge_runtime.sources.csvfile import read_table
from edge_runtime.sources.sample_period import check_file_period

HELD_OUT = 0.3  # the share of scores, the latest, that the threshold is checked on


@dataclass(frozen=True)
class Rows:
    """Clean recordings in raw units, each float32 [n, channels], and where they come from."""

    recordings: Sequence[Float32]
    source: str

    def __len__(self) -> int:
        return sum(map(len, self.recordings))


def rows_of_file(file: Path, bundle: Bundle) -> Rows:
    """A clean recording of the bundle's machine.

    Raises GruardError for other channels, another sample period, and rows labelled anomalous.
    """
    check_file_period(file, bundle.manifest.period)
    table = read_table(file, channels=bundle.manifest.channel_names)
    if table.labels is not None and (table.labels > 0).any():
        first = int(np.flatnonzero(table.labels > 0)[0])
        raise GruardError(
            f"{file}: row {first + 1} is labelled anomalous; calibrate on a recording of the "
            "healthy machine alone"
        )
    return Rows([table.values], str(file))


def rows_of_bundle(bundle: Bundle) -> Rows:
    """The bundle's own clean samples, back in raw units."""
    arrays = bundle.arrays("calibration.npz")
    scaler = channel_scaler(bundle.manifest.channels)
    recordings = []
    for name in sorted(name for name in arrays if name.startswith("value/")):
        value, mask = arrays[name], arrays.get("mask/" + name.removeprefix("value/"))
        shape = (*value.shape[:1], len(bundle.manifest.channels))
        if mask is None or value.shape != shape or mask.shape != shape:
            raise GruardError(f"{bundle.path / 'calibration.npz'}: not samples of this model")
        raw = restored(value, mask > 0, scaler)
        recordings.append(np.where(mask > 0, raw, np.float32(np.nan)))
    return Rows(recordings, "the bundle's own clean samples")


def scores(detector: StepDetector, rows: Rows) -> Iterator[float | None]:
    """The detector's score of every row, None while it has not settled; a reset a recording."""
    index = 0
    for recording in rows.recordings:
        detector.reset()
        for values in recording:
            record = detector.step(Sample(index, None, values))
            yield record.score if record.tier != 3 else None
            index += 1


def calibration_from(
    found: Sequence[float | None], bundle: Bundle, wished_per_day: float
) -> Calibration:
    """The threshold from clean scores in time order; the latest of them check it."""
    settled = np.array([score for score in found if score is not None], np.float64)
    cut = len(settled) - round(HELD_OUT * len(settled))
    manifest = bundle.manifest
    parts = [settled[:cut]], [settled[cut:]]
    margins = margins_of(manifest)
    return calibrate(*parts, wished_per_day, manifest.period, manifest.alarm, margins)
