"""gruard as a detector: train, convert, replay.

The recordings go through CSV files and the training command's own code, as a user's would. The
validation of a conversion is left out, because it changes neither model.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from benchmarks.fitting import FLOAT32_BYTES
from benchmarks.judge import ContenderOutcome
from benchmarks.series import Series
from edge_runtime.learning.recording import write_recording

if TYPE_CHECKING:
    from edge_runtime.bundle.manifest import Manifest
    from edge_runtime.detector.cell import Model
    from edge_runtime.learning.run import Run

# The target is per day; the same target per row makes data sets of any period comparable.
WISHED_PER_ROW = 1e-4
SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True)
class Variant:
    """Differences from the default model. cell: fields of CellConfig; request: of Request.

    seeded: the seed matters.
    """

    cell: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    seeded: bool = True


VARIANTS: dict[str, Variant] = {
    "auto": Variant(),
    "linear": Variant(request={"model": "linear"}, seeded=False),
    "gru": Variant(request={"model": "gru"}),
    "gated": Variant(request={"model": "gated"}),
}


@dataclass(frozen=True)
class GruardDetector:
    """One variant of the model. steps: most training steps; None for the command's default."""

    variant: str
    steps: int | None = None

    @property
    def seeded(self) -> bool:
        """Whether another seed makes another model."""
        return VARIANTS[self.variant].seeded

    @property
    def name(self) -> str:
        """Row of the int8 model; its float twin has `-float` added."""
        return f"gruard-{self.variant}"

    def run(self, series: Series, seed: int, scratch: Path) -> Mapping[str, ContenderOutcome]:
        """Outcomes of the int8 model and of its float twin, which share the threshold."""
        from convert.twins import float_twin
        from edge_runtime.learning.shipped import shipped_model

        made = self.make(series, seed, scratch)
        twins = {self.name: (shipped_model(made.manifest, made.model), len(made.model))}
        if made.float_model:  # a linear model has no graph, and is in float already
            twin = float_twin(made.manifest, made.float_model)
            twins[f"{self.name}-float"] = twin, len(made.float_model)
        # What the choice among models rested on, where there was one.
        selection = made.run.config.selection.items()
        facts = {f"injected_{name}": value for name, value in selection}
        numbers = _numbers_of(made.run, made.manifest)
        outcomes = {
            name: _outcome_of(twin, series, numbers, size, made.seconds)
            for name, (twin, size) in twins.items()
        }
        return {name: replace(outcome, facts=facts) for name, outcome in outcomes.items()}

    def make(self, series: Series, seed: int, scratch: Path) -> "Made":
        """Train and convert."""
        started = time.monotonic()
        run = self._train(series, seed, scratch)
        trained = time.monotonic()
        files = converted(run, series.period)
        return Made(run, *files, (trained - started, time.monotonic() - trained))

    def _train(self, series: Series, seed: int, scratch: Path) -> "Run":
        from train.cell_config import CellConfig
        from train.train_run import train_run
        from train.training_request import Budget, TrainingRequest, read_training_data

        variant = VARIANTS[self.variant]
        data = write_series(series, scratch / "data")
        request = TrainingRequest(
            data=(data,), out=scratch / "run", name="benchmark", **dict(variant.request)
        )
        sizes = CellConfig(channels=0, **dict(variant.cell))
        budget = Budget(seed=seed) if self.steps is None else Budget(seed=seed, steps=self.steps)
        return train_run(request, read_training_data(request), sizes, budget, silent, silent)


@dataclass(frozen=True)
class Made:
    """A converted run. model, float_model: .tflite files, empty for a linear model.

    seconds: of training and of conversion.
    """

    run: "Run"
    manifest: "Manifest"
    model: bytes
    float_model: bytes
    seconds: tuple[float, float]


def converted(run: "Run", period: float) -> tuple["Manifest", bytes, bytes]:
    """Manifest, int8 and float .tflite file of `run`, without the proof and the diagnosis."""
    from convert.exported import exported
    from edge_runtime.learning.calibrated import calibrated
    from train.cell_config import CellConfig

    files = exported(run, CellConfig(**run.config.sizes), silent)
    known = calibrated(run, files.model, 1, WISHED_PER_ROW * SECONDS_PER_DAY / period)
    return known.manifest, files.model, files.float_model


def silent(*progress: object) -> None:
    """Discard progress messages of training and conversion."""


def write_series(series: Series, folder: Path) -> Path:
    """The clean recordings as CSV files with a settings file, as a user has them."""
    folder.mkdir()
    for index, recording in enumerate(series.train):
        write_recording(folder / f"{index:03d}.csv", recording)
    # Naming every channel keeps all of them.
    channels = {name: {"exogenous": name in series.exogenous} for name in series.channels}
    settings = {"period": series.period, "channels": channels}
    (folder / "channels.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


def _outcome_of(
    model: "Model",
    series: Series,
    numbers: tuple[int, int],
    graph_bytes: int,
    seconds: tuple[float, float],
) -> ContenderOutcome:
    from edge_runtime.learning.rollout import roll_all

    inside, outside = numbers
    rollouts = roll_all(model, [test.values for test in series.tests])
    return ContenderOutcome(
        scores=[np.asarray(rollout.score, np.float64) for rollout in rollouts],
        alarms=[rollout.alarm for rollout in rollouts],
        parameters=inside + outside,
        bytes=graph_bytes + FLOAT32_BYTES * outside,
        training_seconds=seconds[0],
        conversion_seconds=seconds[1],
    )


def _numbers_of(run: "Run", manifest: "Manifest") -> tuple[int, int]:
    """Return the number of values inside the graph, and of float values outside it."""
    outside = [
        *(getattr(manifest.forecast, f.name) for f in fields(manifest.forecast)),
        *(getattr(manifest.score, f.name) for f in fields(manifest.score)),
    ]
    scaler = 2 * len(manifest.channels)
    inside = sum(array.size for name, array in run.weights.items() if _in_graph(name))
    return inside, scaler + sum(_size(value) for value in outside)


def _in_graph(name: str) -> bool:
    return name not in ("highway", "cross", "innovation_scale") and not name.startswith("fold-")


def _size(value: float | Sequence[Any]) -> int:
    return sum(map(_size, value)) if isinstance(value, Sequence) else 1
