"""Does the choice among models, which sees no label, agree with labels? A table for the report.

Both gains are of the gated network over the linear detector: in average precision on faults put
into held-out clean rows, by which `auto` chooses, and in the main figure of labelled recordings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.accuracy_report import EMPTY, Result, ranking
from benchmarks.pages import markdown
from benchmarks.series import group_of

AUTO, LINEAR, GATED = "gruard-auto", "gruard-linear", "gruard-gated"
FEWEST = 4  # pairs; a rank correlation of fewer says nothing


@dataclass(frozen=True)
class ChoiceReport:
    """What was seen before the choice and after it. labelled: None where that was not run."""

    series: str
    seed: int
    injected: float
    labelled: float | None
    network: bool


def choices(results: Sequence[Result]) -> list[ChoiceReport]:
    """Every choice among a network and the linear detector that was measured."""
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
    """Spearman's, of the two gains; None for fewer than `FEWEST` pairs."""
    from scipy.stats import spearmanr

    pairs = [(c.injected, c.labelled) for c in found if c.labelled is not None]
    if len(pairs) < FEWEST:
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def choice_table(results: Sequence[Result]) -> str:
    """The choices as Markdown, with the rank correlation; empty without any."""
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
