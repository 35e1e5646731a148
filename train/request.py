"""What the user asked for, and the data it names: read, split and checked.

Nothing here needs TensorFlow, so that bad input is refused before it is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.errors import GruardError
from train.columns import set_aside
from train.prepare import require_readings
from train.recording import Dataset, Recording, expand, read_recordings, require_rows
from train.settings import Settings, declared, find_settings, load_settings
from train.split import Split, split_by_time

if TYPE_CHECKING:
    from train.model_choice import Model

MINIMUM_ROWS = 150
# The state forgets within some tens of samples; parts this far apart share nothing.
LARGEST_GAP = 128


@dataclass(frozen=True)
class Request:
    """What the user asked for. Empty `calibrate` and `test`: split by time."""

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
    """All files of a request as one checked dataset, its split, and what is known of the channels.

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
    """Read and check what `request` names. Raises GruardError, before anything is written."""
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
    there = next(path for path in (request.out, *request.out.parents) if path.exists())
    if not there.is_dir():
        raise GruardError(f"{there}: exists and is not a folder; choose another --out")


def _dataset(request: Request, period: float | None) -> Dataset:
    paths = (*request.data, *request.calibrate, *request.test)
    return read_recordings(paths, period, request.time_column, request.label_column)


def _of_files(dataset: Dataset, paths: Sequence[Path]) -> list[Recording]:
    """The dataset's recordings that come from one of `paths` (files or folders)."""
    files = {str(file) for path in paths for file in expand(path)}
    return [recording for recording in dataset.recordings if recording.name in files]
