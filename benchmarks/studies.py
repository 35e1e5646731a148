"""Measurements of one's own kind, as resumable as those of `benchmarks.tasks` and stored alike.

A subject is a detector that brings finished figures instead of scores and alarms.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import click

from benchmarks.judge import Figures
from benchmarks.series import Load, Series
from benchmarks.tasks import Say, read_result, workers
from train.run_folder import json_bytes, write_atomically


class Subject(Protocol):
    """What is measured; it is pickled into worker processes."""

    @property
    def name(self) -> str:
        """Name on the command line and of its file."""

    def measure(self, series: Series, seed: int, scratch: Path) -> Mapping[str, Figures]:
        """Figures by row of the tables; `scratch` is an empty folder that is removed later."""


@dataclass(frozen=True)
class Study:
    """One subject on one series with one seed. load reads the series, in the worker."""

    series: str
    load: Load
    subject: Subject
    seed: int

    @property
    def title(self) -> str:
        """For progress lines."""
        return f"{self.series}, {self.subject.name}, seed {self.seed}"

    def result(self, folder: Path) -> Path:
        """The file that holds the figures once they are there."""
        return folder / self.series / f"{self.subject.name}.{self.seed}.json"


def chosen_series(known: Mapping[str, Load], patterns: Sequence[str]) -> dict[str, Load]:
    """The series that match a pattern, such as `asd/omi-6` or `simulator/*`, as patterns go.

    click.BadParameter for a pattern without any.
    """
    chosen: dict[str, Load] = {}
    for pattern in patterns:
        found = {name: load for name, load in known.items() if fnmatch(name, pattern)}
        if not found:
            raise click.BadParameter(f"no series {pattern}; there are: {', '.join(known)}")
        chosen |= found
    return chosen


def run_studies(studies: Sequence[Study], folder: Path, jobs: int, say: Say) -> list[str]:
    """Do what is not done yet with `jobs` processes; the titles of the studies that failed.

    Each leaves its own file, which appears whole or not at all.
    """
    taken = {study: _seconds(study, folder) for study in studies}
    waiting = [study for study, seconds in taken.items() if seconds is None]
    say(f"{len(studies) - len(waiting)} of {len(studies)} measurements are there already")
    if not waiting:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    with workers(jobs) as executor:
        futures = {executor.submit(measure, study, folder): study for study in waiting}
        for count, future in enumerate(as_completed(futures), len(studies) - len(waiting) + 1):
            study = futures[future]
            waiting.remove(study)
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                raise error
            if error is not None:
                failed.append(study.title)
                what = f"FAILED {study.title}: {type(error).__name__}: {error}"
            else:
                taken[study] = future.result()
                what = f"{study.title}: {future.result():.0f} s"
            left = minutes_left(waiting, taken, jobs)
            say(f"[{count}/{len(studies)}] {what}; about {left:.0f} min left")
        return failed


def minutes_left(waiting: Sequence[Study], taken: Mapping[Study, float | None], jobs: int) -> float:
    """By what the same subject took before, on any series, or any subject where it took nothing."""
    known = [(study, seconds) for study, seconds in taken.items() if seconds is not None]
    every = fmean(seconds for _, seconds in known) if known else 0.0

    def wanted(study: Study) -> float:
        same = [seconds for other, seconds in known if other.subject.name == study.subject.name]
        return fmean(same) if same else every

    return sum(map(wanted, waiting)) / jobs / 60


def measure(study: Study, folder: Path) -> float:
    """Do one study and store its figures; the seconds it took."""
    started = time.monotonic()
    path = study.result(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".scratch-", dir=folder) as scratch:
        rows = study.subject.measure(study.load(), study.seed, Path(scratch))
    seconds = time.monotonic() - started
    result: dict[str, Any] = {
        "series": study.series,
        "detector": study.subject.name,
        "seed": study.seed,
        "seconds": seconds,
        "rows": rows,
    }
    write_atomically(path, json_bytes(result))
    return seconds


def _seconds(study: Study, folder: Path) -> float | None:
    stored = read_result(study.result(folder))
    return None if stored is None else float(stored["seconds"])
