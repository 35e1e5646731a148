"""The benchmark's harness: resumed, interrupted and killed runs, judged figures, reports."""

import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fake_detectors import EVENT, ROWS, Broken, Dying, Fake, Waiting, tiny_series

from benchmarks import series as sources
from benchmarks.accuracy import main
from benchmarks.accuracy_report import (
    VUS,
    Result,
    cell,
    read_results,
    tables,
    write_report,
)
from benchmarks.judge import Contender, ContenderOutcome, judge
from benchmarks.pages import with_tables
from benchmarks.tasks import Task, plan, read_result, run_tasks

ROOT = Path(__file__).resolve().parents[2]
SERIES = {name: partial(tiny_series, name) for name in ("asd/one", "asd/two")}
# A run in a process of its own, to be killed: FOLDER LOG STARTED GATE.
VICTIM = """
import sys
from functools import partial
from pathlib import Path
from fake_detectors import Fake, Waiting, tiny_series
from benchmarks.tasks import plan, run_tasks
if __name__ == "__main__":
    folder, log, started, gate = map(Path, sys.argv[1:])
    series = {"asd/one": partial(tiny_series, "asd/one")}
    detectors = [Fake("fake", log), Waiting("waiting", log, False, started, gate)]
    run_tasks(plan(series, detectors, 1), folder, 1, print)
"""


def run(tasks: list[Task], folder: Path) -> tuple[list[str], list[str]]:
    """Titles that failed, and what was said."""
    said: list[str] = []
    return run_tasks(tasks, folder, 1, said.append), said


def lines(log: Path) -> list[str]:
    """What the fakes wrote, sorted."""
    return sorted(log.read_text().splitlines())


def test_every_seed_of_every_series_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    detectors: list[Contender] = [Fake("plain", log), Fake("seeded", log, seeded=True)]
    tasks = plan(SERIES, detectors, seeds=2)
    failed, said = run(tasks, tmp_path / "work")
    assert not failed
    wanted = [f"{s} {d}" for s in SERIES for d in ("plain 0", "seeded 0", "seeded 1")]
    assert lines(log) == sorted(wanted)
    assert said[0] == "0 of 6 measurements are already done"
    assert said[-1].startswith("[6/6] ") and said[-1].endswith("about 0 min left")
    for task in tasks:
        stored = read_result(task.result(tmp_path / "work"))
        assert stored is not None
        assert (stored["series"], stored["seed"]) == (task.series, task.seed)
        assert stored["rows"][task.detector.name]["vus_pr"] == pytest.approx(1.0, abs=0.1)
    assert not list((tmp_path / "work").glob(".scratch-*"))

    failed, said = run(tasks, tmp_path / "work")
    assert (failed, said) == ([], ["6 of 6 measurements are already done"])
    assert len(lines(log)) == 6


def test_a_failure_is_its_own_and_is_tried_again(tmp_path: Path) -> None:
    tasks = plan(
        {"asd/one": SERIES["asd/one"]},
        [Broken("broken", tmp_path / "mended"), Fake("fake", tmp_path / "log")],
        1,
    )
    failed, said = run(tasks, tmp_path)
    assert failed == ["asd/one, broken"]
    assert any("FAILED asd/one, broken: ValueError: it cannot be done" in line for line in said)
    assert [read_result(task.result(tmp_path)) is None for task in tasks] == [True, False]
    (tmp_path / "mended").touch()
    assert run(tasks, tmp_path)[0] == []
    assert len(lines(tmp_path / "log")) == 1


def test_a_worker_that_dies_ends_the_run(tmp_path: Path) -> None:
    detectors: list[Contender] = [Fake("fake", tmp_path / "log"), Dying("dying", tmp_path / "log")]
    tasks = plan({"asd/one": SERIES["asd/one"]}, detectors, 1)
    with pytest.raises(BrokenProcessPool):
        run(tasks, tmp_path)
    assert [read_result(task.result(tmp_path)) is None for task in tasks] == [False, True]


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on(blow: signal.Signals, tmp_path: Path) -> None:
    script, work, log, started, gate = (
        tmp_path / name for name in ("victim.py", "work", "log", "started", "gate")
    )
    script.write_text(VICTIM)
    work.mkdir()
    os.mkfifo(started)
    os.mkfifo(gate)
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    victim = subprocess.Popen(
        [sys.executable, str(script), *map(str, (work, log, started, gate))],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert started.read_text() == "it runs"
    os.killpg(victim.pid, blow)
    # It ends at once, although its worker would wait for ever.
    assert victim.wait() != 0

    gate.unlink()
    detectors: list[Contender] = [Fake("fake", log), Waiting("waiting", log, False, started, gate)]
    first, second = plan({"asd/one": SERIES["asd/one"]}, detectors, 1)
    assert read_result(first.result(work)) is not None
    assert read_result(second.result(work)) is None
    assert run([first, second], work)[0] == []
    assert lines(log) == ["asd/one fake 0", "asd/one waiting 0"]


def test_a_scratch_folder_is_not_a_result(tmp_path: Path) -> None:
    (tmp_path / ".scratch-1/run").mkdir(parents=True)
    (tmp_path / ".scratch-1/run/config.json").write_text("{}")
    assert read_results(tmp_path) == []


def test_figures_of_a_perfect_detector() -> None:
    series = tiny_series("asd/one")
    truth = series.tests[0].labels != 0
    figures = judge(series, ContenderOutcome([truth.astype(float)], [truth], 3, 12, 0.5, 0.25))
    assert figures["vus_pr"] == figures["auc_pr"] == figures["event_recall"] == 1.0
    assert figures["affiliation_f1"] == pytest.approx(1.0)
    assert figures["false_alarms_per_10000"] == figures["false_share"] == 0.0
    assert figures["median_delay"] == 0.0
    assert (figures["parameters"], figures["bytes"]) == (3.0, 12.0)
    assert (figures["training_seconds"], figures["conversion_seconds"]) == (0.5, 0.25)
    nothing = judge(series, ContenderOutcome([truth.astype(float)], [truth & False], 3, 12, 0.5))
    assert nothing["median_delay"] is None
    assert nothing["event_recall"] == nothing["affiliation_f1"] == 0.0


def test_a_fault_free_recording_makes_it_a_detection_rate() -> None:
    tiny = tiny_series("tep/tiny")
    normal = sources.TestRecording("normal", tiny.tests[0].values, np.zeros(ROWS, np.int8))
    series = sources.Series("tep/tiny", tiny.train, (normal, *tiny.tests), (), 1.0)
    scores = [np.arange(ROWS, dtype=float), np.full(ROWS, 50.0)]
    scores[1][EVENT.start : EVENT.start + 5] = ROWS
    figures = judge(series, ContenderOutcome(scores, [score > 1e9 for score in scores], 0, 0, 0.0))
    assert figures["fdr"] == 5 / 20
    assert "vus_pr" not in figures
    assert figures["event_recall"] == 0.0


def result(row: str, series: str, seed: int, value: float | None) -> Result:
    """A result in which every figure is `value`."""
    names = ("vus_pr", "auc_pr", "fdr", "event_recall", "false_alarms_per_10000", "false_share")
    more = ("median_delay", "affiliation_f1", "parameters", "bytes")
    times = ("training_seconds", "conversion_seconds")
    return Result(row, series, seed, dict.fromkeys((*names, *more, *times), value))


def test_a_cell_is_a_mean_over_series_with_its_spread_over_seeds() -> None:
    results = [
        result("ours", "asd/1", 0, 0.2),
        result("ours", "asd/2", 0, 0.4),
        result("ours", "asd/1", 1, 0.4),
        result("ours", "asd/2", 1, 0.6),
        result("once", "asd/1", 0, 0.75),
        result("empty", "asd/1", 0, None),
    ]
    ours = cell(results, "ours", VUS)
    assert ours.mean == pytest.approx(0.4)
    assert ours.spread == pytest.approx(np.std([0.3, 0.5], ddof=1))
    assert ours.text(".3f") == "0.400 ±0.141"
    assert cell(results, "once", VUS).text(".3f") == "0.750"
    assert cell(results, "empty", VUS).text(".3f") == cell(results, "absent", VUS).text(".3f")
    assert cell(results, "absent", VUS).text(".3f") == "–"
    # A seed that has seen one series only would move the mean without being any better.
    assert cell([*results, result("ours", "asd/1", 2, 1.0)], "ours", VUS) == ours


def test_every_row_column_and_series_is_in_the_tables() -> None:
    results = [
        result(row, series, 0, 0.125)
        for row in ("gruard-gated", "static-z", "flag-all")
        for series in ("tep/plant", "asd/omi-10", "asd/omi-2")
    ]
    text = tables(results, "a machine")
    assert "Measured on: a machine." in text
    summary = text.split("\n\n")[1].splitlines()
    assert summary[0] == "| detector | asd VUS-PR | asd AUC-PR | tep FDR at 5 % FAR |"
    assert [line.split(" | ")[0] for line in summary[2:]] == [
        "| flag-all",
        "| static-z",
        "| gruard-gated",
    ]
    every = text.split("### Every series\n\n")[1].splitlines()
    assert [line.split(" | ")[0] for line in every[2:]] == [
        "| asd/omi-2",
        "| asd/omi-10",
        "| tep/plant",
    ]
    widths = {line.count("|") for line in every}
    assert len(widths) == 1


def test_a_report_is_a_page_and_a_picture(tmp_path: Path) -> None:
    results = [result("static-z", "asd/1", 0, 0.5), result("gruard-gated", "asd/1", 0, None)]
    write_report(results, "a machine", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"accuracy.md", "accuracy.png"}
    assert "| static-z | 0.500 |" in (tmp_path / "accuracy.md").read_text()
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "accuracy.md").read_bytes()
    write_report(results, "a machine", tmp_path)
    assert (tmp_path / "accuracy.md").read_bytes() == page


def test_the_page_of_the_checkout_has_its_markers() -> None:
    with_tables((ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8"), "new")


def test_the_command_measures_and_reports(tmp_path: Path) -> None:
    options = ["--quick", "--series", "simulator", "--detector", "static-z", "--jobs", "1"]
    folders = ["--data", str(tmp_path / "no"), "--watch", str(tmp_path / "no")]
    found = CliRunner().invoke(main, [*options, *folders, "--work", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "asd/omi-1 is left out" in found.output
    assert "[1/1] simulator/0, static-z" in found.output
    page = tmp_path / "quick" / "accuracy.md"
    assert "| simulator/0 | VUS-PR |" in page.read_text()
    page.unlink()
    again = ["--report-only", *folders, "--work", str(tmp_path), "--quick"]
    assert CliRunner().invoke(main, again).exit_code == 0
    assert page.is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--series", "nonsense"], "no series nonsense"),
        (["--detector", "nonsense"], "no detector nonsense; known: flag-all"),
        (["--report-only"], "no result yet"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], words: str, tmp_path: Path) -> None:
    folders = ["--data", str(tmp_path), "--watch", str(tmp_path), "--work", str(tmp_path)]
    found = CliRunner().invoke(main, [*folders, *arguments])
    assert found.exit_code != 0
    assert words in found.output
