"""What to train on, what to train and how long, and where to write it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_runtime.errors import GruardError
from edge_runtime.learning.request import Data, Request, read_data
from edge_runtime.record import Float32

Model = Literal["auto", "linear", "gru", "gated"]
Say = Callable[[str], None]
Report = Callable[[int, dict[str, float]], None]  # the losses of a step
Pays = Callable[[Mapping[str, Float32]], bool]  # whether weights are worth more training


@dataclass(frozen=True)
class Budget:
    """How long to train. patience: checks without a better validation loss before stopping."""

    steps: int = 1000
    windows: int = 24
    check_every: int = 50
    patience: int = 10
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainingRequest(Request):
    """A request with the run folder `out`, the detector's `name`, and the model to train."""

    out: Path
    name: str
    model: Model = "auto"
    force: bool = False


def read_training_data(request: TrainingRequest) -> Data:
    """Read and check the files of `request`. Raises GruardError before TensorFlow is loaded."""
    _check_output(request)
    return read_data(request)


def _check_output(request: TrainingRequest) -> None:
    if (request.out / "weights.npz").exists() and not request.force:
        raise GruardError(
            f"{request.out}: a finished training is already there; "
            "choose another --out or add --force to replace it"
        )
    existing = next(path for path in (request.out, *request.out.parents) if path.exists())
    if not existing.is_dir():
        raise GruardError(f"{existing}: exists and is not a folder; choose another --out")
