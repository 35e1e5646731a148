"""What the anomaly gate is good for: the network with and without its parts, on the same rows.

    python -m benchmarks.gate [--series 'simulator/*'] [--only gated] [--seeds 3] [--jobs 2]

Everything is measured in float with the whole-sequence model. docs/gate.md says what is measured;
this command writes its tables.
"""

from collections.abc import Sequence

from benchmarks.accuracy_report import TITLES, Column, Result, ranking
from benchmarks.gate_subject import GateSubject
from benchmarks.gate_variants import HEARD, HEARD_MEANING, ORACLE, ORACLE_MEANING, VARIANTS
from benchmarks.pages import markdown
from benchmarks.series import group_of
from benchmarks.study_command import Comparison, comparison_command
from benchmarks.study_report import groups_of, table

SERIES = (
    "asd/omi-1",
    "asd/omi-6",
    "tep/plant",
    "nab/machine_temperature",
    "watch/pendulum",
    "simulator/*",
)
STEPS = 1000
COLUMNS = (
    Column("clean error", "clean_error"),
    Column("error during, ×", "error_during", ".2f"),
    Column("error after, ×", "error_after", ".2f"),
    Column("injected AP", "injected_precision"),
    Column("short faults found", "injected_recall", ".2f"),
    Column("long faults seen", "long_share", ".2f"),
    Column("level", "long_level", ".2f"),
    Column("drift", "long_drift", ".2f"),
    Column("stuck", "long_stuck", ".2f"),
    Column("best step", "best_step", ".0f"),
)


def tables(results: Sequence[Result]) -> str:
    """What each variant is, then its figures on all series and on those of each data set."""
    meanings = {name: variant.meaning for name, variant in VARIANTS.items()}
    meanings |= {HEARD: HEARD_MEANING, ORACLE: ORACLE_MEANING}
    parts = [
        markdown(["variant", "what it is"], [[*pair] for pair in meanings.items()]),
        f"### All {len({result.series for result in results})} series",
        table(results, list(meanings), COLUMNS, "variant"),
    ]
    for group in groups_of(results):
        chosen = [result for result in results if group_of(result.series) == group]
        names = ", ".join(sorted({result.series for result in chosen}))
        parts.append(f"### {TITLES[group]}: {names}")
        parts.append(table(chosen, list(meanings), (*COLUMNS, *ranking(group)), "variant"))
    return "\n\n".join(parts)


main = comparison_command(
    Comparison("gate", list(VARIANTS), GateSubject, SERIES, STEPS, tables),
    "Compare variants of the gate on held-out rows with injected faults and on labelled series.",
)

if __name__ == "__main__":
    main()
