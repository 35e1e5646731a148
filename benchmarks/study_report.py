"""Studies as JSON and as Markdown tables between the markers of a page."""

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accuracy_report import EMPTY, TITLES, Column, Result, cell
from benchmarks.machine import machine
from benchmarks.pages import fill_page, markdown
from benchmarks.series import group_of
from train.run_folder import json_bytes, write_atomically

Spread = dict[str, float | None]


def write_page(page: Path, tables: str, results: Sequence[Result], steps: int) -> None:
    """`tables` into the page, and the results into the .json file beside it.

    steps: the most training steps of all results.
    """
    seeds = sorted({result.seed for result in results})
    head = f"Measured on: {machine()}. At most {steps} training steps; seeds: {len(seeds)}."
    fill_page(page, f"{head}\n\n{tables}")
    stored = {
        "machine": machine(),
        "steps": steps,
        "groups": {group: summary(results, group) for group in groups_of(results)},
        "results": [vars(result) for result in results],
    }
    write_atomically(page.with_suffix(".json"), json_bytes(stored))


def summary(results: Sequence[Result], group: str) -> dict[str, dict[str, Spread]]:
    """Of one data set: mean over series and spread over seeds of every figure, by row.

    None where a figure is not defined, or the spread of a single seed.
    """
    chosen = [result for result in results if group_of(result.series) == group]
    found: dict[str, dict[str, Spread]] = {}
    for row in dict.fromkeys(result.row for result in chosen):
        names = sorted({name for r in chosen if r.row == row for name in r.figures})
        cells = {name: cell(_with(chosen, row, name), row, Column("", name)) for name in names}
        found[row] = {
            name: {"mean": None if math.isnan(c.mean) else c.mean, "spread": c.spread}
            for name, c in cells.items()
        }
    return found


def _with(results: Sequence[Result], row: str, figure: str) -> list[Result]:
    """Not every series has every figure."""
    return [result for result in results if result.row == row and figure in result.figures]


def groups_of(results: Sequence[Result]) -> list[str]:
    """Data sets in the order of `TITLES`."""
    found = {group_of(result.series) for result in results}
    return [group for group in TITLES if group in found]


def table(
    results: Sequence[Result], rows: Sequence[str], columns: Sequence[Column], first: str
) -> str:
    """A row for each of `rows` that was measured: mean over series, spread over seeds.

    Columns in which no row has a figure are left out.
    """
    measured = [row for row in rows if any(result.row == row for result in results)]
    cells = {c: [cell(results, row, c).text(c.form) for row in measured] for c in columns}
    shown = [c for c in columns if any(text != EMPTY for text in cells[c])]
    lines = [[row, *(cells[c][i] for c in shown)] for i, row in enumerate(measured)]
    return markdown([first, *(c.heading for c in shown)], lines)
