"""Does a threshold keep its target? Realised and target false alarms, by simulation.

    python -m benchmarks.calibration [--recordings 200] [--days 400] [--out docs]

Each rule sets a threshold for one false alarm a day from 1 h to 3 days of simulated clean scores.
How often that threshold really alarms is counted on hundreds of further days. The page
docs/calibration.md gets the table, docs/calibration.png the picture.

The machine is calmer at some times than at others: eight channels err by a Student t variable with
6 degrees of freedom, and the largest error is scaled by a volatility whose logarithm is a
first-order autoregression, then smoothed as the device smooths its score. So large scores come in
clusters, which is the difficulty of every threshold.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.pages import fill_page, markdown
from edge_runtime.bundle.manifest import AlarmRule
from edge_runtime.calibration import LEVELS, SECONDS_PER_DAY, calibrate, debounce, peaks

HOURS = (1, 6, 24, 72)
DAY = 86400
NEVER = 1e-3  # alarms a day, as far down as the picture goes
GRID = 300
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Rule = Callable[[Float64], float]
WISH = 1.0  # false alarms a day
ALARM = AlarmRule(m=2, n=3, clear_after=10)
PLAIN_LEVEL = 0.98  # quantile over which a plain peaks-over-threshold fit is usually made
RESAMPLES, UPPER_LIMIT = 200, 0.95
LARGEST_SHAPE = 0.25
CHANNELS, FREEDOM = 8, 6
ATTACK, DECAY = 0.2, 0.1  # as the manifest's score has them, unless its errors are white
BURN_IN = 4000  # seconds


@dataclass(frozen=True)
class Process:
    """A volatility whose logarithm has this deviation and forgets 63 % in `memory` seconds."""

    name: str
    memory: float
    deviation: float


PROCESSES = (
    Process("volatility of 50 s", 50, 0.25),
    Process("volatility of 10 min", 600, 0.2),
    Process("volatility of 3 h", 10800, 0.2),
)


def simulate(process: Process, seconds: int, recordings: int, seed: int) -> Float32:
    """Smoothed scores [recordings, seconds], one a second."""
    rng = np.random.default_rng(seed)
    keep = np.float32(np.exp(-1 / process.memory))
    kick = np.float32(process.deviation * np.sqrt(1 - keep**2))
    log_volatility = rng.normal(0, process.deviation, recordings).astype(np.float32)
    smooth = np.full(recordings, 2.0, np.float32)
    scores = np.empty((seconds, recordings), np.float32)
    for second in range(-BURN_IN, seconds):
        log_volatility = keep * log_volatility + kick * rng.standard_normal(
            recordings, dtype=np.float32
        )
        raw = _largest_error(rng, recordings) * np.exp(log_volatility)
        smooth += np.where(raw > smooth, np.float32(ATTACK), np.float32(DECAY)) * (raw - smooth)
        if second >= 0:
            scores[second] = smooth
    return np.ascontiguousarray(scores.T)


def _largest_error(rng: np.random.Generator, recordings: int) -> Float32:
    """Largest of the channels' |t| [recordings]: normal over the root of a mean square."""
    normal = rng.standard_normal((CHANNELS, recordings), dtype=np.float32)
    # A chi-square variable with 2 k degrees of freedom is twice a gamma variable of shape k.
    square = rng.standard_gamma(FREEDOM / 2, (CHANNELS, recordings), dtype=np.float32)
    ratio = normal**2 / (square / np.float32(FREEDOM / 2))
    return np.sqrt(ratio.max(axis=0))


def gruard(scores: Float64) -> float:
    """What `gruard calibrate` and the conversion do."""
    return calibrate([scores], [], WISH, 1.0, ALARM).threshold.value


def fitted_shape(scores: Float64) -> float:
    """Debounced and declustered as gruard does, but with the shape fitted too.

    The shape is bounded; the threshold is the upper 95 % value of a parametric bootstrap.
    """
    smooth = debounce(scores, ALARM)
    days = len(smooth) / SECONDS_PER_DAY
    level = float(np.quantile(smooth, LEVELS[0]))
    excesses = peaks(smooth, level, ALARM) - level
    scale, shape = _moments(excesses)
    rng, levels = np.random.default_rng(1), []
    for _ in range(RESAMPLES):
        count = max(int(rng.poisson(len(excesses))), 2)
        again = _moments(_excess(1 / rng.random(count), scale, shape))
        levels.append(level + float(_excess(np.array(count / (WISH * days)), *again)))
    return float(np.quantile(levels, UPPER_LIMIT))


def plain_tail(scores: Float64) -> float:
    """Peaks over threshold as it is usually done: every excess is a peak, the best fit is taken."""
    days = len(scores) / SECONDS_PER_DAY
    level = float(np.quantile(scores, PLAIN_LEVEL))
    excesses = scores[scores > level] - level
    ratio = np.array(len(excesses) / (WISH * days))
    return level + float(_excess(ratio, *_moments(excesses)))


def quantile(scores: Float64) -> float:
    """The score that is exceeded as often as wished; the largest where there is less than a day."""
    return float(np.quantile(scores, 1 - WISH / SECONDS_PER_DAY))


def three_sigma(scores: Float64) -> float:
    """Mean and three standard deviations."""
    return float(scores.mean() + 3 * scores.std())


RULES: dict[str, Rule] = {
    "gruard": gruard,
    "shape fitted, upper 95 %": fitted_shape,
    "plain POT": plain_tail,
    "plain quantile": quantile,
    "mean + 3σ": three_sigma,
}


def _moments(excesses: Float64) -> tuple[float, float]:
    """Scale and bounded shape from probability-weighted moments (Hosking and Wallis 1987)."""
    ordered, count = np.sort(excesses), len(excesses)
    mean = float(ordered.mean())
    smaller = np.arange(count - 1, -1, -1) / max(count - 1, 1)
    weighted = float((ordered * smaller).mean())
    shape = 2 - mean / max(mean - 2 * weighted, 1e-12)
    shape = float(np.clip(shape, -LARGEST_SHAPE, LARGEST_SHAPE))
    return mean * (1 - shape), shape


def _excess(ratio: Float64, scale: float, shape: float) -> Float64:
    """What a generalised Pareto variable exceeds once in `ratio` times; 0 up to a ratio of 1."""
    logs = np.log(np.maximum(ratio, 1.0))
    return scale * (np.expm1(shape * logs) / shape if shape else logs)


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
