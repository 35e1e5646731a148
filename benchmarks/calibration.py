"""Does a threshold keep its promise? Realised against wished false alarms, by simulation.

    python -m benchmarks.calibration [--recordings 200] [--days 400] [--out docs]

Each rule sets a threshold for one false alarm a day from 1 h to 3 days of simulated clean scores.
How often that threshold really alarms is counted on hundreds of further days. The page
docs/calibration.md gets the table, docs/calibration.png the picture.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.clustered_scores import PROCESSES, Process, simulate
from benchmarks.pages import fill_page, markdown
from benchmarks.threshold_rules import ALARM, RULES, WISH
from edge_runtime.calibration import debounce, peaks

HOURS = (1, 6, 24, 72)
DAY = 86400
NEVER = 1e-3  # alarms a day, as far down as the picture goes
GRID = 300


@dataclass(frozen=True)
class Kept:
    """One rule with so many hours of clean scores. rates: realised alarms a day, by recording."""

    process: str
    rule: str
    hours: int
    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the realised rates."""
        return float(np.median(self.rates))

    @property
    def spread(self) -> tuple[float, float]:
        """Within which 90 % of the realised rates lie."""
        low, high = np.quantile(self.rates, [0.05, 0.95])
        return float(low), float(high)

    @property
    def exceeded(self) -> float:
        """Share of recordings whose threshold alarms more often than wished."""
        return float(np.mean(np.array(self.rates) > WISH))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--recordings", default=200, show_default=True, type=click.IntRange(2))
@click.option("--days", default=400, show_default=True, type=click.IntRange(1), help="To count on.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of calibration.md.")
@click.option("--json", "as_json", is_flag=True, help="Print all realised rates as JSON.")
def main(recordings: int, days: int, out: Path | None, as_json: bool) -> None:
    """Measure how often thresholds alarm that were set for one false alarm a day."""
    found = []
    for process in PROCESSES:
        click.echo(f"{process.name}: {days} days to count on", err=True)
        rate = realised(process, days)
        click.echo(f"{process.name}: {recordings} recordings", err=True)
        clean = simulate(process, max(HOURS) * 3600, recordings, seed=1)
        for kept in measure(process, clean, rate):
            click.echo(f"{kept.rule}, {kept.hours} h: {_cell(kept)}", err=True)
            found.append(kept)
    click.echo(json.dumps([asdict(kept) for kept in found]) if as_json else tables(found))
    if out:
        fill_page(out / "calibration.md", tables(found))
        draw(found, out / "calibration.png")


def realised(process: Process, days: int) -> Callable[[float], float]:
    """Alarms a day at a threshold, counted on `days` simulated days."""
    smooth = [debounce(scores, ALARM) for scores in simulate(process, DAY, days, seed=0)]
    levels = np.linspace(np.quantile(smooth[0], 0.9), max(s.max() for s in smooth), GRID)
    counts = [sum(len(peaks(scores, level, ALARM)) for scores in smooth) for level in levels]
    logs = np.log(np.maximum(np.array(counts) / days, NEVER))

    def rate(threshold: float) -> float:
        return float(np.exp(np.interp(threshold, levels, logs)))

    return rate


def measure(
    process: Process, clean: npt.NDArray[np.float32], rate: Callable[[float], float]
) -> list[Kept]:
    """All rules on the beginnings of the `clean` recordings [recordings, seconds]."""
    return [
        Kept(
            process.name,
            name,
            hours,
            tuple(rate(rule(scores[: hours * 3600].astype(np.float64))) for scores in clean),
        )
        for name, rule in RULES.items()
        for hours in HOURS
        if hours * 3600 <= clean.shape[1]
    ]


def tables(found: Sequence[Kept]) -> str:
    """A table for each process: median (5 % to 95 %), and how many exceed the wish."""
    parts = []
    for process in dict.fromkeys(kept.process for kept in found):
        chosen = {(k.rule, k.hours): k for k in found if k.process == process}
        lines = [
            [rule, *(_cell(chosen[rule, hours]) for hours in HOURS)]
            for rule in dict.fromkeys(rule for rule, _ in chosen)
        ]
        parts += [f"**{process}**", markdown(["", "1 h", "6 h", "1 day", "3 days"], lines)]
    return "\n\n".join(parts)


def _cell(kept: Kept) -> str:
    low, high = kept.spread
    return f"{kept.median:.2f} ({low:.2f}–{high:.2f}), {kept.exceeded:.0%}"


def draw(found: Sequence[Kept], path: Path) -> None:
    """Realised rates over the hours of clean data, a panel for each process."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(kept.process for kept in found))
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        _draw_panel(panel, [kept for kept in found if kept.process == name])
        panel.set_title(name, fontsize=10)
    panels[0].set_ylabel("realised false alarms a day (wish: 1)")
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _draw_panel(panel: Any, found: Sequence[Kept]) -> None:
    panel.axhspan(WISH / 2, WISH, color="#dcefdc")
    rules = list(dict.fromkeys(kept.rule for kept in found))
    for index, rule in enumerate(rules):
        chosen = [kept for kept in found if kept.rule == rule]
        places = np.arange(len(chosen)) + 0.13 * (index - (len(rules) - 1) / 2)
        medians = [max(kept.median, NEVER) for kept in chosen]
        spreads = np.clip([kept.spread for kept in chosen], NEVER, None)
        reach = np.abs(spreads.T - np.array(medians))
        panel.errorbar(places, medians, reach, fmt="o", markersize=4, capsize=2, label=rule)
    panel.axhline(WISH, color="#b3261e", linewidth=0.9)
    panel.set(yscale="log", xlabel="clean data to set the threshold from")
    panel.set_xticks(range(len(HOURS)), ["1 h", "6 h", "1 day", "3 days"])
    panel.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
