"""The run folder: what training hands to conversion. Every file is written atomically.

config.json    channels with scaler and rules, sizes, seed, fingerprint of the data
weights.npz    the model's arrays by name, with highway and innovation_scale
rows.npz       the split rows in raw units, PART/NUMBER, and their labels
metrics.json   what training measured; learning.png is its picture
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Channel, Place
from edge_runtime.columns import Columns
from edge_runtime.errors import GruardError
from edge_runtime.learning.run import Config, Run, json_bytes, npz_bytes
from edge_runtime.learning.split import Split

Float32 = npt.NDArray[np.float32]
PARTS = ("train", "validate", "calibrate", "test")


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file next to `path`, sync it, then rename it to `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise GruardError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


def save_arrays(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write arrays as .npz, atomically."""
    write_atomically(path, npz_bytes(arrays))


def save_rows(path: Path, split: Split) -> None:
    """Write the split rows and, if they exist, their labels."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for part in PARTS:
        for number, recording in enumerate(getattr(split, part)):
            arrays[f"{part}/{number:03d}"] = recording.values
            if recording.labels is not None:
                arrays[f"labels-{part}/{number:03d}"] = recording.labels.astype(np.int8)
    save_arrays(path / "rows.npz", arrays)


def save_config(path: Path, config: Config) -> None:
    """Write config.json."""
    write_atomically(path / "config.json", json_bytes(asdict(config)))


def read_run(path: Path) -> Run:
    """Read the finished run at `path`. GruardError names what is missing or damaged."""
    if not (path / "weights.npz").is_file():
        state = "training has not finished: run the same train command again to resume"
        hint = (
            state if (path / "checkpoint.npz").is_file() else "give the --out folder of train fit"
        )
        raise GruardError(f"{path}: not a finished run; {hint}")
    config = read_config(path)
    weights = read_arrays(path / "weights.npz", "train again")
    stored = read_arrays(path / "rows.npz", "train again")
    digest = hashlib.sha256(npz_bytes(weights)).hexdigest()

    def rows_of(prefix: str) -> list[npt.NDArray[Any]]:
        return [stored[name] for name in sorted(stored) if name.startswith(prefix)]

    return Run(
        path=path,
        config=config,
        weights=weights,
        weights_sha256=digest,
        rows={part: rows_of(f"{part}/") for part in PARTS},
        labels={part: rows_of(f"labels-{part}/") for part in PARTS},
    )


def read_config(path: Path) -> Config:
    """Read config.json of a run folder."""
    file = path / "config.json"
    try:
        data = json.loads(file.read_text())
        channels = tuple(_channel(**channel) for channel in data.pop("channels"))
        columns = _columns(**data.pop("columns", {}))
        strange = tuple(data.pop("strange", ()))
        return Config(channels=channels, columns=columns, strange=strange, **data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise GruardError(f"{file}: unreadable ({error}); train again") from None


def _columns(counters: Sequence[str] = (), **rest: Any) -> Columns:
    return Columns(counters=tuple(counters), **rest)


def _channel(modes: Sequence[Mapping[str, float]] = (), **rest: Any) -> Channel:
    return Channel(modes=tuple(Place(**place) for place in modes), **rest)


def read_arrays(file: Path, advice: str) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an .npz file. If it is damaged, raise a GruardError ending in `advice`."""
    try:
        data = file.read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        # A damaged directory may hide members; its last record contains their number.
        if len(arrays) != int.from_bytes(data[-12:-10], "little"):
            raise ValueError("members are missing")
        return arrays
    except Exception as error:
        # numpy, zipfile and zlib raise many exception types for damaged archives.
        raise GruardError(f"{file}: unreadable ({error}); {advice}") from None
