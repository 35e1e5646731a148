"""Read a recording for a board, and make a long recording with faults from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Manifest
from edge_runtime.record import Float32
from edge_runtime.sources.csvfile import read_table
from edge_runtime.sources.sample_period import check_file_period
from edge_runtime.supervision.injection import Injections, SensorFault

# Each stretch of rows has a fault in one channel, or a drop-out of all.
_STRETCH, _LONGEST = 1000, 150
_KINDS: tuple[Literal["nan", "stuck", "level"], ...] = ("nan", "stuck", "level")
_NOISE = 0.05  # of a channel's scale, so that all repetitions differ


@dataclass(frozen=True)
class BoardRecording:
    """rows: float32 [n, channels] in the bundle's order. times: seconds, None without."""

    rows: Float32
    times: npt.NDArray[np.float64] | None


def read_recording(path: Path, manifest: Manifest) -> BoardRecording:
    """Read the CSV file at `path`; raises the same GruardErrors as `gruard replay`."""
    check_file_period(path, manifest.period, manifest.columns, manifest.channel_names)
    table = read_table(path, manifest.columns, manifest.channel_names, period=manifest.period)
    return BoardRecording(table.values, table.times)


def spoilt(rows: Float32, steps: int, manifest: Manifest, seed: int = 0) -> Float32:
    """Repeat `rows` up to `steps` rows, with noise and one fault in each 1,000 rows."""
    rng = np.random.default_rng(seed)
    scale = np.array([channel.scale for channel in manifest.channels])
    long = np.resize(rows, (steps, rows.shape[1]))
    long = (long + _NOISE * scale * rng.standard_normal(long.shape)).astype(np.float32)
    for start in range(0, steps, _STRETCH):
        stretch = long[start : start + _STRETCH]
        injections = Injections([], _faults(rng, scale))
        stretch[:] = [injections.spoil(place, row) for place, row in enumerate(stretch)]
    return long


def _faults(rng: np.random.Generator, scale: npt.NDArray[np.float64]) -> list[SensorFault]:
    start, count = int(rng.integers(_STRETCH)), int(rng.integers(1, _LONGEST))
    kind = _KINDS[rng.integers(len(_KINDS))]
    everywhere = kind == "nan" and rng.random() < 0.5
    channels = range(len(scale)) if everywhere else [int(rng.integers(len(scale)))]
    amount = float(rng.normal(0, 6))
    return [
        SensorFault(kind, channel, start, count, amount * scale[channel], "")
        for channel in channels
    ]
