"""One variant of the gate on one series with one seed: trained, and measured in float."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.fitting import FLOAT32_BYTES
from benchmarks.gate_variants import HEARD, ORACLE, VARIANTS
from benchmarks.judge import Figures, Outcome, judge
from benchmarks.series import Series

if TYPE_CHECKING:
    from benchmarks.float_score import Run
    from benchmarks.gate_measures import Watched
    from benchmarks.gate_training import Material, Trained


@dataclass(frozen=True)
class GateSubject:
    """One variant, by its name in `VARIANTS`. steps: most training steps."""

    name: str
    steps: int

    def measure(self, series: Series, seed: int, scratch: Path) -> Mapping[str, Figures]:
        """Figures by row; the gated variant also brings the heard gate and the oracle."""
        from benchmarks.float_score import Seen, runner
        from benchmarks.gate_measures import injected_figures, watch
        from benchmarks.gate_streams import faulty_streams, told
        from benchmarks.gate_training import material_of, train_variant, untrained
        from train.fit import Budget

        material = material_of(series)
        variant = VARIANTS[self.name]
        trained = train_variant(variant, material, Budget(self.steps, seed=seed))
        # One scale for all variants, or an error of 1 would not mean the same.
        network = untrained(VARIANTS["gated"], material.train, material.exogenous, seed)
        run, scale = runner(trained.model), network.innovation_scale
        streams = faulty_streams(material.held_out, material.exogenous, seed)
        seen = run(streams.values, streams.masks)
        facts: Figures = {"best_step": float(trained.best_step)}

        def figures(heard: bool) -> Figures:
            watched = watch(streams, seen, scale, material.exogenous, heard)
            labelled = _labelled(series, material, trained, run, watched)
            return injected_figures(watched) | labelled | facts

        rows = {self.name: figures(variant.heard)}
        if self.name == "gated":
            rows[HEARD] = figures(True)
            # Told what is faulty it forecasts; what it is shown and its doubt stay what they were.
            informed = Seen(run(*told(streams)).forecast, seen.doubt)
            upper = injected_figures(watch(streams, informed, scale, material.exogenous, False))
            rows[ORACLE] = dict.fromkeys(rows[HEARD]) | upper | facts
        return rows


def _labelled(
    series: Series, material: "Material", trained: "Trained", run: "Run", watched: "Watched"
) -> Figures:
    """The figures of `benchmarks.judge` on the labelled recordings, constants as held out."""
    from benchmarks.float_score import score_rows

    scores = []
    for values, mask in zip(material.tests.values, material.tests.masks, strict=True):
        seen = run(values[np.newaxis], mask[np.newaxis])
        scores.append(score_rows(seen.forecast[0], seen.doubt[0], values, mask, watched.constants))
    count = sum(array.size for array in trained.model.arrays().values())
    outcome = Outcome(
        scores=scores,
        alarms=[score > watched.threshold for score in scores],
        parameters=count,
        bytes=FLOAT32_BYTES * count,
        training_seconds=trained.seconds,
    )
    return judge(series, outcome)
