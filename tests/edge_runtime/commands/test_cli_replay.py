"""`gruard replay`, `inspect` and `selftest` as a user meets them: exit codes, one-line errors."""

import csv
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.record import CSV_COLUMNS, Sample

ROWS = 120


def gruard(*words: str | Path, **options) -> subprocess.CompletedProcess[str]:  # type: ignore[no-untyped-def]
    command = [sys.executable, "-m", "edge_runtime", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 2 and exactly one line on stderr, with all `parts` in it."""
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and lines[0].startswith("gruard: "), done.stderr
    for part in parts:
        assert part in lines[0]


def write_csv(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture
def values() -> np.ndarray:
    return tiny_model.machine_rows(ROWS, seed=7)


@pytest.fixture
def recording(tmp_path: Path, values: np.ndarray) -> Path:
    rows = [[i, *map(float, row)] for i, row in enumerate(values)]
    return write_csv(tmp_path / "rows.csv", ["time", *tiny_model.CHANNELS], rows)


def test_replay_writes_the_records_of_the_detector(
    tiny_bundle: Path, recording: Path, values: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "records.csv"
    done = gruard("replay", tiny_bundle, recording, "--out", out)
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        found = list(csv.DictReader(file))
    assert tuple(found[0]) == CSV_COLUMNS
    detector = Detector(read_bundle(tiny_bundle))
    for index, (row, cells) in enumerate(zip(values, found, strict=True)):
        record = detector.step(Sample(index, float(index), row))
        assert int(cells["index"]) == record.index
        assert np.float32(cells["score"]) == np.float32(record.score)
        assert int(cells["flag"]) == record.alarm
        assert int(cells["tier"]) == record.tier


@pytest.mark.long
def test_a_recording_with_holes_and_odd_times_gives_the_records_of_a_run(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    values, rng = tiny_model.machine_rows(600, seed=8), np.random.default_rng(8)
    times = np.arange(600) + rng.normal(0, 0.2, 600)
    times[300:] += 100  # an outage, beyond what is answered one by one
    times[400:] -= 3600
    kept = (rng.random(600) >= 0.1) | (np.arange(600) < 2)
    rows = [
        [repr(float(t)), *map(float, v)] for t, v in zip(times[kept], values[kept], strict=True)
    ]
    file = write_csv(tmp_path / "holes.csv", ["time", *tiny_model.CHANNELS], rows)
    out, sink = tmp_path / "replay.csv", tmp_path / "run.jsonl"
    replayed = gruard("replay", tiny_bundle, file, "--out", out, "--json")
    ran = gruard("run", tiny_bundle, "--source", file, "--sink", sink, "--json")
    assert replayed.returncode == ran.returncode == 0, replayed.stderr + ran.stderr
    with out.open() as csv_file:
        found = [{**row, "score": row["score"] or "nan"} for row in csv.DictReader(csv_file)]
    expected = [json.loads(line) for line in sink.read_text().splitlines()]
    assert [cells["flags"].split() for cells in found] == [r["flags"] for r in expected]
    for name in ("index", "tier", "flag", "score", "time"):
        told = [float(cells[name]) for cells in found]
        record_name = "alarm" if name == "flag" else name
        np.testing.assert_array_equal(
            np.float32(told),
            np.float32([np.nan if (v := r[record_name]) is None else v for r in expected]),
        )
    facts, of_run = (json.loads(done.stderr.splitlines()[-1]) for done in (replayed, ran))
    assert facts["timing"] == of_run["timing"] and facts["timing"]["missing"] > 100
    assert facts["flags"] == of_run["flags"] and facts["alarms"] == of_run["alarms"]


def test_the_order_of_columns_and_extra_ones_do_not_matter(
    tiny_bundle: Path, recording: Path, values: np.ndarray, tmp_path: Path
) -> None:
    names = [*reversed(tiny_model.CHANNELS), "else"]
    rows = [[i, *map(float, row[::-1]), "P-0017"] for i, row in enumerate(values)]
    shuffled = write_csv(tmp_path / "shuffled.csv", ["time", *names], rows)
    plain, other = (gruard("replay", tiny_bundle, file) for file in (recording, shuffled))
    assert plain.returncode == other.returncode == 0
    assert plain.stdout == other.stdout


def test_a_missing_channel_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "less.csv", ["flow", "pressure"], [[1, 2]])
    refused(gruard("replay", tiny_bundle, file), "less.csv", "heat", "set_point", "pressure")


def test_a_bad_cell_is_named_by_line_and_column_and_nothing_is_written(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    rows: list[list[object]] = [[1, 2, 3], [1, "wet", 3]]
    file = write_csv(tmp_path / "bad.csv", list(tiny_model.CHANNELS), rows)
    out = tmp_path / "records.csv"
    refused(gruard("replay", tiny_bundle, file, "--out", out), "line 3", "flow", "wet")
    assert not out.exists()


def test_another_sample_period_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    rows: list[list[object]] = [[i / 10, 1, 2, 3] for i in range(20)]
    file = write_csv(tmp_path / "fast.csv", ["time", *tiny_model.CHANNELS], rows)
    refused(gruard("replay", tiny_bundle, file), "0.1 s", "1 s")
    refused(gruard("run", tiny_bundle, "--source", file), "0.1 s", "1 s")


def test_an_existing_output_is_kept_unless_forced(
    tiny_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "records.csv"
    out.write_text("precious")
    refused(gruard("replay", tiny_bundle, recording, "--out", out), "--force")
    assert out.read_text() == "precious"
    assert gruard("replay", tiny_bundle, recording, "--out", out, "--force").returncode == 0
    assert out.read_text().startswith("index,score,threshold,flag,tier,")


def test_a_full_disk_leaves_no_half_file(
    tiny_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "records.csv"

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    done = gruard("replay", tiny_bundle, recording, "--out", out, preexec_fn=little_room)
    refused(done, "records.csv", "cannot be written")
    assert list(tmp_path.glob("*records*")) == []


@pytest.mark.parametrize("command", ["replay", "inspect", "selftest", "run"])
def test_a_bundle_that_is_not_there_is_one_line(command: str, recording: Path) -> None:
    extra = {"replay": [recording], "run": ["--source", recording]}.get(command, [])
    refused(gruard(command, "nowhere.gruard", *extra), "nowhere.gruard", "no such bundle")


def test_an_edited_bundle_is_refused_with_the_member(bundle_copy: Path, recording: Path) -> None:
    model = bundle_copy / "model.tflite"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    refused(gruard("replay", bundle_copy, recording), "model.tflite", "SHA-256")


def test_inspect_tells_channels_promise_and_verdict(tiny_bundle: Path) -> None:
    facts = json.loads(gruard("inspect", tiny_bundle, "--json").stdout)
    assert facts["name"] == "tiny" and facts["validation"] == "passed"
    assert "set_point (exogenous)" in facts["channels"]
    text = gruard("inspect", tiny_bundle).stdout
    assert "tflite-builtin" in text and "set_point (exogenous)" in text


def test_selftest_says_that_it_passed(tiny_bundle: Path) -> None:
    done = gruard("selftest", tiny_bundle, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["passed"] is True
    told, facts = gruard("selftest", tiny_bundle).stdout, json.loads(done.stdout)
    assert told == f"passed: model {facts['model']} gives its golden answers on {facts['kernel']}\n"
