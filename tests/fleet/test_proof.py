"""Bundles proven again: sound ones, damaged ones, misplaced ones, and detectors that alarm."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_fleet import MakeJob

from edge_runtime.bundle.reader import MEMBERS, checksum, read_bundle
from edge_runtime.learning.run import npz_bytes
from edge_runtime.plain import read_sealed, write_sealed
from fleet.__main__ import cli
from fleet.proof import prove_bundle
from fleet.results import AssetProof, AssetResult
from fleet.table import read_rows
from fleet.task import run_job

pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")
Edit = Callable[[Path], None]


@pytest.fixture(params=["linear_bundle", "tiny_bundle"])
def placed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A bundle in its place in a fleet: a linear one, and one with a network."""
    return place(request.getfixturevalue(request.param), tmp_path / "bundles")


def place(bundle: Path, fleet: Path, version: int = 1) -> Path:
    """Copy `bundle` to where a fleet has it, with its result; return the copy."""
    manifest = read_bundle(bundle).manifest
    folder = fleet / "assets" / manifest.name / str(version)
    copy = folder / f"{manifest.name}-{version}.gruard"
    shutil.copytree(bundle, copy)
    row = AssetResult(manifest.name, "assured", "", bundle=str(copy.relative_to(fleet)))
    write_sealed(folder / "result.json", row)
    return copy


def name_of(bundle: Path) -> str:
    return bundle.parents[1].name


def flip(file: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def sign_manifest(bundle: Path, change: Callable[[dict], None]) -> None:
    """Change the manifest, and its checksum with it."""
    facts = json.loads((bundle / "manifest.json").read_text())
    change(facts)
    text = json.dumps(facts).encode()
    (bundle / "manifest.json").write_bytes(text)
    (bundle / "manifest.sha256").write_bytes(checksum(hashlib.sha256(text).hexdigest()))


def test_a_sound_bundle_is_proven_each_time(placed: Path, job: MakeJob) -> None:
    asked = job(name_of(placed), "", bundle=str(placed), proof=True)
    found = run_job(asked)
    assert isinstance(found, AssetProof) and found.verdict == "proven", found
    bundle = read_bundle(placed)
    assert found.steps == len(bundle.arrays("golden.npz")["rows"]) and found.cpu_seconds > 0
    assert (0 < found.off < 1e-3) if bundle.manifest.linear else found.off == -1
    flip(placed / "golden.npz")
    again = run_job(asked)
    assert again.verdict == "damaged" and "golden.npz" in again.reason, "no earlier proof counts"


def test_a_flipped_bit_in_any_file_is_found(placed: Path) -> None:
    files = sorted(file.name for file in placed.iterdir())
    assert {*files} >= {*MEMBERS} - {"model.tflite"}
    for name in files:
        whole = (placed / name).read_bytes()
        flip(placed / name)
        found = prove_bundle(name_of(placed), placed)
        assert found.verdict == "damaged", (name, found)
        assert name in found.reason or "manifest" in name, (name, found)
        assert "fleet train again" in found.reason
        (placed / name).write_bytes(whole)
    assert prove_bundle(name_of(placed), placed).good
    shutil.rmtree(placed)
    assert "no such bundle" in prove_bundle(name_of(placed), placed).reason


def test_a_bundle_of_another_version_asset_or_schema_is_found(
    linear_bundle: Path, tmp_path: Path
) -> None:
    older = place(linear_bundle, tmp_path, version=2)
    found = prove_bundle("straight", older)
    assert found.verdict == "damaged" and "holds version 1 of straight" in found.reason
    right = place(linear_bundle, tmp_path)
    assert "of pump should be" in prove_bundle("pump", right).reason
    sign_manifest(right, lambda facts: facts.update(schema=99))
    found = prove_bundle("straight", right)
    assert found.verdict == "damaged" and "schema" in found.reason


def test_a_whole_bundle_that_was_not_learned_here_is_found(placed: Path) -> None:
    file = placed.parent / "result.json"
    row = read_sealed(file, AssetResult)
    assert row is not None
    write_sealed(file, replace(row, bundle_digest=read_bundle(placed).digest))
    assert prove_bundle(name_of(placed), placed).verdict == "proven"
    sign_manifest(
        placed, lambda facts: facts["alarm"].update(clear_after=facts["alarm"]["clear_after"] + 1)
    )
    found = prove_bundle(name_of(placed), placed)
    assert found.verdict == "damaged" and "not the bundle that was learned" in found.reason


def test_other_answers_than_the_recorded_ones_fail(placed: Path) -> None:
    arrays = {**read_bundle(placed).arrays("golden.npz")}
    arrays["score"] = arrays["score"].copy()
    arrays["score"][-1] = np.nextafter(arrays["score"][-1], np.float32(np.inf))
    content = npz_bytes(arrays)
    (placed / "golden.npz").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    sign_manifest(placed, lambda facts: facts["members"].update({"golden.npz": digest}))
    found = prove_bundle(name_of(placed), placed)
    assert found.verdict == "failed proof" and "self-test failed" in found.reason, found


def test_steps_that_are_off_the_formula_fail(
    linear_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = place(linear_bundle, tmp_path)
    monkeypatch.setattr("edge_runtime.learning.formula.FORECAST_CLIP", np.float32(1e-2))
    found = prove_bundle("straight", placed)
    assert found.verdict == "failed proof" and "off the formula" in found.reason and found.off > 0


def test_alarms_beyond_the_target_fail(linear_bundle: Path, job: MakeJob, tmp_path: Path) -> None:
    placed, data = place(linear_bundle, tmp_path / "bundles"), tmp_path / "later.csv"
    bundle = read_bundle(placed)
    center = np.array([channel.center for channel in bundle.manifest.channels])
    values = np.tile(center, (300, 1)) + np.random.default_rng(1).normal(0, 0.1, (300, len(center)))

    def proven() -> AssetProof:
        lines = [bundle.manifest.channel_names, *values.tolist()]
        data.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
        found = run_job(job("straight", data, bundle=str(placed), proof=True))
        assert isinstance(found, AssetProof)
        return found

    quiet = proven()
    assert (quiet.verdict, quiet.alarms, quiet.rows) == ("proven", 0, 300), quiet
    values[100:150, 1] += 1000
    loud = proven()
    assert loud.verdict == "over target" and loud.alarms > 0 and loud.steps > 0, loud
    data.write_text("other\n" + "1\n" * 300)
    strange = run_job(job("straight", data, bundle=str(placed), proof=True))
    assert strange.verdict == "bad input" and "later.csv" in strange.reason


def validate(*words: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["validate", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.long
def test_every_newest_bundle_of_a_fleet_has_a_row(
    linear_bundle: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("distributed", reason="the fleet is not tested: pip install '.[fleet]'")
    fleet, out = tmp_path / "fleet", tmp_path / "proofs"
    linear, network = (place(each, fleet) for each in (linear_bundle, tiny_bundle))
    listed = tmp_path / "list.csv"
    listed.write_text("asset,data\ngone,gone.csv\n")
    words = (fleet, listed, "--out", out, "--workers", "1", "--json")
    code, said, _ = validate(*words)
    facts = json.loads(said)
    assert code == 1 and facts["verdicts"] == {"proven": 2, "bad input": 1}
    found = {row.asset: row for row in read_rows(out / "fleet.parquet", AssetProof)}
    assert [*found] == ["gone", name_of(linear), name_of(network)]
    assert "no bundle of gone" in found["gone"].reason
    flip(network / "model.tflite")
    code, said, _ = validate(fleet, "--out", out, "--workers", "1", "--json")
    assert code == 1 and json.loads(said)["verdicts"] == {"proven": 1, "damaged": 1}
    assert "damaged: " in (out / "report.html").read_text()
    assert not list((out / "assets").glob("*")), "a proof leaves no folder behind"
