"""Whole commands: what devices upload counts once, though commands are killed and lines bad."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from device_records import START, stream, text, write, write_journal
from small_fleet import appears

pytest.importorskip("distributed", reason="the fleet is not tested: pip install '.[fleet]'")
pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")
from edge_runtime import __version__
from edge_runtime.alarm import Alarm, BlamedReading
from edge_runtime.errors import GruardError
from edge_runtime.marks import AlarmMark, append_mark
from fleet.__main__ import cli
from fleet.ingest.asset import IngestJob, ingest_asset
from fleet.ingest.inputs import find_inputs, with_groups
from fleet.ingest.rows import AlarmRow, AssetRecords
from fleet.results import AssetResult
from fleet.table import read_rows

ROOT = Path(__file__).resolve().parents[3]
CALM = [False] * 500
STORM = [*CALM, *[True] * 9, *CALM]  # an alarm at minute 500
PERIOD = 60.0
STEPS = 4  # of a write: the bytes, their sync, the rename, its sync
DIE_AT = """
import os, signal, sys
from pathlib import Path
from fleet.ingest.asset import IngestJob, ingest_asset
import edge_runtime.files as files
steps = [0]
def step(call):
    def counted(*words):
        if steps[0] == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        steps[0] += 1
        return call(*words)
    return counted
for name in ("write", "sync", "rename"):
    setattr(files.Disk, name, step(getattr(files.Disk, name)))
ingest_asset(IngestJob("pump", tuple(sys.argv[3:]), (), (), (), sys.argv[2], VERSION))
"""


def fleet(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["ingest", *map(str, words)])


def job(out: Path, *paths: Path) -> IngestJob:
    out.mkdir(exist_ok=True)
    return IngestJob("pump", tuple(map(str, paths)), (), (), (), str(out), __version__)


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    """Six pumps: files, a compressed file, a journal with marks, and one with bad lines."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    for number in range(3):
        write(folder / f"pump-{number}.jsonl", stream(STORM, START + 7 * number, PERIOD, number))
    (folder / "pump-3").mkdir()
    write(folder / "pump-3" / "records.jsonl.1.gz", stream(CALM, seed=3)[:200])
    write(folder / "pump-3" / "records.jsonl", stream(CALM, seed=3)[200:])
    state = folder / "pump-4"
    write_journal(state / "journal", stream(STORM, START + 40, PERIOD, 4), "8c1f0a6be2d4")
    alarm = Alarm(
        "", 500, 508, START + 30040, START + 30520, START + 30040, (BlamedReading("heat"),), "level"
    )
    append_mark(state, AlarmMark(alarm, False, "cleaning", START + 600))
    lines = text(stream(CALM, seed=5)).splitlines(keepends=True)
    lines[7] = b"hello\n"
    (folder / "pump-5.jsonl").write_bytes(b"".join(lines))
    return folder


@pytest.mark.long
def test_a_command_describes_all_assets_and_the_next_one_reads_what_is_new(
    uploads: Path, tmp_path: Path
) -> None:
    out = tmp_path / "said"
    first = fleet(uploads, "--out", out, "--workers", 1, "--json")
    assert first.exit_code == 0, first.output
    facts = json.loads(first.stdout)
    assert facts["assets"] == 6 and facts["bad_lines"] == 1
    assert facts["records"] == facts["new"] == 4 * len(STORM) + 2 * len(CALM) - 1
    assert "pump-5.jsonl line 8: 'hello' is no JSON" in facts["problems"][0]
    assert facts["alarms"] == facts["common_alarms"] == 4, "four alarms within a minute"
    rows = {row.asset: row for row in read_rows(out / "assets.parquet", AssetRecords)}
    assert rows["pump-3"].runs == 1 and rows["pump-3"].missing == 0, "a rotated file is one run"
    assert rows["pump-4"].marked_false == 1 and rows["pump-5"].bad == 1
    assert rows["pump-0"].hours == pytest.approx(len(STORM) / 60)
    alarms = read_rows(out / "alarms.parquet", AlarmRow)
    assert [alarm.first for alarm in alarms] == [500] * 4 and all(a.others == 3 for a in alarms)
    metrics = (out / "metrics.prom").read_text()
    assert 'gruard_fleet_alarms{asset="pump-4"} 1\n' in metrics
    page = (out / "report.html").read_text()
    assert "4 alarms, of which 4 came in 1 events" in page and "hello" in page

    again = fleet(uploads, "--out", out, "--workers", 1, "--json")
    same = json.loads(again.stdout)
    assert same["new"] == 0 and same["records"] == facts["records"] and same["bad_lines"] == 1
    after = read_rows(out / "assets.parquet", AssetRecords)
    kept = [replace(row, new=0, problem="", state="", reason="") for row in rows.values()]
    assert [replace(row, problem="", state="", reason="") for row in after] == kept
    (uploads / "pump-6.jsonl.gz").write_bytes(b"\x1f\x8bnot gzip at all")
    damaged = fleet(uploads, "--out", out, "--workers", 1)
    assert damaged.exit_code == 1 and "pump-6.jsonl.gz" in damaged.stdout
    assert "Traceback" not in damaged.output and "1 not read" in damaged.stdout


@pytest.mark.long
@pytest.mark.parametrize("step", range(STEPS + 1))
def test_a_worker_killed_at_any_step_of_a_write_loses_and_repeats_nothing(
    step: int, tmp_path: Path
) -> None:
    out, file = tmp_path / "said", tmp_path / "a.jsonl"
    data = text(stream(STORM))
    file.write_bytes(data[: len(data) // 2])
    before = ingest_asset(job(out, file)).records
    file.write_bytes(data)
    script = DIE_AT.replace("VERSION", repr(__version__))
    died = subprocess.run(
        [sys.executable, "-c", script, str(step), str(out), str(file)], cwd=ROOT, check=False,
        capture_output=True,
    )  # fmt: skip
    assert died.returncode == (-signal.SIGKILL if step < STEPS else 0)
    whole = ingest_asset(job(out, file))
    fresh = ingest_asset(job(tmp_path / "fresh", file))
    assert 0 < before.records < whole.records.records == len(STORM)
    assert replace(whole.records, new=0) == replace(fresh.records, new=0)
    assert whole.alarms == fresh.alarms and whole.scores == fresh.scores


@pytest.mark.slow
def test_a_killed_command_keeps_what_is_finished(uploads: Path, tmp_path: Path) -> None:
    out = tmp_path / "said"
    words = ["ingest", str(uploads), "--out", str(out), "--workers", "1"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "fleet", *words], cwd=ROOT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    appears(out, "assets/*/totals.json")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    facts = json.loads(fleet(uploads, "--out", out, "--workers", 1, "--json").stdout)
    assert facts["records"] == 4 * len(STORM) + 2 * len(CALM) - 1 and facts["bad_lines"] == 1
    assert {row.repeated for row in read_rows(out / "assets.parquet", AssetRecords)} == {0}


def test_damaged_totals_name_themselves_and_the_way_out(tmp_path: Path) -> None:
    out, file = tmp_path / "said", write(tmp_path / "a.jsonl", stream(CALM))
    whole = ingest_asset(job(out, file))
    kept = out / "assets" / "pump" / "totals.json"
    kept.write_bytes(kept.read_bytes()[:-40])
    harmed = ingest_asset(job(out, file)).records
    assert harmed.failed and str(kept) in harmed.problem and "remove it" in harmed.problem
    kept.unlink()
    assert ingest_asset(job(out, file)) == whole


def test_an_asset_without_its_inputs_stays_as_it_was(tmp_path: Path) -> None:
    out, file = tmp_path / "said", write(tmp_path / "a.jsonl", stream(STORM))
    whole = ingest_asset(job(out, file))
    gone = ingest_asset(job(out))
    assert gone.reused and gone.alarms == whole.alarms
    missing = ingest_asset(job(out, tmp_path / "none.jsonl"))
    assert missing.records.failed and "No such file" in missing.records.problem
    assert missing.records.records == len(STORM)


def test_what_is_no_input_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("x")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for place, reason in (
        ("none.jsonl", "no such file"), ("empty", "no records"), ("text.txt", "does not end in"),
        ("pipe.jsonl", "named pipe"),
    ):  # fmt: skip
        with pytest.raises(GruardError, match=reason):
            find_inputs([tmp_path / place], tmp_path / "said")
    with pytest.raises(GruardError, match="choose a folder outside"):
        find_inputs([tmp_path], tmp_path / "said")
    for words in (["--for", "10m"], ["mqtt://h/t/#"], ["--bundles", tmp_path / "none"]):
        records = [] if "mqtt://h/t/#" in words else [write(tmp_path / "a.jsonl", stream(CALM))]
        done = fleet(*records, *words, "--out", tmp_path / "said")
        assert done.exit_code != 0 and "Traceback" not in done.output


def test_sites_and_types_come_from_a_table(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", stream(CALM))
    table = tmp_path / "assets.csv"
    table.write_text("asset;site;other\na;North;7\nb;South;8\n")
    inputs = find_inputs([tmp_path / "a.jsonl"], tmp_path / "said")
    assert with_groups(inputs, table)[0].groups == ("site North",)
    assert with_groups(inputs, None)[0].groups == ()
    table.write_text("asset,site\na,North\na,South\n")
    with pytest.raises(GruardError, match="line 3: a is there twice"):
        with_groups(inputs, table)
    with pytest.raises(GruardError, match="No such file"):
        with_groups(inputs, tmp_path / "none.csv")
    table.write_text("name\na\n")
    with pytest.raises(GruardError, match="the column asset is missing"):
        with_groups(inputs, table)


def test_a_folder_of_bundles_is_no_folder_of_records(tmp_path: Path) -> None:
    from fleet.driver import held

    with held(tmp_path / "fleet", AssetResult):
        pass
    file = write(tmp_path / "a.jsonl", stream(CALM))
    done = fleet(file, "--out", tmp_path / "fleet")
    assert isinstance(done.exception, GruardError)
    assert "holds bundles already" in str(done.exception)
