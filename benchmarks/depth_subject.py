"""One depth of the network on one series: trained, converted, judged, and run as int8."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.gruard_detector import (
    SECONDS_PER_DAY,
    WISHED_PER_ROW,
    numbers_of,
    outcome_of,
    silent,
    write_series,
)
from benchmarks.judge import Figures, judge
from benchmarks.series import Series

if TYPE_CHECKING:
    from train.run_folder import Run

# Layers of each kind; what is not named is as by default.
DEPTHS: dict[str, dict[str, Any]] = {
    "default": {},
    "gru-2": {"gru_layers": 2},
    "gru-3": {"gru_layers": 3},
    "gate-2": {"gate_layers": 2},
    "gate-3": {"gate_layers": 3},
    "head-1": {"head_layers": 1},
    "head-2": {"head_layers": 2},
    "deepest": {"gru_layers": 3, "gate_layers": 3, "head_layers": 2},
}
FAILED = "failed: "  # begins the name of a figure: the value of a check that did not pass


@dataclass(frozen=True)
class DepthSubject:
    """One depth, by its name in `DEPTHS`. steps: most training steps."""

    name: str
    steps: int

    def measure(self, series: Series, seed: int, scratch: Path) -> Mapping[str, Figures]:
        """Figures of the int8 bundle, and of every check that the conversion did not pass."""
        from convert.convert_run import convert_run
        from convert.twins import shipped_model
        from train.cell_config import CellConfig
        from train.fit import Budget
        from train.train_run import Request, train_run

        started = time.monotonic()
        data = write_series(series, scratch / "data")
        request = Request(data=(data,), out=scratch / "run", name="benchmark", model="gated")
        sizes = CellConfig(channels=0, **DEPTHS[self.name])
        budget = Budget(steps=self.steps, seed=seed)
        run = train_run(request, sizes, budget, silent, silent)
        trained = time.monotonic()
        wished_per_day = WISHED_PER_ROW * SECONDS_PER_DAY / series.period
        conversion = convert_run(run, 1, wished_per_day, silent)
        seconds = trained - started, time.monotonic() - trained
        manifest, model = conversion.manifest, conversion.model
        shipped = shipped_model(manifest, model)
        outcome = outcome_of(shipped, series, numbers_of(run, manifest), len(model), seconds)
        checks = conversion.verdict.checks
        verdict: Figures = {
            "passed": float(conversion.verdict.passed),
            "model_bytes": float(len(model)),
        }
        verdict |= {FAILED + c.name: c.to_dict()["value"] for c in checks if not c.passed}
        precision = {"injected_precision": injected_precision(run, series, seed)}
        return {self.name: judge(series, outcome) | verdict | precision}


def injected_precision(run: "Run", series: Series, seed: int) -> float:
    """Average precision of the float model on faults in rows that no training saw."""
    from convert.material import held_out
    from train.cell_config import CellConfig
    from train.prepare import standard_rows
    from train.selection import Candidate, judge

    rows = standard_rows(held_out(run), run.config.channels, run.config.period)
    candidate = Candidate("network", CellConfig(**run.config.sizes), run.weights)
    return judge([candidate], rows, np.asarray(~series.scored), seed)["network"]
