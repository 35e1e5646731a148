"""The default model of one series, converted and judged; and its network, where that is not it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.depth_subject import FAILED
from benchmarks.gruard_detector import silent, write_series
from benchmarks.judge import Figures
from benchmarks.series import Series

if TYPE_CHECKING:
    from convert.convert_run import Conversion
    from convert.validate import Verdict
    from edge_runtime.bundle.manifest import Threshold
    from train.run_folder import Run

WISHED_PER_DAY = 1.0  # as `python -m convert` has it
ON = " on "  # between a model and the further kernel that it was judged on


@dataclass(frozen=True)
class VerdictSubject:
    """What `--model auto` takes. steps: most training steps.

    Where that is the linear model, the network that it was weighed against is judged too, because
    a linear model has no int8 form.
    """

    name: str
    steps: int

    def measure(self, series: Series, seed: int, scratch: Path) -> Mapping[str, Figures]:
        """A row for each model and each kernel that it was judged on."""
        from train.cell_config import CellConfig
        from train.fit import Budget
        from train.train_run import Request, train_run

        data = write_series(series, scratch / "data")
        sizes, budget = CellConfig(channels=0), Budget(steps=self.steps, seed=seed)
        request = Request((data,), scratch / "gated", "benchmark", model="gated")
        gated = train_run(request, sizes, budget, silent, silent)
        taken, network = as_auto(gated, series)
        if taken != "linear":
            return rows_of(taken, _converted(network), network, True)
        request = replace(request, out=scratch / "linear", model="linear")
        linear = train_run(request, sizes, budget, silent, silent)
        rows = rows_of("gated", _converted(gated), gated, False)
        return rows_of(taken, _converted(linear), linear, True) | rows


def _converted(run: "Run") -> "Conversion":
    from convert.convert_run import convert_run

    return convert_run(run, 1, WISHED_PER_DAY, silent)


def as_auto(run: "Run", series: Series) -> tuple[str, "Run"]:
    """The model that auto takes where it has trained the gated network `run`, and that network."""
    from train.cell_config import CellConfig
    from train.model_choice import Material, joined, resolved, weighed, without_unused
    from train.prepare import standard_rows

    train, validate, calibrate = (
        standard_rows(run.rows[part], run.config.channels, run.config.period)
        for part in ("train", "validate", "calibrate")
    )
    material = Material(train, validate, calibrate, np.asarray(~series.scored))
    clean = joined(train, validate, calibrate).total
    if resolved("auto", clean, int(series.scored.sum())) == "linear":
        return "linear", run
    sizes = CellConfig(**run.config.sizes)
    taken, precisions = weighed(run.weights, sizes, material, run.config.seed)
    if taken.sizes.linear:
        return taken.name, run
    config = replace(run.config, sizes=taken.sizes.to_dict(), selection=precisions)
    return taken.name, replace(run, config=config, weights=without_unused(run.weights, taken.sizes))


def rows_of(name: str, made: "Conversion", run: "Run", taken: bool) -> dict[str, Figures]:
    """The figures of a conversion of `run` on every kernel; the reference's goes by `name` alone.

    taken: whether it is what auto takes.
    """
    sizes = run.config.sizes
    facts: Figures = {
        "channels": float(len(run.config.channels)),
        "rows": float(sum(len(rows) for part in run.rows.values() for rows in part)),
        "taken": float(taken),
        "gru_layers": float(sizes["gru_layers"]),
        "gru_units": float(sizes["gru_units"]),
        "model_bytes": float(len(made.model)),
    }
    rows = {name: facts | figures_of(made.verdict)}
    rows |= {f"{name}{ON}{other.kernel}": facts | figures_of(other) for other in made.proof.others}
    rows[name] |= promise_of(made.manifest.thresholds[made.verdict.kernel])
    return rows


def figures_of(verdict: "Verdict") -> Figures:
    """Every check by its name, those that failed once more, and how many faults were found."""
    found: Figures = {"passed": float(verdict.passed)}
    for check in verdict.checks:
        value = check.to_dict()["value"]
        found |= {check.name: value} | ({} if check.passed else {FAILED + check.name: value})
    for stream in verdict.detections:
        found |= {
            f"{stream.stream}: events": float(len(stream.events)),
            f"{stream.stream}: int8 finds": float(
                sum(event.int8_delay is not None for event in stream.events)
            ),
            f"{stream.stream}: float finds": float(
                sum(event.float_delay is not None for event in stream.events)
            ),
        }
    return found


def promise_of(threshold: "Threshold") -> Figures:
    """What the wish for so many false alarms a day rests on."""
    return {
        "threshold": threshold.value,
        "assured": float(threshold.assured),
        "days_needed": threshold.days_needed,
        "held_out_days": threshold.held_out_days,
        "held_out_alarms": float(threshold.held_out_alarms),
    }
