"""The diagnosis within a step: named while the model's alarm is on, and nowhere else."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.cell import build_model
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.diagnosing import diagnosis_constants
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.interpreter import NoGraph
from edge_runtime.detector.step import initial_state, step
from edge_runtime.diagnosis import KINDS, MACHINE
from edge_runtime.record import Record, Sample

START, HEAT = 120, 2
NOTHING = (None, None, None)


def harmed() -> np.ndarray:
    """Healthy rows, then a heat sensor that reads several deviations too much."""
    rows = tiny_model.machine_rows(START + 40, seed=7)
    rows[START:, HEAT] += 3 * tiny_model.machine_channels()[HEAT].scale
    return rows


def answers(path: Path, rows: np.ndarray) -> list[Record]:
    detector = Detector(read_bundle(path))
    return [detector.step(Sample(i, float(i), row)) for i, row in enumerate(rows)]


def named(record: Record) -> tuple[str | None, float | None, bool | None]:
    return record.kind, record.probability, record.sensor


@pytest.fixture(scope="module")
def records(linear_bundle: Path) -> list[Record]:
    return answers(linear_bundle, harmed())


def test_an_alarm_names_the_kind_and_the_sensor(records: list[Record]) -> None:
    alarms = [record for record in records if record.alarm and record.tier != 3]
    assert len(alarms) >= 20
    for record in alarms:
        assert record.kind in KINDS and record.probability is not None
        assert 0 <= record.probability <= 1
        assert record.sensor is (record.kind != MACHINE)
        assert 1 <= len(record.blamed) <= 3
    assert alarms[-1].blamed[0] == "heat"


def test_without_an_alarm_of_the_model_nothing_is_named(records: list[Record]) -> None:
    calm = [record for record in records if not record.alarm or record.tier == 3]
    assert len(calm) >= START
    assert {named(record) for record in calm} == {NOTHING}


def test_the_fallback_names_no_kind_even_in_an_alarm(linear_bundle: Path) -> None:
    detector = Detector(read_bundle(linear_bundle))
    for index, row in enumerate(harmed()):
        before = detector.step(Sample(index, float(index), row))
    assert before.alarm and before.kind is not None
    detector.reset()  # the alarm stays on, the model has to settle
    rows = tiny_model.machine_rows(12, seed=8)
    rows[:, HEAT] += 3 * tiny_model.machine_channels()[HEAT].scale
    found = [detector.step(Sample(index, None, row)) for index, row in enumerate(rows)]
    settling = [record for record in found if record.tier == 3]
    assert settling and any(record.alarm for record in settling)
    assert {named(record) for record in settling} == {NOTHING}


def test_a_bundle_without_a_diagnosis_still_blames(linear_bundle: Path) -> None:
    bundle = read_bundle(linear_bundle)
    manifest = replace(bundle.manifest, diagnosis=None)
    assert diagnosis_constants(manifest) is None
    model, fallback = build_model(manifest, NoGraph(), ""), Fallback(manifest, "")
    state, found = initial_state(model), []
    assert state.diagnosis is None
    for index, row in enumerate(harmed()):
        sample = Sample(index, float(index), row)
        record, state, _ = step(model, sample, state, fallback.step(sample))
        found.append(record)
    assert state.diagnosis is None
    alarms = [record for record in found if record.alarm and record.tier != 3]
    assert alarms and all(record.blamed for record in alarms)
    assert {named(record) for record in found} == {NOTHING}


def test_the_diagnosis_changes_neither_score_nor_alarm(
    linear_bundle: Path, records: list[Record]
) -> None:
    manifest = replace(read_bundle(linear_bundle).manifest, diagnosis=None)
    model, fallback = build_model(manifest, NoGraph(), ""), Fallback(manifest, "")
    state = initial_state(model)
    for with_it, row in zip(records, harmed(), strict=True):
        sample = Sample(with_it.index, with_it.time, row)
        without, state, _ = step(model, sample, state, fallback.step(sample))
        assert (with_it.score, with_it.alarm, with_it.tier, with_it.flags) == (
            without.score, without.alarm, without.tier, without.flags
        )  # fmt: skip


def test_a_verdict_is_forgotten_when_the_alarm_is_over(linear_bundle: Path) -> None:
    detector = Detector(read_bundle(linear_bundle))
    rows = np.concatenate([harmed(), tiny_model.machine_rows(START + 240, seed=7)[START + 40 :]])
    followed = []
    for index, row in enumerate(rows):
        record = detector.step(Sample(index, float(index), row))
        assert detector.state.diagnosis is not None
        followed.append(detector.state.diagnosis.verdict.samples)
        assert record.kind is None or followed[-1] > 0
    assert max(followed) > 20 and followed[START - 1] == followed[-1] == 0


def write_csv(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", *tiny_model.CHANNELS])
        writer.writerows([i, *map(float, row)] for i, row in enumerate(harmed()))
    return path


def gruard(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edge_runtime", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_worker_process_gives_the_same_records(
    linear_bundle: Path, records: list[Record], tmp_path: Path
) -> None:
    source, sink = write_csv(tmp_path / "rows.csv"), tmp_path / "records.jsonl"
    done = gruard(
        "run", linear_bundle, "--source", source, "--sink", sink, "--deadline", "60", "--json"
    )
    assert done.returncode == 0, done.stderr
    found = list(map(json.loads, sink.read_text().splitlines()))
    events = [record.pop("event", None) for record in found]
    assert found == [json.loads(record.to_json()) for record in records]
    assert any(events), "the supervisor adds where an alarm begins and ends"
    kinds = json.loads(done.stderr.splitlines()[-1])["kinds"]
    assert kinds and set(kinds) <= set(KINDS)


def test_replay_writes_kind_probability_and_sensor(
    linear_bundle: Path, records: list[Record], tmp_path: Path
) -> None:
    out = tmp_path / "records.csv"
    done = gruard("replay", linear_bundle, write_csv(tmp_path / "rows.csv"), "--out", out)
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        rows = list(csv.DictReader(file))
    for record, cells in zip(records, rows, strict=True):
        assert cells["kind"] == (record.kind or "")
        assert cells["sensor"] == ("" if record.sensor is None else str(int(record.sensor)))
        if record.probability is None:
            assert cells["probability"] == ""
        else:
            assert np.float32(cells["probability"]) == np.float32(record.probability)
    assert any(cells["kind"] for cells in rows)
    assert "kinds " in done.stderr
