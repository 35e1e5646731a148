"""A trained model with the rows behind it, and the bytes that it is stored in."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Channel
from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.record import Float32


@dataclass(frozen=True)
class Config:
    """Everything that conversion needs besides arrays. `sizes` are those of CellConfig.

    selection: average precision of the candidates that were judged, by name; empty when --model
    named the model. taught: labelled stretches that the gate learned from, 0 without a gate.
    strange: a sentence for each stretch of the recordings that is unlike the rest.
    """

    name: str
    period: float | None
    channels: tuple[Channel, ...]
    sizes: dict[str, Any]
    seed: int
    data_sha256: str
    selection: Mapping[str, float] = field(default_factory=dict)
    taught: int = 0
    strange: tuple[str, ...] = ()
    columns: Columns = NOTHING_SAID


@dataclass(frozen=True)
class Run:
    """A trained model. rows[part] is a list of raw float32 [n, channels]; labels likewise.

    path: of the run folder, or of the recording if there is none. every: whether a linear detector
    is fitted on all clean rows, however many (see `learning.thinning`).
    """

    path: Path
    config: Config
    weights: dict[str, Float32]
    weights_sha256: str
    rows: dict[str, list[Float32]]
    labels: dict[str, list[npt.NDArray[np.int8]]]
    every: bool = False


def json_bytes(data: Any) -> bytes:
    """Return `data` as indented JSON with sorted keys."""
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def npz_bytes(arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """Return an .npz archive whose bytes depend only on the arrays (numpy's contains the time)."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            array = np.asarray(arrays[name], order="C")
            np.lib.format.write_array(member, array, version=(1, 0))  # type: ignore[no-untyped-call]
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def tool_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those of `packages` that are installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
