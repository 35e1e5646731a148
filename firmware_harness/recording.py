"""A recording's rows as the board takes them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Manifest
from edge_runtime.record import Float32
from edge_runtime.sources.csvfile import channel_order, read_table
from edge_runtime.sources.sample_period import check_file_period


@dataclass(frozen=True)
class Recording:
    """rows: float32 [n, channels] in the bundle's order. times: seconds, None without."""

    rows: Float32
    times: npt.NDArray[np.float64] | None


def read_recording(path: Path, manifest: Manifest) -> Recording:
    """The CSV file at `path`; GruardError as `gruard replay` has it."""
    check_file_period(path, manifest.period)
    table = read_table(path)
    order = channel_order(table.channels, manifest.channel_names, path)
    return Recording(table.values[:, order], table.times)
