"""Whole runs: on a cluster of this machine, and on a scheduler and workers that are killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_fleet import appears, harmed, nan_everywhere

from fleet.__main__ import cli
from fleet.results import AssetResult
from fleet.simulate import write_pumps
from fleet.table import read_rows

pytest.importorskip("distributed", reason="the fleet is not tested: pip install '.[fleet]'")
pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")

ROOT = Path(__file__).resolve().parents[2]
MAKE = ROOT.parent / "shared" / "strangers" / "make.py"


def fleet(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, list(map(str, words)))


def rows(folder: Path) -> dict[str, AssetResult]:
    return {row.asset: row for row in read_rows(folder / "fleet.parquet", AssetResult)}


@pytest.fixture
def assets(recording: Path, tmp_path: Path) -> Path:
    """A folder of two pumps, a folder of an asset, and a recording without readings."""
    folder = tmp_path / "assets"
    folder.mkdir()
    for number in range(2):
        shutil.copy(recording, folder / f"pump-{number}.csv")
    (folder / "plant").mkdir()
    shutil.copy(recording, folder / "plant" / "may.csv")
    harmed(recording, folder / "nan.csv", nan_everywhere)
    return folder


@pytest.mark.slow
def test_a_run_ends_with_a_row_for_each_asset_and_the_next_one_does_what_is_left(
    assets: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fleet"
    first = fleet("train", assets, "--out", out, "--workers", 1, "--json")
    assert first.exit_code == 1, first.output
    facts = json.loads(first.stdout)
    assert facts["assets"] == 4 and facts["failed"] == 1 and facts["unchanged"] == 0
    assert "… 4 of 4 assets, 1 failed" in first.stderr
    found = rows(out)
    assert sorted(found) == ["nan", "plant", *(f"pump-{n}" for n in range(2))]
    assert found["nan"].verdict == "bad input" and (out / found["plant"].bundle).is_dir()
    assert f'href="{found["plant"].bundle}/report.html"' in (out / "report.html").read_text()
    shutil.copy(assets / "pump-0.csv", assets / "nan.csv")
    second = fleet("train", assets, "--out", out, "--workers", 1)
    assert second.exit_code == 0 and "3 unchanged" in second.stdout
    assert [row.version for row in rows(out).values()] == [1] * 4


@contextmanager
def cluster(folder: Path, workers: int, *options: str) -> Iterator[tuple[str, list[int]]]:
    """A real scheduler and `workers` worker processes; yield its address and their pids."""
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [
        subprocess.Popen(
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
             "--scheduler-file", str(file)],
            **quiet, start_new_session=True,
        )
    ]  # fmt: skip
    try:
        appears(folder, "scheduler.json")
        command = [*dask, "worker", "--scheduler-file", str(file), "--nthreads", "1", *options]
        started += [
            subprocess.Popen([*command, "--no-dashboard"], **quiet, start_new_session=True)
            for _ in range(workers)
        ]
        yield json.loads(file.read_text())["address"], [each.pid for each in started[1:]]
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def kill_workers_on(asset: Path, times: int) -> None:
    """Kill the worker that learns an asset, `times` times."""
    seen: set[str] = set()
    while len(seen) < times:
        for note in appears(asset, "attempts").read_text().splitlines():
            if note not in seen:
                seen.add(note)
                os.kill(int(note.split()[-1]), signal.SIGKILL)


@pytest.mark.long
def test_a_worker_killed_in_the_middle_loses_nothing(assets: Path, tmp_path: Path) -> None:
    out = tmp_path / "fleet"
    with cluster(tmp_path, 2, "--no-nanny") as (address, _):
        killer = threading.Thread(target=kill_workers_on, args=(out / "assets" / "pump-1", 1))
        killer.start()
        done = fleet("train", assets, "--out", out, "--scheduler", address, "--json")
        killer.join()
    assert done.exit_code == 1, done.output
    found = rows(out)
    assert {name for name, row in found.items() if row.good} == set(found) - {"nan"}
    assert {row.version for row in found.values() if row.good} == {1}
    assert not list(out.rglob("attempts")) and len(list(out.rglob("result.json"))) == 3


@pytest.mark.long
def test_an_asset_that_kills_its_workers_is_blamed_and_the_others_are_learned(
    assets: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fleet"
    with cluster(tmp_path, 2) as (address, _):
        killer = threading.Thread(target=kill_workers_on, args=(out / "assets" / "pump-0", 3))
        killer.start()
        done = fleet("train", assets, "--out", out, "--scheduler", address, "--json")
        killer.join()
    assert done.exit_code == 1, done.output
    verdicts = {name: row.verdict for name, row in rows(out).items()}
    assert verdicts.pop("pump-0") == "kills workers" and verdicts.pop("nan") == "bad input"
    assert set(verdicts.values()) == {"trial"}


@pytest.mark.long
def test_a_killed_driver_loses_what_was_in_flight_only(assets: Path, tmp_path: Path) -> None:
    out = tmp_path / "fleet"
    command = [sys.executable, "-m", "fleet", "train", str(assets), "--out", str(out)]
    driver = subprocess.Popen([*command, "--workers", "1"], cwd=ROOT, start_new_session=True)
    first = appears(out / "assets", "*/1/result.json")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    kept = first.stat().st_ino
    assert not (out / "fleet.parquet").exists(), "the driver had no time to finish"
    done = fleet("train", assets, "--out", out, "--workers", 1, "--json")
    facts = json.loads(done.stdout)
    assert facts["failed"] == 1 and 1 <= facts["unchanged"] < 3
    assert first.stat().st_ino == kept, "what was finished is not made again"
    assert {row.version for row in rows(out).values() if row.good} == {1}
    assert not list(out.rglob(".*")) and not list(out.rglob("attempts"))


@pytest.mark.long
def test_a_lost_scheduler_ends_the_run_in_one_sentence(assets: Path, tmp_path: Path) -> None:
    out = tmp_path / "fleet"
    with cluster(tmp_path, 1, "--no-nanny") as (address, _):
        command = [sys.executable, "-m", "fleet", "train", str(assets), "--out", str(out)]
        driver = subprocess.Popen(
            [*command, "--scheduler", address], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        appears(out / "assets", "*/1/result.json")
    _, said = driver.communicate()
    assert driver.returncode == 2 and "Traceback" not in said, said
    assert "fleet: the scheduler is lost" in said and "the same command does the rest" in said
    assert (out / "report.html").is_file()
    done = fleet("train", assets, "--out", out, "--workers", 1, "--json")
    assert json.loads(done.stdout)["failed"] == 1


@pytest.mark.slow
def test_assets_of_a_type_share_its_model(tmp_path: Path) -> None:
    write_pumps(tmp_path / "data", 5, 200, seed=3)
    out, table = tmp_path / "fleet", tmp_path / "data" / "healthy.csv"
    lines = [line for line in table.read_text().splitlines() if "pump-0005" not in line]
    lines += ["new,new.csv,pump", "last,healthy/pump-0005.csv,pump"]
    lines += ["lone,healthy/pump-0005.csv,fan"]
    short = (tmp_path / "data" / "healthy" / "pump-0005.csv").read_text().splitlines()[:60]
    (tmp_path / "data" / "new.csv").write_text("\n".join(short))
    shutil.copy(tmp_path / "data" / "healthy" / "channels.yaml", tmp_path / "data")
    table.write_text("\n".join(lines))
    done = fleet("train", table, "--out", out, "--workers", 1, "--json")
    assert done.exit_code == 0, done.output
    facts, found = json.loads(done.stdout), rows(out)
    assert (facts["types"], facts["shared"]) == (1, 6)
    assert found["new"].rows == 59 and found["new"].shared and found["new"].verdict == "trial"
    assert not found["lone"].shared and "its type has 1 assets" in found["lone"].choice
    assert (out / "types" / "pump" / "1" / "alignment.json").is_file()
    assert "Models that assets share" in (out / "report.html").read_text()
    again = json.loads(fleet("train", table, "--out", out, "--workers", 1, "--json").stdout)
    assert again["unchanged"] == 7


@pytest.mark.long
@pytest.mark.skipif(not MAKE.is_file(), reason="the recordings of ../shared/strangers are not here")
def test_a_network_is_kept_where_it_finds_clearly_more(tmp_path: Path) -> None:
    from edge_runtime.bundle.reader import read_bundle

    subprocess.run([sys.executable, MAKE, tmp_path], check=True, capture_output=True)
    assets = tmp_path / "assets"
    assets.mkdir()
    shutil.copy(tmp_path / "healthy.csv", assets / "pump.csv")
    out = tmp_path / "fleet"
    train = ("train", assets, "--out", out, "--workers", 1, "--network-budget", "1m")
    first = fleet(*train)
    assert first.exit_code == 0, first.output
    found = rows(out)["pump"]
    assert found.model == "network" and found.weighed and found.gain >= 0.02, found
    assert found.version == 2 and (out / "assets" / "pump" / "1" / "result.json").is_file()
    assert not read_bundle(out / found.bundle).manifest.linear
    assert "1 of 1 networks kept" in first.stderr
    again = fleet(*train)
    assert "1 unchanged" in again.stdout and rows(out)["pump"] == replace(found, reused=True)
