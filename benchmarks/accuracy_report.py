"""Results as Markdown tables between two markers, and as a picture.

One table compares the choice among models, which sees no label, with labels. Both gains are of the
gated network over the linear detector: in average precision on faults injected into held-out clean
rows, by which `auto` chooses, and in the main figure of labelled recordings.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.pages import fill_page, markdown, markers
from benchmarks.series import group_of

BEGIN, END = markers("table")
TITLES = {
    "asd": "application servers (ASD)",
    "tep": "chemical plant, simulated (TEP)",
    "nab": "temperatures (NAB)",
    "watch": "smartwatch",
    "simulator": "simulated pump",
}
EMPTY = "–"
AUTO, LINEAR, GATED = "gruard-auto", "gruard-linear", "gruard-gated"
FEWEST = 4  # pairs for a rank correlation


@dataclass(frozen=True)
class Result:
    """The figures of one detector (row of the tables) on one series with one seed."""

    row: str
    series: str
    seed: int
    figures: dict[str, float | None]


@dataclass(frozen=True)
class Cell:
    """A mean over series, and its standard deviation over seeds where there are several."""

    mean: float
    spread: float | None

    def text(self, form: str) -> str:
        """Such as `0.755 ±0.012`, no spread that rounds to 0; a dash where undefined."""
        if math.isnan(self.mean):
            return EMPTY
        spread, nothing = f"{self.spread or 0.0:{form}}", f"{0.0:{form}}"
        return f"{self.mean:{form}}" + ("" if spread == nothing else f" ±{spread}")


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, the figure it shows, its number format and its factor."""

    heading: str
    figure: str
    form: str = ".3f"
    factor: float = 1.0


VUS, AUC = Column("VUS-PR", "vus_pr"), Column("AUC-PR", "auc_pr")


FDR = Column("FDR at 5 % FAR", "fdr")


ALARMS = (
    Column("events found", "event_recall", ".2f"),
    Column("false alarms per 10,000 rows", "false_alarms_per_10000", ".1f"),
    Column("rows in false alarms, %", "false_share", ".1f", 100.0),
    Column("median delay, rows", "median_delay", ".0f"),
    Column("affiliation F1", "affiliation_f1"),
)


COSTS = (
    Column("parameters", "parameters", ",.0f"),
    Column("bytes", "bytes", ",.0f"),
    Column("training, s", "training_seconds", ".1f"),
    Column("conversion, s", "conversion_seconds", ".1f"),
)


def ranking(group: str) -> tuple[Column, ...]:
    """What the scores of a data set are judged by, the main figure first."""
    return (FDR,) if group == "tep" else (VUS, AUC)


def read_results(folder: Path) -> list[Result]:
    """Every stored result, in a fixed order."""
    results = []
    for path in sorted(folder.glob("[!.]*/*/*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        for row, figures in stored["rows"].items():
            results.append(Result(row, stored["series"], stored["seed"], figures))
    return results


def write_report(results: Sequence[Result], machine: str, out: Path, more: str = "") -> None:
    """accuracy.png, and the tables in accuracy.md (made when it is not there).

    more: Markdown to follow the tables.
    """
    out.mkdir(parents=True, exist_ok=True)
    page = out / "accuracy.md"
    if not page.is_file():
        page.write_text(f"# Accuracy\n\n{BEGIN}\n{END}\n", encoding="utf-8")
    fill_page(page, f"{tables(results, machine)}\n\n{more}".rstrip())
    draw(results, out / "accuracy.png")


def tables(results: Sequence[Result], machine: str) -> str:
    """All tables as Markdown: summary, alarms and costs of each data set, every series."""
    groups = _groups(results)
    parts = [f"Measured on: {machine}.", _summary(results, groups)]
    for group in groups:
        chosen = [result for result in results if group_of(result.series) == group]
        count = len({result.series for result in chosen})
        parts.append(f"### {TITLES.get(group, group)}, {count} series")
        parts.append(_table(chosen, [(c, group) for c in (*ranking(group), *ALARMS, *COSTS)]))
    parts += ["### Every series", _per_series(results, groups)]
    return "\n\n".join(parts)


def cell(results: Iterable[Result], row: str, column: Column) -> Cell:
    """Mean over series for each seed, then mean and standard deviation over the seeds.

    Undefined figures are left out, and so are seeds that have not yet seen every series.
    """
    means = _seed_means([result for result in results if result.row == row], column)
    if not means:
        return Cell(math.nan, None)
    return Cell(fmean(means), stdev(means) if len(means) > 1 else None)


def draw(results: Sequence[Result], path: Path) -> None:
    """A panel for each data set: series as faint dots, seeds as dots, their mean as a line."""
    from matplotlib.figure import Figure

    groups, names = _groups(results), _rows(results)
    size = (2.6 * len(groups) + 2, 1.2 + 0.3 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for panel, group in zip(panels, groups, strict=True):
        column = ranking(group)[0]
        for height, name in enumerate(names):
            chosen = [r for r in results if r.row == name and group_of(r.series) == group]
            _draw_row(panel, chosen, column, height, name.startswith("gruard"))
        panel.set(xlabel=column.heading, xlim=(-0.02, 1.02))
        panel.set_title(TITLES.get(group, group), fontsize=9)
        panel.grid(axis="x", color="0.9")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _draw_row(panel: Any, chosen: list[Result], column: Column, y: int, ours: bool) -> None:
    colour = "tab:orange" if ours else "tab:blue"
    single = [_value(result, column) for result in chosen]
    seeds = _seed_means(chosen, column)
    panel.plot(single, [y] * len(single), ".", color="0.75", markersize=4)
    panel.plot(seeds, [y] * len(seeds), "o", color=colour, markersize=5, alpha=0.6)
    if seeds:
        panel.plot([fmean(seeds)], [y], "|", color=colour, markersize=12, markeredgewidth=2)


def _summary(results: Sequence[Result], groups: Sequence[str]) -> str:
    columns = [(column, group) for group in groups for column in ranking(group)]
    titled = [
        (Column(f"{group} {c.heading}", c.figure, c.form, c.factor), group) for c, group in columns
    ]
    return _table(results, titled)


def _table(results: Sequence[Result], columns: Sequence[tuple[Column, str]]) -> str:
    lines = []
    for row in _rows(results):
        cells = []
        for column, group in columns:
            chosen = [result for result in results if group_of(result.series) == group]
            cells.append(cell(chosen, row, column).text(column.form))
        lines.append([row, *cells])
    return markdown(["detector", *(column.heading for column, _ in columns)], lines)


def _per_series(results: Sequence[Result], groups: Sequence[str]) -> str:
    rows = _rows(results)
    lines = []
    for group in groups:
        column = ranking(group)[0]
        names = {result.series for result in results if group_of(result.series) == group}
        for series in sorted(names, key=_natural):
            chosen = [result for result in results if result.series == series]
            found = [cell(chosen, row, column).text(column.form) for row in rows]
            lines.append([series, column.heading, *found])
    return markdown(["series", "figure", *rows], lines)


def _seed_means(chosen: Sequence[Result], column: Column) -> list[float]:
    """For each seed the mean over series of one row's figure."""
    by_seed: dict[int, list[float]] = {}
    for result in sorted(chosen, key=lambda result: result.seed):
        by_seed.setdefault(result.seed, []).append(_value(result, column))
    most = max(map(len, by_seed.values()), default=0)
    defined = [[v for v in values if not math.isnan(v)] for values in by_seed.values()]
    complete = [len(values) == most for values in by_seed.values()]
    return [
        fmean(values) for values, whole in zip(defined, complete, strict=True) if values and whole
    ]


def _value(result: Result, column: Column) -> float:
    value = result.figures[column.figure]
    return math.nan if value is None else value * column.factor


def _groups(results: Iterable[Result]) -> list[str]:
    found = {group_of(result.series) for result in results}
    return sorted(found, key=_position(list(TITLES)))


def _rows(results: Iterable[Result]) -> list[str]:
    """Baselines and variants in the order they are listed, then everything else by name."""
    from benchmarks.baselines import baselines
    from benchmarks.gruard_detector import VARIANTS

    ours = [f"gruard-{variant}{twin}" for variant in VARIANTS for twin in ("", "-float")]
    return sorted({result.row for result in results}, key=_position([*baselines(), *ours]))


def _position(known: Sequence[str]) -> Callable[[str], tuple[int, str]]:
    return lambda name: (known.index(name) if name in known else len(known), name)


def _natural(name: str) -> tuple[str, int]:
    """Orders omi-2 before omi-10."""
    digits = "".join(c for c in name if c.isdigit())
    return name.rstrip("0123456789"), int(digits or 0)


@dataclass(frozen=True)
class ChoiceReport:
    """The gains before and after a choice. labelled: None if it was not measured."""

    series: str
    seed: int
    injected: float
    labelled: float | None
    network: bool


def choices(results: Sequence[Result]) -> list[ChoiceReport]:
    """Return every measured choice between a network and the linear detector."""
    figures = {(r.row, r.series, r.seed): r.figures for r in results}
    found = []
    for result in results:
        linear, gated = (result.figures.get(f"injected_{name}") for name in ("linear", "gated"))
        if result.row != AUTO or linear is None or gated is None:
            continue
        main = ranking(group_of(result.series))[0].figure
        with_gate = figures.get((GATED, result.series, result.seed), {}).get(main)
        without = figures.get((LINEAR, result.series, 0), {}).get(main)
        known = with_gate is not None and without is not None
        found.append(
            ChoiceReport(
                series=result.series,
                seed=result.seed,
                injected=gated - linear,
                labelled=with_gate - without if known else None,  # type: ignore[operator]
                network=(f"{AUTO}-float", result.series, result.seed) in figures,
            )
        )
    return found


def rank_correlation(found: Sequence[ChoiceReport]) -> float | None:
    """Return Spearman's rank correlation of the two gains; None with fewer than `FEWEST` pairs."""
    from scipy.stats import spearmanr

    pairs = [(c.injected, c.labelled) for c in found if c.labelled is not None]
    if len(pairs) < FEWEST:
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def choice_table(results: Sequence[Result]) -> str:
    """Return the choices as Markdown, with the rank correlation; empty without choices."""
    found = choices(results)
    if not found:
        return ""
    lines = []
    for c in found:
        labelled = EMPTY if c.labelled is None else f"{c.labelled:+.3f}"
        taken = "network" if c.network else "linear"
        lines.append([c.series, str(c.seed), f"{c.injected:+.3f}", labelled, taken])
    title = "### The choice between the network and the linear detector"
    header = ["series", "seed", "gain on injected faults", "gain by labels", "taken"]
    correlation = rank_correlation(found)
    said = "too few pairs for a rank correlation" if correlation is None else f"{correlation:.2f}"
    last = f"Rank correlation of the two gains (Spearman): {said}."
    return f"{title}\n\n{markdown(header, lines)}\n\n{last}"
