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


@pytest.fixture
def table(assets: Path) -> Path:
    """The same assets in a table, six of a type, one of them with some seconds of data."""
    lines = (assets / "pump-0.csv").read_text().splitlines(keepends=True)
    (assets / "new.csv").write_text("".join(lines[:60]))
    rows = ["asset,data,type", "plant,plant,fan", "nan,nan.csv,pump"]
    rows += [f"pump-{n},pump-{n % 2}.csv,pump" for n in range(4)]
    (assets / "list.csv").write_text("\n".join([*rows, "new,new.csv,pump"]))
    return assets / "list.csv"


@pytest.mark.slow
def test_a_run_ends_with_a_row_for_each_asset_and_the_next_one_does_what_is_left(
    table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fleet"
    first = fleet("train", table, "--out", out, "--workers", 1, "--json")
    assert first.exit_code == 1, first.output
    facts, found = json.loads(first.stdout), rows(out)
    assert facts["assets"] == 7 and facts["failed"] == 1 and facts["unchanged"] == 0
    assert "… 7 of 7 assets, 1 failed" in first.stderr and "… type pump: " in first.stderr
    assert found["nan"].verdict == "bad input" and (out / found["plant"].bundle).is_dir()
    page = (out / "report.html").read_text()
    assert f'href="{found["plant"].bundle}/report.html"' in page
    assert (facts["types"], facts["shared"]) == (1, 5) and "Models that assets share" in page
    assert (out / "types" / "pump" / "1" / "alignment.json").is_file()
    assert found["new"].rows == 59 and found["new"].shared and found["new"].verdict == "trial"
    assert not found["plant"].shared and "its type has 1 assets" in found["plant"].choice
    shutil.copy(table.parent / "pump-0.csv", table.parent / "nan.csv")
    second = fleet("train", table, "--out", out, "--workers", 1)
    assert second.exit_code == 0 and "6 unchanged" in second.stdout
    assert [row.version for row in rows(out).values()] == [1] * 7


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
