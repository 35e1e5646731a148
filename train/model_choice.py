"""Fit the model that ships: the linear detector, a network, or with `auto` the better of both.

TensorFlow is loaded only when a network is trained.
"""

import importlib.util
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_runtime.learning.linear import fit_linear, fit_plain
from edge_runtime.learning.prepare import Rows
from edge_runtime.look.facts import FEWEST_NETWORK_ROWS
from train.batches import Float32
from train.cell_config import CellConfig
from train.labelled import NO_LABELS, Labelled
from train.run_folder import write_atomically
from train.training_request import Budget, Model, Pays, Report, Say

if TYPE_CHECKING:
    from train.selection import Candidate


# More steps per training row do not improve the fit to a short recording.
STEPS_PER_ROW, FEWEST_STEPS = 2, 300


@dataclass(frozen=True)
class TrainingRows:
    """Standardised clean rows by purpose, and which channels are exogenous [channels].

    train, validate, calibrate: of a network. linear: those that a linear detector is fitted on.
    labelled: stretches of the training part for the gate to learn from.
    """

    train: Rows
    validate: Rows
    calibrate: Rows
    linear: Rows
    exogenous: npt.NDArray[np.bool_]
    labelled: Labelled = NO_LABELS


@dataclass(frozen=True)
class FittedModel:
    """The model that ships. precisions: average precision of every judged candidate, by name."""

    sizes: CellConfig
    weights: Mapping[str, Float32]
    precisions: dict[str, float]


def hopeless(clean_rows: int, watched: int, silent: Sequence[str]) -> str:
    """Say why a network cannot be better than the linear detector; empty if it may be.

    watched: number of scored channels. With a single one, a gate has no other channel to compare
    with and treats every change of the machine as a sensor fault. silent: channels without a
    reading in the rows to train on.
    """
    if clean_rows < FEWEST_NETWORK_ROWS:
        return f"fewer than {FEWEST_NETWORK_ROWS} clean rows"
    if watched < 2:
        return "only one channel to watch"
    if silent:
        return f"channel '{silent[0]}' has no reading in the rows to train on"
    if importlib.util.find_spec("tensorflow") is None:
        return "TensorFlow, which a network needs, is not installed"
    return ""


def fit_model(
    model: Model,
    training: TrainingRows,
    sizes: CellConfig,
    budget: Budget,
    out: Path,
    say: Say,
    report: Report,
) -> FittedModel:
    """Fit `model`; write the checkpoint, learning curve and metrics of a network to `out`.

    auto: a gated network is trained and compared with the linear detector, which ships unless the
    network is clearly better. A network that has gained too little after a third of its training is
    not trained further. A network without a gate is no candidate: on pump, watch, plant and
    servers it was no better than the linear detector (docs/accuracy.md).
    """
    linear = replace(sizes, gru_layers=0, gate_layers=0)
    if model == "linear":
        return FittedModel(linear, _linear(training.linear, linear, say), {})
    say("loading TensorFlow")
    from train.selection import EARLY_GAIN, MARGIN

    network = replace(sizes, gate_layers=0) if model == "gru" else sizes

    def pays(weights: Mapping[str, Float32]) -> bool:
        _, found = _weighed(weights, sizes, training, budget.seed)
        gains = found["gated"] >= found["linear"] + EARLY_GAIN
        if not gains:
            say(
                f"stopped early: on injected faults the network's average precision is "
                f"{found['gated']:.3f}, the linear detector's {found['linear']:.3f}"
            )
        return gains

    asked = pays if model == "auto" else None
    weights = _train_network(network, training, budget, out, say, report, asked)
    if model != "auto":
        return FittedModel(network, weights, {})
    chosen, precisions = _weighed(weights, sizes, training, budget.seed)
    values = ", ".join(f"{name} {value:.3f}" for name, value in precisions.items())
    say(
        f"average precision on faults injected into held-out rows: {values}; {chosen.name} is "
        f"taken (a larger model must gain {MARGIN:g})"
    )
    if chosen.sizes.linear:
        return FittedModel(linear, _linear(training.linear, linear, say), precisions)
    return FittedModel(sizes, weights, precisions)


def _weighed(
    weights: Mapping[str, Float32], sizes: CellConfig, training: TrainingRows, seed: int
) -> tuple["Candidate", dict[str, float]]:
    """Compare the gated network with the linear detector: the choice, and all precisions."""
    from train.selection import Candidate, choose, judge

    linear = replace(sizes, gru_layers=0, gate_layers=0)
    candidates = [
        Candidate("linear", linear, fit_plain(training.train, sizes.order, sizes.highway)),
        Candidate("gated", sizes, weights),
    ]
    held_out = joined(training.validate, training.calibrate)
    precisions = judge(candidates, held_out, training.exogenous, seed)
    return choose(candidates, precisions), precisions


def joined(*parts: Rows) -> Rows:
    """Return all recordings of `parts`, in order."""
    return Rows(
        tuple(v for part in parts for v in part.values), tuple(m for p in parts for m in p.masks)
    )


def _linear(rows: Rows, sizes: CellConfig, say: Say) -> dict[str, Float32]:
    say("fitting the linear highway, and one for each fold of the clean rows")
    return fit_linear(rows, sizes.order, sizes.highway)


def _train_network(
    sizes: CellConfig,
    training: TrainingRows,
    budget: Budget,
    out: Path,
    say: Say,
    report: Report,
    pays: Pays | None,
) -> dict[str, Float32]:
    from train.fit import fit, write_metrics

    most = max(STEPS_PER_ROW * training.train.total, FEWEST_STEPS)
    budget = replace(budget, steps=min(budget.steps, most))
    say("compiling the network, which takes some seconds")
    labelled = training.labelled if sizes.gate_layers else NO_LABELS
    if labelled.labels:
        count, rows = len(labelled.labels), sum(int(label.sum()) for label in labelled.labels)
        say(f"labelled stretches that train the gate: {count}, with {rows} anomalous rows")
    started = time.monotonic()
    result = fit(
        sizes,
        training.train,
        training.validate,
        training.exogenous,
        budget,
        out / "checkpoint.npz",
        report,
        labelled,
        pays,
    )
    extra = {"rows": training.train.total, "sizes": sizes.to_dict(), "seed": budget.seed}
    write_metrics(out / "metrics.json", result, extra)
    draw_learning(result.history, out / "learning.png")
    best = min(result.history, key=lambda entry: entry["total"])
    gain = 1 - best["forecast"] / result.history[0]["forecast"]
    say(
        f"trained in {time.monotonic() - started:.0f} s; best at step {best['step']:.0f}; "
        f"forecast under faults {gain:.0%} better than that of the linear highway"
    )
    return result.weights


def draw_learning(history: list[dict[str, float]], path: Path) -> None:
    """Draw one panel per validation loss over steps; the dashed line is the linear forecast."""
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
            axis.axhline(values[0], linestyle="--", color="#999999", label="linear highway")
            axis.legend(frameon=False, fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("training step")
        axis.set_ylim(bottom=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
