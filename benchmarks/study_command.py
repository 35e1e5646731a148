"""The command line that comparisons of the network with itself share: measure, resume, report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.accuracy_report import Result, read_results
from benchmarks.series import DATA, WATCH, catalogue
from benchmarks.studies import Study, Subject, chosen_series, run_studies
from benchmarks.study_report import write_page
from benchmarks.tasks import resumable

FOLDER = click.Path(path_type=Path, file_okay=False)
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Comparison:
    """What is compared on what.

    name: of the page in docs and of the folder in runs. subjects: names. subject: makes one of its
    name and the most training steps. series: names or patterns, by default. tables: all results as
    Markdown.
    """

    name: str
    subjects: Sequence[str]
    subject: Callable[[str, int], Subject]
    series: tuple[str, ...]
    steps: int
    tables: Callable[[Sequence[Result]], str]


def comparison_command(comparison: Comparison, summary: str) -> click.Command:
    """The command of one comparison; `summary` is the first paragraph of its help."""

    @click.command(
        context_settings={"help_option_names": ["-h", "--help"]},
        help=f"{summary}\n\nInterrupted, the same command goes on where it stopped. To measure "
        "anew, remove --work.",
    )
    @click.option("--data", default=DATA, type=FOLDER, help="[default: ../shared/data]")
    @click.option("--watch", default=WATCH, type=FOLDER, help="[default: data/watch]")
    @click.option("--work", type=FOLDER, help=f"[default: runs/{comparison.name}]")
    @click.option(
        "--series", multiple=True, default=comparison.series, show_default=True, help="Patterns."
    )
    @click.option("--only", multiple=True, type=click.Choice(comparison.subjects))
    @click.option("--seeds", default=1, show_default=True, type=click.IntRange(1))
    @click.option(
        "--steps",
        default=comparison.steps,
        show_default=True,
        type=click.IntRange(1),
        help="Training steps, at most.",
    )
    @click.option("--jobs", default=2, show_default=True, type=click.IntRange(1))
    @click.option(
        "--page", type=click.Path(path_type=Path), help=f"[default: docs/{comparison.name}.md]"
    )
    @click.option("--report-only", is_flag=True, help="Measure nothing, report what is there.")
    def command(
        data: Path,
        watch: Path,
        work: Path | None,
        series: tuple[str, ...],
        only: tuple[str, ...],
        seeds: int,
        steps: int,
        jobs: int,
        page: Path | None,
        report_only: bool,
    ) -> None:
        # Results of another number of steps must not count as done.
        folder = (work or ROOT / "runs" / comparison.name) / f"steps-{steps}"
        failed: list[str] = []
        if not report_only:
            found = chosen_series(catalogue(data, watch, False, _say), series)
            studies = [
                Study(name, load, comparison.subject(subject, steps), seed)
                for seed in range(seeds)
                for name, load in found.items()
                for subject in only or comparison.subjects
            ]
            with resumable(_say):
                failed = run_studies(studies, folder, jobs, _say)
        results = read_results(folder)
        if not results:
            raise click.ClickException(f"{folder}: no result yet, nothing to report")
        page = page or ROOT / "docs" / f"{comparison.name}.md"
        write_page(page, comparison.tables(results), results, steps)
        _say(f"{page}: {len(results)} measurements")
        if failed:
            raise click.ClickException(f"{len(failed)} failed: {'; '.join(failed)}")

    return command


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)
