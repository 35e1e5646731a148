"""`gruard calibrate` as its user meets it: a recording in, a threshold beside the bundle out."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.calibration import calibration_from, rows_of_bundle, scores
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.kernels import KERNEL_ID, XNNPACK_KERNEL_ID, available_kernels
from edge_runtime.detector.thresholds import local_file, threshold_of
from edge_runtime.errors import GruardError
from tests.apparatus.harm import replace_member

NAMES = ("set_point", "flow", "heat")
Ended = subprocess.CompletedProcess[str]


def gruard(*arguments: object) -> Ended:
    command = [sys.executable, "-m", "edge_runtime", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write_csv(file: Path, rows: np.ndarray, labels: np.ndarray | None = None) -> Path:
    columns = [*NAMES, "label"] if labels is not None else [*NAMES]
    table = rows if labels is None else np.column_stack([rows, labels])
    lines = [",".join(f"{value:.6g}" for value in row) for row in table]
    file.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return file


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clean") / "clean.csv"
    return write_csv(file, tiny_model.machine_rows(1200, seed=31))


def test_a_recording_made_here_sets_the_threshold_here(bundle_copy: Path, clean: Path) -> None:
    words = ("calibrate", bundle_copy, "--data", clean, "--false-alarms-per-day", 400)
    ended = gruard(*words, "--json")
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout)
    bundle = read_bundle(bundle_copy)
    assert facts["file"] == str(local_file(bundle_copy)) and facts["kernel"] == KERNEL_ID
    found = threshold_of(bundle, KERNEL_ID)
    assert (found.value, found.wished_per_day) == (facts["value"], 400)
    told = gruard(*words)
    lines = told.stdout.splitlines()
    own = bundle.manifest.thresholds[KERNEL_ID].value
    assert lines[0] == f"threshold {found.value:.2f} (was {own:.2f}) on {KERNEL_ID}"
    assert lines[1] == f"from {clean}: {found.method}" and lines[2] == found.statement
    shown = gruard("inspect", bundle_copy, "--json")
    assert json.loads(shown.stdout)["set here"] == [
        f"{KERNEL_ID}: {found.value:.3f}; {found.statement}"
    ]


@pytest.mark.long
def test_the_new_threshold_is_what_replay_and_run_alarm_on(
    bundle_copy: Path, clean: Path, tmp_path: Path
) -> None:
    assert gruard("calibrate", bundle_copy, "--data", clean).returncode == 0
    value = threshold_of(read_bundle(bundle_copy), KERNEL_ID).value
    out = tmp_path / "records.csv"
    assert gruard("replay", bundle_copy, clean, "--out", out).returncode == 0
    header, *rows = [line.split(",") for line in out.read_text().splitlines()]
    shown = {row[header.index("threshold")] for row in rows if row[header.index("tier")] == "1"}
    (told,) = map(float, shown)
    assert told == pytest.approx(value, rel=1e-6)
    lines = gruard("run", bundle_copy, "--source", clean).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    assert {record["threshold"] for record in records if record["tier"] == 1} == {told}


def test_the_scores_are_those_of_the_shipping_step(bundle_copy: Path) -> None:
    bundle = read_bundle(bundle_copy)
    rows = rows_of_bundle(bundle)
    found = list(scores(Detector(bundle), rows))
    assert len(found) == len(rows) == tiny_model.ROWS["calibrate"]
    warmup = bundle.manifest.tiers.warmup
    assert found[:warmup] == [None] * warmup and None not in found[warmup:]
    own = bundle.manifest.thresholds[KERNEL_ID]
    assert max(score for score in found if score is not None) < own.value
    threshold = calibration_from(found, bundle, own.wished_per_day).threshold
    days = threshold.clean_days + threshold.held_out_days
    debounced = len(rows) - warmup - 2 * (bundle.manifest.alarm.n - 1)
    assert days * 86400 == pytest.approx(debounced * tiny_model.PERIOD)
    assert threshold.held_out_days / days == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("shape", [(), (5,), (5, 2), (5, 3, 1)], ids=str)
def test_clean_samples_of_another_shape_are_refused(
    bundle_copy: Path, shape: tuple[int, ...]
) -> None:
    rows = np.zeros(shape, np.float32)
    file = bundle_copy / "calibration.npz"
    np.savez(file, **{"value/000": rows, "mask/000": rows})
    replace_member(bundle_copy, "calibration.npz", file.read_bytes())
    with pytest.raises(GruardError, match=r"calibration\.npz: not samples of this model"):
        rows_of_bundle(read_bundle(bundle_copy))


@pytest.mark.long
def test_a_kernel_that_the_bundle_does_not_know_is_calibrated_from_the_bundle(
    bundle_copy: Path,
) -> None:
    if XNNPACK_KERNEL_ID not in available_kernels():
        pytest.skip("no interpreter with XNNPACK is installed (ai-edge-litert or TensorFlow)")
    bundle = read_bundle(bundle_copy)
    with pytest.raises(GruardError, match=f"no threshold for kernel {XNNPACK_KERNEL_ID}"):
        Detector(bundle, XNNPACK_KERNEL_ID)
    ended = gruard("calibrate", bundle_copy, "--kernel", XNNPACK_KERNEL_ID)
    assert ended.returncode == 0, ended.stderr
    assert "from the bundle's own clean samples" in ended.stdout
    detector = Detector(bundle, XNNPACK_KERNEL_ID)
    assert list(detector.model.manifest.thresholds) == [XNNPACK_KERNEL_ID]
    own = bundle.manifest.thresholds[KERNEL_ID].value
    assert threshold_of(bundle, XNNPACK_KERNEL_ID).value == pytest.approx(
        own, rel=0.35
    )  # of fewer scores, so higher


def refused(ended: Ended) -> str:
    assert ended.returncode == 2 and not ended.stdout
    (line,) = ended.stderr.splitlines()
    assert line.startswith("gruard: ")
    return line


@pytest.mark.long
def test_what_cannot_be_calibrated_is_one_line_and_leaves_nothing(
    bundle_copy: Path, clean: Path, tmp_path: Path
) -> None:
    call = ("calibrate", bundle_copy, "--data")
    assert "record the healthy machine here and give --data" in refused(gruard(*call[:2]))
    assert "nowhere.csv" in refused(gruard(*call, tmp_path / "nowhere.csv"))
    short = write_csv(tmp_path / "short.csv", tiny_model.machine_rows(20, seed=1))
    assert "record the healthy machine for longer" in refused(gruard(*call, short))
    labels = np.zeros(300)
    labels[200:] = 1
    marked = write_csv(tmp_path / "marked.csv", tiny_model.machine_rows(300, seed=1), labels)
    assert "row 201 is labelled anomalous" in refused(gruard(*call, marked))
    strange = tiny_model.machine_rows(600, seed=31)
    strange[300:360, 1] += 60
    odd = write_csv(tmp_path / "odd.csv", strange)
    assert "times as high as the usual ones; is the machine healthy" in refused(gruard(*call, odd))
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("a,b,c\n1,2,3\n")
    assert "foreign.csv" in refused(gruard(*call, foreign))
    assert "no such bundle" in refused(gruard("calibrate", tmp_path / "none.gruard"))
    assert not local_file(bundle_copy).exists()


def test_more_clean_days_assure_the_wish(bundle_copy: Path) -> None:
    bundle = read_bundle(bundle_copy)
    rng = np.random.default_rng(0)
    calm = list(rng.exponential(1.0, 40_000))
    few = calibration_from(calm, bundle, 5.0).threshold
    many = calibration_from(calm * 5, bundle, 5.0).threshold
    assert not few.assured and few.days_needed > 0
    assert many.held_out_days > few.held_out_days and (many.assured or many.held_out_alarms)
