"""Judging a finished bundle again: with its run, with a recording, and with both."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from convert import revalidate as module
from convert.checks.behaviour import threshold_check
from convert.convert_run import Conversion
from convert.revalidate import revalidate
from convert.validate import NO_LABELS
from edge_runtime.errors import GruardError
from edge_runtime.learning.run import Run

pytestmark = pytest.mark.slow

NAMES = ("set_point", "flow", "heat")
FLOW = 1
GOLDEN, FALSE_ALARMS = "golden vectors: differing", "clean: false alarms, lower bound"


def write_csv(file: Path, rows: np.ndarray, labels: np.ndarray | None = None) -> Path:
    header = [*NAMES, "label"] if labels is not None else [*NAMES]
    table = rows if labels is None else np.column_stack([rows, labels])
    lines = [",".join(f"{value:.6g}" for value in row) for row in table]
    file.write_text("\n".join([",".join(header), *lines]) + "\n")
    return file


def with_faults(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n, 3] with a fault of 30 rows in every 500, and their labels."""
    rows, labels = rows.copy(), np.zeros(len(rows))
    for start in range(400, len(rows) - 30, 500):
        rows[start : start + 30, FLOW] += 25
        labels[start : start + 30] = 1
    return rows, labels


@pytest.mark.long
def test_the_bundle_from_the_disk_gets_the_verdicts_of_its_conversion(
    good_bundle: Path, good_run: Run, conversion: Conversion
) -> None:
    judged = revalidate(good_bundle, good_run.path)
    golden, *checks, threshold = judged.verdict.checks
    assert golden.name == GOLDEN and golden.passed and judged.passed
    assert (threshold.name, threshold.value) == ("threshold: off its calibration", 0)
    assert tuple(checks) == conversion.verdict.checks
    assert judged.verdict.detections == conversion.verdict.detections
    known = [v for v in conversion.proof.others if v.kernel in conversion.manifest.thresholds]
    assert [v.checks[:-1] for v in judged.others] == [v.checks for v in known]


@pytest.mark.long
def test_a_recording_alone_shows_the_golden_bits_and_false_alarms(
    good_bundle: Path, tmp_path: Path
) -> None:
    rows = tiny_model.machine_parts()["calibrate"]  # few: others of this machine are stranger
    judged = revalidate(good_bundle, None, write_csv(tmp_path / "clean.csv", rows))
    names = [check.name for check in judged.verdict.checks]
    assert names == [GOLDEN, FALSE_ALARMS, "clean: state saturated, most"]
    assert judged.passed and len(judged.verdict.not_judged) == 2
    assert all("--run" in what for what in judged.verdict.not_judged)
    faulty, _ = with_faults(tiny_model.machine_rows(1200, seed=43))
    judged = revalidate(good_bundle, None, write_csv(tmp_path / "unlabelled.csv", faulty))
    assert [c.name for c in judged.verdict.checks if not c.passed] == [FALSE_ALARMS]
    assert not judged.passed


@pytest.mark.long
def test_labelled_rows_are_judged_beside_injected_faults(
    good_bundle: Path, good_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "available_kernels", lambda: ())
    rows, labels = with_faults(tiny_model.machine_rows(3000, seed=42))
    file = write_csv(tmp_path / "labelled.csv", rows, labels)
    judged = revalidate(good_bundle, good_run.path, file)
    injected, labelled = judged.verdict.detections
    assert (injected.stream, labelled.stream) == ("faults", "labelled")
    assert {event.kind for event in labelled.events} == {"labelled"}
    there = int(np.diff(labels, prepend=0).clip(0).sum())
    assert there - 1 <= len(labelled.events) <= there  # one may begin while the model settles
    assert NO_LABELS not in judged.verdict.not_judged and judged.passed
    assert "labelled: alarm kappa" in {check.name for check in judged.verdict.checks}


@pytest.mark.long
def test_a_long_rollout_is_as_long_as_it_says(
    good_bundle: Path, good_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONG_STEPS", 3000)
    monkeypatch.setattr(module, "available_kernels", lambda: ())
    judged = revalidate(good_bundle, good_run.path, long=True)
    (clean, _) = judged.verdict.bursts
    assert clean.stream == "clean" and 3000 <= clean.steps < 4000
    (rollout,) = (c for c in judged.verdict.checks if c.name == "rollout: state, RMS")
    assert rollout.meaning == f"over {clean.steps} steps" and judged.others == ()


def test_a_recording_that_cannot_judge_is_refused(good_bundle: Path, tmp_path: Path) -> None:
    short = write_csv(tmp_path / "short.csv", tiny_model.machine_rows(200, seed=1))
    with pytest.raises(GruardError, match=r"short\.csv: only 200 clean rows; .* at least 400"):
        revalidate(good_bundle, None, short)
    rows = tiny_model.machine_rows(500, seed=1)
    everything = write_csv(tmp_path / "all.csv", rows, np.ones(500))
    with pytest.raises(GruardError, match=r"all\.csv: only 0 clean rows"):
        revalidate(good_bundle, None, everything)
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("a,b\n" + "1,2\n" * 500)
    with pytest.raises(GruardError, match=r"foreign\.csv"):
        revalidate(good_bundle, None, foreign)
    with pytest.raises(GruardError, match="give a recording with --data"):
        revalidate(good_bundle, None)


def test_a_spoiled_state_is_told_as_a_burst() -> None:
    from convert.checks.arithmetic import bursts_of

    errors = np.full(1000, 0.01)
    errors[100:140], errors[500] = 0.2, 0.5
    bursts = bursts_of("clean", errors)
    assert (bursts.count, bursts.longest, bursts.largest, bursts.at) == (2, 40, 0.5, 500)
    assert bursts.sentence() == (
        "clean: 2 stretches over 0.05, the longest 40 steps; largest error 0.500 at step 500"
    )
    calm = replace(bursts, count=0, largest=0.04)
    assert calm.sentence() == "clean: no step over 0.05, largest error 0.040"


def test_the_threshold_of_a_machine_that_never_moved_is_judged_too(
    conversion: Conversion,
) -> None:
    (own, *_) = conversion.manifest.thresholds.values()
    still = replace(own, value=0.0, clear=0.0)
    assert threshold_check(still, still).passed
    assert not threshold_check(replace(still, value=1e-3), still).passed
    assert not threshold_check(replace(own, clear=1.002 * own.clear), own).passed
