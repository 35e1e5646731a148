"""A training request and the data it names: read, checked and split.

Columns without a signal (text, empty, constant, counting) are left out. Nothing here imports
TensorFlow, so bad input is refused before TensorFlow loads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.errors import GruardError
from train.prepare import require_readings
from train.recording import Dataset, Recording, expand, read_recordings, require_rows
from train.settings import Settings, declared, find_settings, load_settings
from train.split import Split, split_by_time

if TYPE_CHECKING:
    from train.model_choice import Model
from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from edge_runtime.record import Float32

MINIMUM_ROWS = 150
# The state forgets within some tens of samples; parts this far apart share nothing.
LARGEST_GAP = 128
FEWEST_RISES = 20
"""A column that moves this often in one direction only is a counter; a switch moves less often."""
_SHOWN = 20  # characters of a cell


@dataclass(frozen=True)
class Request:
    """The user's request. Empty `calibrate` and `test`: split by time."""

    data: tuple[Path, ...]
    out: Path
    name: str
    calibrate: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    settings: Path | None = None
    period: float | None = None
    time_column: str | None = None
    label_column: str | None = None
    model: "Model" = "auto"
    force: bool = False


@dataclass(frozen=True)
class Data:
    """All files of a request as one checked dataset, its split, and the channels' settings.

    period: seconds between samples or None.
    """

    request: Request
    dataset: Dataset
    split: Split
    settings: Settings

    @property
    def period(self) -> float | None:
        """Seconds between samples: from the settings, the command line, or the files."""
        return self.settings.period or self.request.period or self.dataset.recordings[0].period


def read_data(request: Request) -> Data:
    """Read and check the files of `request`. Raises GruardError before anything is written."""
    _check_output(request)
    file = request.settings or find_settings(request.data[0])
    period, named = declared(file)
    dataset = set_aside(_dataset(request, request.period or period), named)
    settings = load_settings(file, dataset.channels, dataset.units)
    require_rows(dataset, MINIMUM_ROWS)
    gap = min(LARGEST_GAP, dataset.rows // 50)
    calibrate = _of_files(dataset, request.calibrate)
    test = _of_files(dataset, request.test)
    taken = {recording.name for recording in (*calibrate, *test)}
    rest = [recording for recording in dataset.recordings if recording.name not in taken]
    split = split_by_time(rest, gap=gap, margin=gap, calibrate=calibrate, test=test)
    require_readings(split.train)
    return Data(request, dataset, split, settings)


def _check_output(request: Request) -> None:
    if (request.out / "weights.npz").exists() and not request.force:
        raise GruardError(
            f"{request.out}: a finished training is already there; "
            "choose another --out or add --force to replace it"
        )
    existing = next(path for path in (request.out, *request.out.parents) if path.exists())
    if not existing.is_dir():
        raise GruardError(f"{existing}: exists and is not a folder; choose another --out")


def _dataset(request: Request, period: float | None) -> Dataset:
    paths = (*request.data, *request.calibrate, *request.test)
    return read_recordings(paths, period, request.time_column, request.label_column)


def _of_files(dataset: Dataset, paths: Sequence[Path]) -> list[Recording]:
    """Return the dataset's recordings that come from one of `paths` (files or folders)."""
    files = {str(file) for path in paths for file in expand(path)}
    return [recording for recording in dataset.recordings if recording.name in files]


def set_aside(dataset: Dataset, named: Collection[str] = ()) -> Dataset:
    """Return `dataset` without columns that no detector can learn from; one warning lists them.

    Columns of numbers in `named`, which the settings file lists, are kept. Raises GruardError when
    no column is left.
    """
    dropped: dict[str, list[str]] = {kind: [] for kind in ("text", *_KINDS)}
    dropped["text"] = [f"{name} ('{cell[:_SHOWN]}')" for name, cell in dataset.text.items()]
    kept = []
    for column, name in enumerate(dataset.channels):
        kind = _kind([recording.values[:, column] for recording in dataset.recordings])
        if kind is None or name in named:
            kept.append(column)
        else:
            dropped[kind].append(name)
    listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in dropped.items() if names)
    if not listed:
        return dataset
    if not kept:
        raise GruardError(
            f"{dataset.recordings[0].name}: no column is left to learn from ({listed}); "
            "add a sensor's column"
        )
    warning = f"columns set aside: {listed}; to keep one with numbers, name it in the settings file"
    recordings = tuple(_with_columns(recording, kept) for recording in dataset.recordings)
    return replace(dataset, recordings=recordings, warnings=(*dataset.warnings, warning))


def _kind(pieces: Sequence[Float32]) -> str | None:
    """Return why a column is not a channel, a key of `_KINDS`; None for a channel."""
    readings = [piece[np.isfinite(piece)] for piece in pieces]
    return next((kind for kind, holds in _KINDS.items() if holds(readings)), None)


def _empty(pieces: Sequence[Float32]) -> bool:
    return not any(map(len, pieces))


def _constant(pieces: Sequence[Float32]) -> bool:
    readings = np.concatenate(pieces)
    return bool(readings.min() == readings.max())


def _counting(pieces: Sequence[Float32]) -> bool:
    steps = np.concatenate([np.diff(piece) for piece in pieces])
    one_way = bool((steps >= 0).all() or (steps <= 0).all())
    return one_way and np.count_nonzero(steps) >= FEWEST_RISES


_KINDS: dict[str, Callable[[Sequence[Float32]], bool]] = {
    "empty": _empty,
    "constant": _constant,
    "counting": _counting,
}


def _with_columns(recording: Recording, columns: Sequence[int]) -> Recording:
    names = tuple(recording.channels[column] for column in columns)
    return replace(recording, channels=names, values=recording.values[:, columns])
