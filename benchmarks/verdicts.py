"""The whole int8-against-float verdict on many machines: what passes, by how much, at what cost.

    python -m benchmarks.verdicts [--data FOLDER] [--series 'asd/*'] [--jobs 2]

By default the series that the repository can make. docs/verdicts.md says what is measured; this
command writes its tables.
"""

from collections.abc import Sequence

from benchmarks.accuracy_report import EMPTY, Column, Result
from benchmarks.depth import verdict
from benchmarks.pages import markdown
from benchmarks.study_command import Comparison, comparison_command
from benchmarks.verdict_subject import ON, VerdictSubject

SERIES = ("watch/*", "simulator/*")
STEPS = 1000  # as `python -m train fit` has it
HEAD = (
    "series",
    "channels",
    "rows",
    "model",
    "bytes",
    "faults found, int8 and float",
    "alarms on unseen clean days",
    "promise",
    "verdict",
)
# The figure of each is the name of the check, its heading ends in the limits.
CHECKS = (
    Column("gate, max ≤ 0.06", "one step: gate, max"),
    Column("forecast, RMS ≤ 0.08", "one step: forecast, RMS"),
    Column("forecast, max ≤ 0.5", "one step: forecast, max"),
    Column("state, RMS ≤ 0.02", "one step: state, RMS", ".4f"),
    Column("rollout ≤ 0.05", "rollout: state, RMS", ".4f"),
    Column("residual variance 0.95–1.05", "clean: residual variance, worst channel"),
    Column("gates apart, % ≤ 2", "clean: gates that disagree", ".2f"),
    Column("rank correlation ≥ 0.97", "clean: score rank correlation", ".4f"),
    Column("state in faults ≤ 0.05", "faults: state, RMS", ".4f"),
    Column("AUC lost ≤ 0.005", "faults: AUC lost", ".4f"),
    Column("alarms agree, % ≥ 99.5", "faults: alarm agreement", ".2f"),
    Column("kappa ≥ 0.97", "faults: alarm kappa"),
    Column("delay shift ≤ 2", "faults: delay shift, p95", ".1f"),
)


def tables(results: Sequence[Result]) -> str:
    """What was judged and how it ended, the figures of the networks, and the other kernels."""
    reference = [result for result in results if ON not in result.row]
    networks = [result for result in reference if not _linear(result)]
    judged = markdown(HEAD, [_judged(result) for result in reference])
    figures = markdown(
        ["series", *(column.heading for column in CHECKS)],
        [[_name(r), *(_cell(r, column) for column in CHECKS)] for r in networks],
    )
    return "\n\n".join([judged, "### Worst figures of each network", figures, *_others(results)])


def _judged(result: Result) -> list[str]:
    return [
        _name(result),
        f"{result.figures['channels']:.0f}",
        f"{result.figures['rows']:,.0f}",
        _model(result),
        EMPTY if _linear(result) else f"{result.figures['model_bytes']:,.0f}",
        _found(result),
        f"{result.figures['held_out_alarms']:.0f} in {result.figures['held_out_days']:.2g}",
        _promise(result),
        verdict([result], result.row),
    ]


def _linear(result: Result) -> bool:
    return not result.figures["model_bytes"]


def _name(result: Result) -> str:
    return f"{result.series}, seed {result.seed}" if result.seed else result.series


def _model(result: Result) -> str:
    """Such as `gated, 1 × 32`: layers and units of the recurrent part."""
    figures = result.figures
    size = f", {figures['gru_layers']:.0f} × {figures['gru_units']:.0f}"
    chosen = "" if figures["taken"] else " (not taken)"
    return f"{result.row}{'' if _linear(result) else size}{chosen}"


def _found(result: Result) -> str:
    if _linear(result):
        return EMPTY
    int8, floating, events = (
        result.figures[f"faults: {name}"] for name in ("int8 finds", "float finds", "events")
    )
    return f"{int8:.0f} and {floating:.0f} of {events:.0f}"


def _promise(result: Result) -> str:
    if result.figures["assured"]:
        return "assured"
    return f"{result.figures['days_needed']:.1f} days more"


def _cell(result: Result, column: Column) -> str:
    # A network without a gate has no figure of one.
    value = result.figures.get(column.figure)
    return EMPTY if value is None else format(value, column.form)


def _others(results: Sequence[Result]) -> list[str]:
    """A sentence for each further kernel, and who failed on it."""
    sentences = []
    for kernel in sorted({r.row.split(ON)[1] for r in results if ON in r.row}):
        chosen = [r for r in results if r.row.endswith(ON + kernel)]
        failed = [f"{_name(r)}: {verdict([r], r.row)}" for r in chosen if not r.figures["passed"]]
        passed = f"On {kernel} {len(chosen) - len(failed)} of {len(chosen)} networks pass"
        sentences.append(f"{passed}{''.join(f'; {each}' for each in failed)}.")
    return sentences


main = comparison_command(
    Comparison("verdicts", ["default"], VerdictSubject, SERIES, STEPS, tables),
    "Train, convert and judge the default model of many machines.",
)

if __name__ == "__main__":
    main()
