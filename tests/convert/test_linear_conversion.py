"""Converting a linear run: nothing to quantise, cross-fitted scores, proof by the formula."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from convert.convert_run import Conversion, convert_run
from convert.twins import float_twin
from edge_runtime.bundle.manifest import Forecast, Manifest
from edge_runtime.bundle.reader import CHECKSUM, LINEAR_MEMBERS, checksum, read_bundle
from edge_runtime.calibration import debounce
from edge_runtime.detector.cell import Model
from edge_runtime.detector.interpreter import NoGraph
from edge_runtime.detector.linear import FORECAST_CLIP
from edge_runtime.learning.calibrated import calibrated, clean_rows
from edge_runtime.learning.check import Check
from edge_runtime.learning.formula import formula_checks
from edge_runtime.learning.linear import cut_folds
from edge_runtime.learning.rollout import Rollout, roll, roll_all
from edge_runtime.learning.run import Run, npz_bytes
from edge_runtime.learning.shipped import shipped_model, unchanging
from edge_runtime.record import Flag
from train.run_folder import read_run

ROOT = Path(__file__).resolve().parents[2]
OFF, LARGEST = "linear: forecast off the formula, max", "linear: forecast, max"
GOLDEN, THRESHOLD = "golden vectors: differing", "threshold: off its calibration"
FLOW = 1


@pytest.fixture(scope="module")
def manifest(linear_bundle: Path) -> Manifest:
    return read_bundle(linear_bundle).manifest


@pytest.fixture(scope="module")
def model(manifest: Manifest) -> Model:
    return unchanging(shipped_model(manifest, b""))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows with a hole, a fault and a level beyond every forecast."""
    rows = tiny_model.machine_rows(300, seed=8)
    rows[50:60, FLOW] = np.nan
    rows[100:105, 1:] += 30
    return rows


@pytest.fixture(scope="module")
def rolled(model: Model, rows: np.ndarray) -> Rollout:
    return roll(model, rows)


def failed(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if not check.passed}


@pytest.mark.long
def test_the_shipped_model_and_its_twin_are_one(manifest: Manifest, model: Model) -> None:
    assert isinstance(model.graph, NoGraph)
    twin = float_twin(manifest, b"")
    np.testing.assert_array_equal(twin.lines.highway, model.lines.highway)
    np.testing.assert_array_equal(twin.lines.cross, model.lines.cross)


def test_the_steps_are_the_formula(model: Model, rolled: Rollout) -> None:
    checks = formula_checks(model, [rolled])
    assert [check.name for check in checks] == [OFF, LARGEST] and failed(checks) == set()
    assert checks[0].value < 1e-5 and checks[0].worst in tiny_model.CHANNELS
    assert checks[1].value == float(np.abs(rolled.forecast).max()) > 1


def spoiled_cross(forecast: Forecast) -> Forecast:
    cross = [list(row) for row in forecast.cross]
    cross[FLOW][0] += 0.01
    return replace(forecast, cross=tuple(map(tuple, cross)))


def dropped_cross(forecast: Forecast) -> Forecast:
    return replace(forecast, cross=())


def turned_cross(forecast: Forecast) -> Forecast:
    return replace(forecast, cross=forecast.cross[::-1])


def spoiled_own(forecast: Forecast) -> Forecast:
    first, *rest = (list(row) for row in forecast.highway)
    first[FLOW] += 0.01
    return replace(forecast, highway=tuple(map(tuple, (first, *rest))))


def turned_own(forecast: Forecast) -> Forecast:
    return replace(forecast, highway=forecast.highway[::-1])


HARMS = [spoiled_cross, dropped_cross, turned_cross, spoiled_own, turned_own]


@pytest.mark.parametrize("harm", HARMS, ids=[harm.__name__ for harm in HARMS])
def test_another_highway_than_that_of_the_steps_fails(  # type: ignore[no-untyped-def]
    manifest: Manifest, rolled: Rollout, rows: np.ndarray, harm
) -> None:
    harmed = replace(manifest, forecast=harm(manifest.forecast))
    spoiled = unchanging(shipped_model(harmed, b""))
    assert failed(formula_checks(spoiled, [rolled])) == {OFF}
    assert failed(formula_checks(spoiled, [roll(spoiled, rows)])) == set()


def test_one_wrong_forecast_in_any_rollout_fails(model: Model, rolled: Rollout) -> None:
    forecast = rolled.forecast.copy()
    forecast[-1, 2] += 0.002
    spoiled = replace(rolled, forecast=forecast)
    assert failed(formula_checks(model, [rolled, spoiled])) == {OFF}
    assert failed(formula_checks(model, [spoiled, rolled])) == {OFF}
    forecast[-1, 2] = 1.01 * FORECAST_CLIP
    assert failed(formula_checks(model, [rolled, spoiled])) == {OFF, LARGEST}
    forecast[-1, 2] = np.nan
    checks = formula_checks(model, [rolled, spoiled])
    assert OFF in failed(checks) and checks[0].worst == tiny_model.CHANNELS[2]


def test_an_outage_in_mid_stream_is_no_fault_of_the_formula(model: Model) -> None:
    rows = tiny_model.machine_rows(400, seed=8)
    for start in range(50, 350, 60):
        rows[start : start + 30, 1:] = np.nan  # lost again and again
    rollout = roll(model, rows)
    assert (rollout.flags & Flag.FREE_RUN).any()
    assert not (rollout.flags & Flag.RESET).any()  # nothing that a linear model could lose
    assert failed(formula_checks(model, [rollout])) == set()


@pytest.fixture(scope="module")
def conversion(linear_run: Run) -> Conversion:
    return convert_run(linear_run, 4, 1.0, lambda sentence: None)


@pytest.mark.slow
def test_a_linear_run_converts_without_a_graph(conversion: Conversion) -> None:
    assert conversion.model == conversion.float_model == b""
    assert conversion.manifest.linear and conversion.manifest.version == 4
    assert conversion.verdict.passed and conversion.manifest.validation.passed
    assert [check.name for check in conversion.verdict.checks] == [OFF, LARGEST]
    assert conversion.verdict.warnings == ()
    assert conversion.verdict.evidence is None  # nothing to draw
    assert len(conversion.golden["rows"]) >= 256
    assert not any(name.startswith("codes/") for name in conversion.golden)


# What only the training and conversion of a network may load.
WITHOUT_NETWORKS = """
import runpy, sys
sys.path[:0] = ['']
absent = ['tensorflow', 'keras', 'scipy', 'matplotlib', 'tflite_runtime', 'ai_edge_litert']
sys.modules.update(dict.fromkeys(absent))
module, *sys.argv = sys.argv[1:]
runpy.run_module(module, run_name='__main__')
"""


def test_a_linear_detector_needs_only_numpy(tmp_path: Path) -> None:
    file, run = tmp_path / "rows.csv", tmp_path / "run"
    rows = tiny_model.machine_rows(400, seed=3)
    np.savetxt(file, rows, delimiter=",", header=",".join(tiny_model.CHANNELS), comments="")

    def called(*words: object) -> str:
        command = [sys.executable, "-c", WITHOUT_NETWORKS, *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    # Too few rows for a network: `auto` is linear without a try.
    said = called("train", "train", "fit", file, "--out", run)
    assert "training the linear detector" in said and "TensorFlow" not in said
    assert "linear detector: passed" in called("convert", "convert", run)
    assert read_bundle(run / "bundle" / "run-1.gruard").manifest.validation.passed


@pytest.mark.slow
def test_a_strange_stretch_in_the_recording_is_a_higher_threshold_and_a_warning(
    linear_run: Run, conversion: Conversion, tmp_path: Path
) -> None:
    from convert.bundle_writer import write_bundle
    from convert.report.facts import verdict_text

    rows = [recording.copy() for recording in linear_run.rows["calibrate"]]
    rows[0][200:212, FLOW] += 60
    strange = replace(linear_run, rows={**linear_run.rows, "calibrate": rows})
    found = convert_run(strange, 1, 1.0, lambda sentence: None)
    assert found.verdict.passed and found.manifest.validation.passed
    (warning,) = found.verdict.warnings
    assert "times the usual, more than" in warning and "label those rows or cut them out" in warning
    thresholds = [next(iter(m.manifest.thresholds.values())) for m in (conversion, found)]
    assert thresholds[1].value > 2 * thresholds[0].value
    assert f"warning: {warning}" in verdict_text(found.verdict)
    written = write_bundle(found, tmp_path, force=False)
    assert json.loads((written / "report.json").read_text())["warnings"] == [warning]
    assert f'<p class="fail">{warning}.</p>' in (written / "report.html").read_text()


@pytest.mark.slow
def test_two_conversions_give_the_same_bytes(
    conversion: Conversion, linear_bundle: Path, tmp_path: Path
) -> None:
    from convert.bundle_writer import write_bundle

    same = replace(conversion, manifest=replace(conversion.manifest, version=tiny_model.VERSION))
    written = write_bundle(same, tmp_path, force=False)
    assert {path.name for path in written.iterdir()} == {"manifest.json", CHECKSUM, *LINEAR_MEMBERS}
    for member in ("manifest.json", CHECKSUM, *LINEAR_MEMBERS):
        assert (written / member).read_bytes() == (linear_bundle / member).read_bytes(), member


@pytest.mark.slow
def test_scores_are_centred_by_models_that_never_saw_their_rows(
    linear_run: Run, manifest: Manifest
) -> None:
    assert calibrated(linear_run, b"", 1, 1.0).manifest.score == manifest.score
    # A fold's weights decide about its own rows: others would give another centre.
    weights = dict(linear_run.weights)
    spoiled = {k: 0.98 * v for k, v in weights.items() if k.startswith("fold-3/")}
    harmed = replace(linear_run, weights={**weights, **spoiled})
    found = calibrated(harmed, b"", 1, 1.0).manifest
    assert found.forecast == manifest.forecast and found.score != manifest.score
    assert max(found.score.error_scale[0]) > max(manifest.score.error_scale[0])
    # What ships does not decide about it at all.
    other = replace(linear_run, weights={**weights, "highway": 0.98 * weights["highway"]})
    again = calibrated(other, b"", 1, 1.0).manifest
    assert again.forecast != manifest.forecast and again.score == manifest.score


@pytest.mark.slow
def test_all_clean_rows_are_cross_fitted(linear_run: Run, manifest: Manifest) -> None:
    clean = clean_rows(linear_run)
    parts = ("train", "validate", "calibrate")
    assert [len(rows) for rows in clean] == [tiny_model.ROWS[part] for part in parts]
    pieces = [piece for fold in cut_folds(clean) for piece in fold]
    settled = sum(map(len, pieces)) - len(pieces) * manifest.tiers.warmup
    # The folds of a recording are one stretch of scores again.
    debounced = settled - len(clean) * (manifest.alarm.n - 1)
    (threshold,) = manifest.thresholds.values()
    assert threshold.clean_days * 86400 == pytest.approx(debounced * tiny_model.PERIOD)


def test_unseen_rows_score_as_the_threshold_expects(model: Model) -> None:
    rollouts = roll_all(model, [tiny_model.machine_rows(500, seed=s) for s in (21, 22)])
    scores = np.concatenate([r.score[r.settled] for r in rollouts])
    (threshold,) = model.manifest.thresholds.values()
    heard = debounce(scores.astype(float), model.manifest.alarm)
    assert abs(scores.mean()) < 2 and (heard > threshold.value).mean() < 0.01


def test_a_linear_bundle_is_judged_again_from_the_disk(
    linear_run: Run, linear_bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def judged(bundle: Path) -> tuple[int, dict]:  # type: ignore[type-arg]
        words = ["convert", "validate", str(bundle), "--run", str(linear_run.path), "--json"]
        code = called(words)
        return code, json.loads(capsys.readouterr().out)

    code, facts = judged(linear_bundle)
    names = [check["name"] for check in facts["checks"]]
    assert (code, facts["passed"], names) == (0, True, [GOLDEN, OFF, LARGEST, THRESHOLD])
    copy = Path(shutil.copytree(linear_bundle, tmp_path / linear_bundle.name))
    data = json.loads((copy / "manifest.json").read_text())
    data["forecast"]["cross"][FLOW][0] += 0.01
    text = json.dumps(data).encode()
    (copy / "manifest.json").write_bytes(text)
    (copy / CHECKSUM).write_bytes(checksum(hashlib.sha256(text).hexdigest()))
    code, facts = judged(copy)
    failing = [check["name"] for check in facts["checks"] if not check["passed"]]
    assert code == 1 and GOLDEN in failing


def called(words: list[str]) -> int:
    """Exit code of `python -m convert` in this process."""
    from convert.__main__ import main

    before, sys.argv = sys.argv, words
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_bundle_of_another_run_is_refused(
    linear_run: Run, linear_bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(linear_run.path, tmp_path / "run"))
    weights = {**read_run(copy).weights, "fold-0/highway": linear_run.weights["highway"]}
    (copy / "weights.npz").write_bytes(npz_bytes(weights))
    assert called(["convert", "validate", str(linear_bundle), "--run", str(copy)]) == 2
    assert "was not made from the weights" in capsys.readouterr().err
