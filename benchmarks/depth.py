"""Networks of every depth, from training to the verdict on the int8 model, in one table.

    python -m benchmarks.depth [--series simulator/0] [--only gru-2] [--seeds 1] [--jobs 2]

docs/depth.md says what is measured; this command writes its tables.
"""

import math
from collections.abc import Sequence

from benchmarks.accuracy_report import EMPTY, Column, Result, cell, ranking
from benchmarks.depth_subject import DEPTHS, FAILED, DepthSubject
from benchmarks.pages import markdown
from benchmarks.series import group_of
from benchmarks.study_command import Comparison, comparison_command

SERIES = ("simulator/0", "asd/omi-6")
STEPS = 1000
COLUMNS = (
    Column("parameters", "parameters", ",.0f"),
    Column("model.tflite, bytes", "model_bytes", ",.0f"),
    Column("training, s", "training_seconds", ",.0f"),
    Column("conversion, s", "conversion_seconds", ",.0f"),
    Column("injected AP", "injected_precision"),
)
CHECKED = "verdict"


def tables(results: Sequence[Result]) -> str:
    """A table for each series: a row for each depth."""
    parts = []
    for series in sorted({result.series for result in results}):
        chosen = [result for result in results if result.series == series]
        columns = (*COLUMNS, ranking(group_of(series))[0])
        lines = [
            [row, *(cell(chosen, row, c).text(c.form) for c in columns), verdict(chosen, row)]
            for row in DEPTHS
            if any(result.row == row for result in chosen)
        ]
        parts.append(f"### {series}")
        parts.append(markdown(["depth", *(c.heading for c in columns), CHECKED], lines))
    return "\n\n".join(parts)


def verdict(results: Sequence[Result], row: str) -> str:
    """Whether every seed passed, or which checks failed, with the value farthest from 0."""
    mine = [result.figures for result in results if result.row == row]
    failed: dict[str, float] = {}
    for figures in mine:
        for name, value in figures.items():
            if name.startswith(FAILED):
                size = math.inf if value is None else value
                failed[name] = max(failed.get(name, size), size, key=abs)
    if not failed:
        return "passed"
    what = "; ".join(
        f"{name.removeprefix(FAILED)} {EMPTY if math.isinf(value) else format(value, '.3g')}"
        for name, value in sorted(failed.items())
    )
    passed = sum(1 for figures in mine if figures["passed"])
    return f"{passed} of {len(mine)} passed; {what}" if len(mine) > 1 else f"failed: {what}"


main = comparison_command(
    Comparison("depth", list(DEPTHS), DepthSubject, SERIES, STEPS, tables),
    "Train, convert and judge networks of different depth.",
)

if __name__ == "__main__":
    main()
