"""Scores of a fleet, and what two sets of bundles say about the same recordings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_fleet import MakeJob

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.detector.detector import Detector
from edge_runtime.record import Sample
from fleet.__main__ import cli
from fleet.compare import compare_scores
from fleet.results import AssetScore
from fleet.table import write_table
from fleet.task import run_job

pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")


def scores(folder: Path, *rows: AssetScore) -> Path:
    folder.mkdir()
    write_table(folder / "fleet.parquet", AssetScore, rows)
    return folder


def score(asset: str, alarms: int, data: str = "d") -> AssetScore:
    return AssetScore(asset, "alarms", "", data=data, alarms=alarms, share=alarms / 100, days=1.0)


def test_assets_with_more_alarms_come_first_and_what_differs_is_not_compared(
    tmp_path: Path,
) -> None:
    same = score("same", 2)
    old = scores(
        tmp_path / "old", same, score("more", 0), score("fewer", 5), score("other", 0, "d1"),
        score("gone", 1), score("failed", 0),
    )  # fmt: skip
    failed = AssetScore("failed", "too slow", "took longer than 1 s")
    new = scores(
        tmp_path / "new", score("fewer", 1), same, score("more", 4), score("other", 9, "d2"), failed
    )
    found = compare_scores(old, new)
    assert [c.asset for c in found.changes[:3]] == ["more", "same", "fewer"]
    assert found.worse == 1
    text = found.text()
    assert text.startswith("more: 0 -> 4 alarms in 1 days, 0.00% -> 4.00% of the rows\nfewer: 5 ->")
    for words in ("other: not compared, the two scores are of other data", "gone: not compared",
                  "failed: not compared, the new score failed: took longer"):  # fmt: skip
        assert words in text
    words = ["compare", str(old), str(new), "--json"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1 and json.loads(done.stdout)["counts"]["not compared"] == 3
    assert CliRunner().invoke(cli, ["compare", str(old), str(old)]).exit_code == 0


def test_an_asset_is_scored_as_the_device_scores_it(
    linear_bundle: Path, job: MakeJob, tmp_path: Path
) -> None:
    bundle = read_bundle(linear_bundle)
    rng = np.random.default_rng(1)
    values = (np.array([50, 20, 300]) + rng.normal(0, 1, (300, 3))).astype(np.float32)
    values[100:150, 1] += 1000
    lines = [",".join(bundle.manifest.channel_names), *(",".join(map(str, v)) for v in values)]
    data = tmp_path / "later.csv"
    data.write_text("\n".join(lines) + "\n")
    found = run_job(job("pump", data, bundle=str(linear_bundle)))
    assert isinstance(found, AssetScore) and found.verdict == "alarms", found
    detector = Detector(bundle)
    on = [detector.step(Sample(n, None, row)).alarm for n, row in enumerate(values)]
    assert found.alarms == len(alarm_stretches(on)) and found.share == sum(on) / len(on)
    assert found.first == on.index(True) and found.worst > 1 and found.rows == 300
    again = run_job(job("pump", data, bundle=str(linear_bundle), run="run2"))
    assert again == replace(found, reused=True)


def test_data_that_does_not_fit_the_bundle_is_a_row_with_its_reason(
    linear_bundle: Path, recording: Path, job: MakeJob
) -> None:
    found = run_job(job("pump", recording, bundle=str(linear_bundle)))
    assert isinstance(found, AssetScore) and found.verdict == "bad input"
    assert "pump.csv" in found.reason and "channel" in found.reason
