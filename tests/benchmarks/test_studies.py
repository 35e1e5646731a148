"""Studies: resumed, failed and reported alike."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import pytest
from fake_detectors import tiny_series

from benchmarks.accuracy_report import BEGIN, END, Column, Result
from benchmarks.judge import Figures
from benchmarks.series import Series
from benchmarks.studies import Study, chosen_series, minutes_left, run_studies
from benchmarks.study_report import table, write_page

LOAD = partial(tiny_series, "asd/one")


@dataclass(frozen=True)
class FakeSubject:
    """The number of rows of the series; fails while the file `mended` is not there."""

    name: str
    log: Path
    mended: Path | None = None

    def measure(self, series: Series, seed: int, scratch: Path) -> Mapping[str, Figures]:
        """One row."""
        assert scratch.is_dir() and not list(scratch.iterdir())
        with self.log.open("a") as log:
            log.write(f"{self.name} {seed}\n")
        if self.mended is not None and not self.mended.exists():
            raise ValueError("it cannot be done")
        return {self.name: {"rows": float(series.train[0].rows)}}


def test_what_is_done_stays_done_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    work, log, mended = tmp_path / "work", tmp_path / "log", tmp_path / "mended"
    subjects = [FakeSubject("sound", log), FakeSubject("broken", log, mended)]
    studies = [Study("asd/one", LOAD, subject, 3) for subject in subjects]
    said: list[str] = []
    assert run_studies(studies, work, 1, said.append) == ["asd/one, broken, seed 3"]
    assert said[0] == "0 of 2 measurements are there already"
    assert any("FAILED asd/one, broken, seed 3: ValueError" in line for line in said)
    mended.touch()
    assert run_studies(studies, work, 1, said.append) == []
    assert run_studies(studies, work, 1, said.append) == []
    assert said[-1] == "2 of 2 measurements are there already"
    assert log.read_text().splitlines() == ["sound 3", "broken 3", "broken 3"]
    stored = json.loads((work / "asd" / "one" / "broken.3.json").read_text())
    assert stored["rows"] == {"broken": {"rows": 200.0}} and stored["detector"] == "broken"
    assert not list(work.glob(".scratch-*"))


def test_the_time_left_follows_what_the_same_subject_took(tmp_path: Path) -> None:
    short, long, new = (FakeSubject(name, tmp_path) for name in ("short", "long", "new"))
    studies = [Study("asd/one", LOAD, s, seed) for s in (short, long, new) for seed in (0, 1)]
    taken = {studies[0]: 60.0, studies[2]: 600.0}
    assert minutes_left([studies[1]], taken, 1) == 1.0
    assert minutes_left([studies[3]], taken, 2) == 5.0
    assert minutes_left([studies[4]], taken, 1) == 5.5
    assert minutes_left(studies, {}, 1) == 0.0


def test_series_by_pattern() -> None:
    known = dict.fromkeys(("asd/omi-1", "asd/omi-10", "simulator/0"), LOAD)
    assert list(chosen_series(known, ["sim*", "asd/omi-1"])) == ["simulator/0", "asd/omi-1"]
    assert list(chosen_series(known, ["asd/*"])) == ["asd/omi-1", "asd/omi-10"]
    with pytest.raises(click.BadParameter, match="no series tep"):
        chosen_series(known, ["asd/*", "tep"])


def test_a_page_and_its_figures(tmp_path: Path) -> None:
    page = tmp_path / "gate.md"
    page.write_text(f"# Gate\n\n{BEGIN}\nold\n{END}\n\nAfterwards.\n")
    results = [Result("a", "asd/one", seed, {"x": 0.5 + seed, "y": None}) for seed in (0, 1)]
    columns = [Column("X", "x", ".1f"), Column("Y", "y")]
    write_page(page, table(results, ["b", "a"], columns, "row"), results, 60)
    text = page.read_text()
    assert "old" not in text and text.endswith("Afterwards.\n")
    assert "At most 60 training steps; seeds: 2." in text
    assert "| row | X |\n| --- | ---: |\n| a | 1.0 ±0.7 |" in text
    stored = json.loads(page.with_suffix(".json").read_text())
    assert stored["steps"] == 60 and len(stored["results"]) == 2
    spread = pytest.approx(0.5**0.5)
    nothing = {"mean": None, "spread": None}
    assert stored["groups"] == {"asd": {"a": {"x": {"mean": 1.0, "spread": spread}, "y": nothing}}}
