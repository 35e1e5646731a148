"""From rows to the model that ships: the linear detector, a network, or what earns its place."""

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from train.batches import Float32, Rows
from train.cell_config import CellConfig
from train.fit import Budget, Report, fit, write_metrics
from train.labelled import NO_LABELS, Labelled
from train.linear import fit_linear, fit_plain
from train.run_folder import write_atomically
from train.selection import MARGIN, Candidate, choose, judge

Model = Literal["auto", "linear", "gru", "gated"]
Say = Callable[[str], None]

# With fewer clean rows than this a network has nothing to learn that a highway does not know.
FEWEST_NETWORK_ROWS = 1000
# A short recording has told all it can after this many steps per training row.
STEPS_PER_ROW, FEWEST_STEPS = 2, 300


@dataclass(frozen=True)
class TrainingRows:
    """Standardised clean rows by purpose, and which channels are exogenous [channels].

    labelled: stretches of the training part for the gate to learn from.
    """

    train: Rows
    validate: Rows
    calibrate: Rows
    exogenous: npt.NDArray[np.bool_]
    labelled: Labelled = NO_LABELS


@dataclass(frozen=True)
class FittedModel:
    """What ships. precisions: average precision of every candidate there was, by name."""

    sizes: CellConfig
    weights: Mapping[str, Float32]
    precisions: dict[str, float]


def resolved(model: Model, clean_rows: int, watched: int) -> Model:
    """`model`, or linear instead of auto where a network cannot earn its place.

    watched: channels that are scored. Nothing bears witness for or against a single one: a gate
    would take whatever the machine does for a fault of its sensor.
    """
    hopeless = clean_rows < FEWEST_NETWORK_ROWS or watched < 2
    return "linear" if model == "auto" and hopeless else model


def fit_model(
    model: Model,
    material: TrainingRows,
    sizes: CellConfig,
    budget: Budget,
    out: Path,
    say: Say,
    report: Report,
) -> FittedModel:
    """Fit `model`; a checkpoint, the learning curve and metrics of a network go to `out`.

    auto: a gated network is trained and judged beside the linear detector, which ships unless the
    network is clearly better. A network without a gate is no candidate: on pump, watch,
    plant and servers it was level with the linear detector or behind it (docs/accuracy.md).
    """
    linear = replace(sizes, gru_layers=0, gate_layers=0)
    if model == "linear":
        return FittedModel(linear, _linear(material, linear, say), {})
    network = replace(sizes, gate_layers=0) if model == "gru" else sizes
    weights = _train_network(network, material, budget, out, say, report)
    if model != "auto":
        return FittedModel(network, weights, {})
    chosen, precisions = _weighed(weights, sizes, material, budget.seed)
    found = ", ".join(f"{name} {value:.3f}" for name, value in precisions.items())
    say(
        f"average precision on faults injected into held-out rows: {found}; {chosen.name} is "
        f"taken (a larger model must gain {MARGIN:g})"
    )
    if chosen.sizes.linear:
        return FittedModel(linear, _linear(material, linear, say), precisions)
    return FittedModel(sizes, weights, precisions)


def _weighed(
    weights: Mapping[str, Float32], sizes: CellConfig, material: TrainingRows, seed: int
) -> tuple[Candidate, dict[str, float]]:
    """What `auto` takes once the gated network of `sizes` has `weights`, and every precision."""
    linear = replace(sizes, gru_layers=0, gate_layers=0)
    candidates = [
        Candidate("linear", linear, fit_plain(material.train, sizes.order, sizes.highway)),
        Candidate("gated", sizes, weights),
    ]
    held_out = joined(material.validate, material.calibrate)
    precisions = judge(candidates, held_out, material.exogenous, seed)
    return choose(candidates, precisions), precisions


def joined(*parts: Rows) -> Rows:
    """All recordings of `parts`, in order."""
    return Rows(
        tuple(v for part in parts for v in part.values), tuple(m for p in parts for m in p.masks)
    )


def _linear(material: TrainingRows, sizes: CellConfig, say: Say) -> dict[str, Float32]:
    rows = joined(material.train, material.validate, material.calibrate)
    say("fitting the linear highway, and one for each fold of the clean rows")
    return fit_linear(rows, sizes.order, sizes.highway)


def _train_network(
    sizes: CellConfig, material: TrainingRows, budget: Budget, out: Path, say: Say, report: Report
) -> dict[str, Float32]:
    most = max(STEPS_PER_ROW * material.train.total, FEWEST_STEPS)
    budget = replace(budget, steps=min(budget.steps, most))
    labelled = material.labelled if sizes.gate_layers else NO_LABELS
    if labelled.labels:
        count, rows = len(labelled.labels), sum(int(label.sum()) for label in labelled.labels)
        say(f"labelled stretches that teach the gate: {count}, {rows} rows anomalous")
    started = time.monotonic()
    result = fit(
        sizes,
        material.train,
        material.validate,
        material.exogenous,
        budget,
        out / "checkpoint.npz",
        report,
        labelled,
    )
    extra = {"rows": material.train.total, "sizes": sizes.to_dict(), "seed": budget.seed}
    write_metrics(out / "metrics.json", result, extra)
    draw_learning(result.history, out / "learning.png")
    best = min(result.history, key=lambda entry: entry["total"])
    gain = 1 - best["forecast"] / result.history[0]["forecast"]
    say(
        f"trained in {time.monotonic() - started:.0f} s; best at step {best['step']:.0f}; "
        f"forecast under faults {gain:.0%} better than the linear highway alone"
    )
    return result.weights


def draw_learning(history: list[dict[str, float]], path: Path) -> None:
    """One panel per validation loss over steps; the dashed line is the linear forecaster."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    steps = [entry["step"] for entry in history]
    titles = {
        "forecast": "forecast error (clean target)",
        "gate": "gate (cross-entropy)",
        "state": "state spoiled by faults",
    }
    for axis, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        values = [entry[name] for entry in history]
        axis.plot(steps, values, marker="o", markersize=3, color="#1f6f8b")
        if name == "forecast":
            axis.axhline(values[0], linestyle="--", color="#999999", label="linear highway alone")
            axis.legend(frameon=False, fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("training step")
        axis.set_ylim(bottom=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
