"""Export a run's weights as .tflite files, quantised on the inputs of a rolled-out model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convert.twins import float_twin
from edge_runtime.bundle.flatbuffer import read_graph
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.errors import UnfitError
from edge_runtime.learning.draft import draft_manifest
from edge_runtime.learning.rollout import inputs_at, roll
from edge_runtime.learning.run import Run
from edge_runtime.learning.streams import faulty_twin

if TYPE_CHECKING:
    from train.cell_config import CellConfig

Float32 = npt.NDArray[np.float32]
Say = Callable[[str], None]

REPRESENTATIVE, REPRESENTATIVE_ROWS = 3000, 6000


@dataclass(frozen=True)
class Exported:
    """The step as an int8 and as a float .tflite file; both empty for a linear model."""

    model: bytes
    float_model: bytes


def exported(run: Run, config: "CellConfig", say: Say) -> Exported:
    """Export the step of `run` in both arithmetics. Raises UnfitError where that is impossible."""
    if config.linear:
        return Exported(b"", b"")
    if spoiled := [name for name, array in run.weights.items() if not np.isfinite(array).all()]:
        raise UnfitError(
            f"its weights are not finite ({spoiled[0]}): the training diverged; train again with "
            "another --seed"
        )
    try:
        from convert.export import export_float, export_int8
    except ModuleNotFoundError as error:
        raise UnfitError(
            f"{error.name}, which converts a network, is not installed: pip install "
            "'gruard[workstation]'"
        ) from None
    say("exporting one float step")
    float_model = export_float(run.weights, config)
    say("rolling out the float model for representative states")
    samples = representative(run, float_model)
    say("quantising to int8")
    return Exported(export_int8(run.weights, config, samples), float_model)


def representative(run: Run, float_model: bytes) -> list[Mapping[str, Float32]]:
    """Return graph inputs, states included, of a free rollout over training rows with faults.

    Ranges measured only on clean rows would clip anomalies.
    """
    twin = faulty_twin(
        run.rows["train"],
        run.config.channels,
        run.config.period,
        run.weights["innovation_scale"],
        run.config.seed + 2,
        REPRESENTATIVE_ROWS,
    )
    return rolled_out(run, float_model, twin.rows)


def rolled_out(run: Run, float_model: bytes, rows: Float32) -> list[Mapping[str, Float32]]:
    """Return graph inputs of a free rollout of the float model over raw `rows`, evenly spread."""
    model = float_twin(_float_draft(run, float_model), float_model)
    picked = np.unique(np.linspace(0, len(rows) - 1, REPRESENTATIVE).astype(int))
    return inputs_at(roll(model, rows), picked)


def _float_draft(run: Run, float_model: bytes) -> Manifest:
    """Draft a manifest around the float graph; its tensors have no scales, so they get dummies."""
    graph = read_graph(float_model, "float model")
    tensors = tuple(replace(t, scales=(1 / 64,), zero_points=(0,)) for t in graph.tensors)
    return draft_manifest(run, replace(graph, tensors=tensors), 0)
