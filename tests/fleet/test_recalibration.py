"""Another target for what is learned: the scores give the bundle that learning again would."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_fleet import MakeJob, harmed
from test_task import files

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.calibration import calibrate, margins_of
from edge_runtime.learning.recording import write_recording
from edge_runtime.plain import write_sealed
from fleet.__main__ import cli
from fleet.recalibration import keep_scores, recalibrated
from fleet.results import AssetResult, newest, scores_file
from fleet.table import read_rows
from fleet.task import run_job
from train.simulate import simulate

pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")
LEARNING = "fitting the linear forecast"


def log_of(asset: Path, version: int) -> str:
    return (asset / str(version) / "log").read_text()


@pytest.fixture(params=[160, pytest.param(10_000, marks=pytest.mark.long)])
def data(request: pytest.FixtureRequest, recording: Path, tmp_path: Path) -> Path:
    """A recording of too few rows for a tail of scores, and one of enough."""
    if request.param == 160:
        return recording
    write_recording(tmp_path / "pump.csv", simulate(request.param, seed=1))
    return tmp_path / "pump.csv"


def test_another_target_gives_the_bundle_that_learning_again_would(
    data: Path, job: MakeJob, tmp_path: Path
) -> None:
    asset = tmp_path / "fleet" / "assets" / "pump"
    first = run_job(job("pump", data))
    assert first.good and LEARNING in log_of(asset, 1)
    found = run_job(job("pump", data, target=300.0, run="run2"))
    assert found.version == 2 and LEARNING not in log_of(asset, 2), "nothing was learned"
    assert isinstance(found, AssetResult) and found.target == 300.0
    (threshold,) = read_bundle(tmp_path / "fleet" / found.bundle).manifest.thresholds.values()
    assert threshold.method.startswith("exponential tail" if found.rows > 5000 else "small-sample")
    fast = files(asset / "2")
    shutil.rmtree(asset / "2")
    scores = scores_file(asset)
    assert scores is not None
    scores.unlink()
    learned = run_job(job("pump", data, target=300.0, run="run3"))
    assert learned.version == 2 and LEARNING in log_of(asset, 2)
    slow = files(asset / "2")
    for each in (fast, slow):
        del each["log"], each["result.json"]
    assert fast == slow and len(fast) > 6, "bundle and scores"
    assert isinstance(learned, AssetResult)
    for name in ("threshold", "reason", "rows", "warnings", "kinds", "digest", "design"):
        assert getattr(found, name) == getattr(learned, name), name
    without = run_job(job("pump", "", target=1.0, run="run4"))
    assert without.version == 3 and LEARNING not in log_of(asset, 3)
    assert without.digest == first.digest, "train takes it as its own"
    assert run_job(job("pump", data, run="run5")).reused
    one, three = (read_bundle(tmp_path / "fleet" / each.bundle) for each in (first, without))
    assert one.manifest.thresholds == three.manifest.thresholds


def test_the_threshold_is_that_of_the_kept_scores_and_the_target(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    first, rng = run_job(job("pump", recording)), np.random.default_rng(1)
    bundle, file = tmp_path / "fleet" / first.bundle, tmp_path / "scores-0.npz"
    manifest = read_bundle(bundle).manifest
    clean = [rng.exponential(1, n).astype(np.float32) for n in (3000, 2000)]
    counts = {"left_out": 7, "fitted": 4000}
    known = calibrate(clean, [clean[0][:500]], 1.0, manifest.period, manifest.alarm, **counts)
    keep_scores(known, file)
    found = []
    for target in (100.0, 1.0, 0.1):
        learned = recalibrated(bundle, file, 5, target)
        (threshold,) = learned.manifest.thresholds.values()
        margins = margins_of(manifest)
        again = calibrate(known.clean, known.held_out, target, manifest.period, manifest.alarm,
                          margins, **counts)  # fmt: skip
        assert threshold == again.threshold and learned.manifest.version == 5
        assert "(7 rows like no others left out)" in threshold.statement
        assert "fitted on 4,000 rows" in threshold.statement
        found.append(threshold.value)
    assert found == sorted(found) and len(set(found)) > 1, "a stricter target, a higher threshold"


def test_scores_that_cannot_be_used_are_no_dead_end(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    asset = tmp_path / "fleet" / "assets" / "pump"
    assert run_job(job("pump", recording)).good
    scores = scores_file(asset)
    assert scores is not None
    content = bytearray(scores.read_bytes())
    content[len(content) // 2] ^= 4
    scores.write_bytes(content)
    refused = run_job(job("pump", "", target=2.0))
    assert refused.verdict == "bad input" and f"{scores}: unreadable" in refused.reason
    learned = run_job(job("pump", recording, target=2.0))
    assert learned.good and learned.version == 2 and LEARNING in log_of(asset, 2)
    assert f"learned again: {scores}: unreadable" in log_of(asset, 2)
    changed = harmed(recording, tmp_path / "pump.csv", lambda lines: lines[:-1])
    assert run_job(job("pump", changed, target=3.0)).version == 3
    assert LEARNING in log_of(asset, 3), "the scores are of other rows"


def test_without_scores_of_this_version_of_gruard_the_asset_is_left_to_train(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    asset = tmp_path / "fleet" / "assets" / "pump"
    known = run_job(job("pump", recording))
    write_sealed(asset / "1" / "result.json", AssetResult("pump", "trial", "", digest="other"))
    foreign = run_job(job("pump", "", target=2.0))
    assert "another version of gruard; run fleet train" in foreign.reason
    write_sealed(asset / "1" / "result.json", known)
    scores = scores_file(asset)
    assert scores is not None
    scores.unlink()
    none = run_job(job("pump", "", target=2.0))
    assert none.verdict == "bad input" and "keeps no scores" in none.reason
    assert newest(asset, AssetResult) == known, "the bundle stays"


@pytest.mark.long
def test_a_fleet_gets_a_new_target_without_its_recordings(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    pytest.importorskip("distributed", reason="the fleet is not tested: pip install '.[fleet]'")
    fleet = tmp_path / "fleet"
    assert run_job(job("pump", recording)).good and run_job(job("fan", recording)).good
    scores = scores_file(fleet / "assets" / "fan")
    assert scores is not None
    scores.unlink()
    words = ["calibrate", str(fleet), "--false-alarms-per-day", "0.1", "--workers", "1", "--json"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1, done.output
    assert json.loads(done.stdout)["failed"] == 1
    found = {row.asset: row for row in read_rows(fleet / "fleet.parquet", AssetResult)}
    assert (found["pump"].version, found["pump"].target) == (2, 0.1)
    assert not found["fan"].good and "run fleet train" in found["fan"].reason
    assert json.loads(CliRunner().invoke(cli, words).stdout)["unchanged"] == 1
    missing = CliRunner().invoke(cli, ["calibrate", str(tmp_path / "none"), *words[2:]])
    assert missing.exit_code != 0 and "not the folder of a fleet" in str(missing.exception)
