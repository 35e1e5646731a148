"""What to train on, what to train, and where to write it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.errors import GruardError
from edge_runtime.learning.request import Data, Request, read_data

if TYPE_CHECKING:
    from train.model_choice import Model


@dataclass(frozen=True, kw_only=True)
class TrainingRequest(Request):
    """A request with the run folder `out`, the detector's `name`, and the model to train."""

    out: Path
    name: str
    model: "Model" = "auto"
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
