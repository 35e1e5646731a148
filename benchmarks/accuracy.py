"""Accuracy of gruard and of simpler detectors, on the same series, by the same rules.

    python -m benchmarks.accuracy [--quick] [--series asd] [--detector ar-sum] [--jobs 2]

Every detector learns from clean recordings only, and its alarm threshold from clean rows that it
did not learn from. docs/accuracy.md says what is measured; this command writes its tables.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from benchmarks.judge import Contender
    from benchmarks.series import Load

FOLDER = click.Path(path_type=Path, file_okay=False)
# A folder is found from the checkout, wherever the command is started.
ROOT = Path(__file__).resolve().parents[1]
QUICK = ("random", "static-z", "t2-ewma", "ar-sum", "var-t2", "gruard-linear", "gruard-gated")
QUICK_STEPS = 100


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data", type=FOLDER, help="Open data folder.  [default: ../shared/data next to the checkout]"
)
@click.option(
    "--watch", type=FOLDER, help="Folder of `python -m train watch`.  [default: data/watch]"
)
@click.option("--work", type=FOLDER, help="Results so far.  [default: runs/accuracy]")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--series", multiple=True, help="Series or data set, such as asd/omi-3 or asd.")
@click.option("--detector", multiple=True, help="Detector, such as ar-sum or gruard-gated.")
@click.option("--quick", is_flag=True, help="A few minutes: few series, baselines and steps.")
@click.option(
    "--out", type=FOLDER, help="Where the report goes.  [default: docs, with --quick its results]"
)
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option("--report-only", is_flag=True, help="Measure nothing, report what is there.")
def main(
    data: Path | None,
    watch: Path | None,
    work: Path | None,
    seeds: int,
    series: tuple[str, ...],
    detector: tuple[str, ...],
    quick: bool,
    out: Path | None,
    jobs: int,
    report_only: bool,
) -> None:
    """Compare detectors on labelled series.

    After an interruption the same command continues. To measure again, remove --work.
    """
    from benchmarks.series import DATA, WATCH, catalogue
    from benchmarks.tasks import plan, resumable, run_tasks

    folder = (work or ROOT / "runs" / "accuracy") / ("quick" if quick else "full")
    found = _chosen_series(catalogue(data or DATA, watch or WATCH, quick, _say), series)
    tasks = plan(found, _chosen_detectors(quick, detector), 1 if quick else seeds)
    failed: list[str] = []
    if not report_only:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_scratch(folder)
        with resumable(_say):
            failed = run_tasks(tasks, folder, jobs, _say)
    _report(folder, out or (folder if quick else ROOT / "docs"))
    if failed:
        raise click.ClickException(f"{len(failed)} failed: {'; '.join(failed)}")


def detectors(quick: bool) -> "Mapping[str, Contender]":
    """Return all detectors by name: first the baselines, then variants of gruard."""
    from benchmarks.baselines import baselines
    from benchmarks.gruard_detector import VARIANTS, GruardDetector

    ours = [GruardDetector(variant, QUICK_STEPS if quick else None) for variant in VARIANTS]
    return {**baselines(), **{detector.name: detector for detector in ours}}


def _chosen_detectors(quick: bool, names: Sequence[str]) -> "list[Contender]":
    known = detectors(quick)
    for name in names:
        if name not in known:
            raise click.BadParameter(f"no detector {name}; known: {', '.join(known)}")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    return [detector for name, detector in known.items() if not quick or name in QUICK]


def _chosen_series(known: "Mapping[str, Load]", names: Sequence[str]) -> "dict[str, Load]":
    for name in names:
        if not any(_matches(series, name) for series in known):
            raise click.BadParameter(f"no series {name}; there are: {', '.join(known)}")
    return {
        series: load
        for series, load in known.items()
        if not names or any(_matches(series, name) for name in names)
    }


def _matches(series: str, name: str) -> bool:
    return series == name or series.startswith(f"{name}/")


def _remove_scratch(folder: Path) -> None:
    """Remove the scratch folders of a killed run; only one run uses a folder at a time."""
    for scratch in folder.glob(".scratch-*"):
        shutil.rmtree(scratch, ignore_errors=True)


def _report(folder: Path, out: Path) -> None:
    from benchmarks.accuracy_report import choice_table, read_results, write_report
    from benchmarks.pages import machine

    results = read_results(folder)
    if not results:
        raise click.ClickException(f"{folder}: no result yet, nothing to report")
    write_report(results, machine(), out, choice_table(results))
    _say(f"{out / 'accuracy.md'}: {len(results)} measurements on {machine()}")


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)


if __name__ == "__main__":
    main()
