"""A purely linear bundle: all of the model is in the manifest, and no interpreter is needed."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from no_interpreter import BLOCKED

from edge_runtime.bundle.flatbuffer import NO_GRAPH
from edge_runtime.bundle.manifest import Forecast, Matrix
from edge_runtime.bundle.reader import CHECKSUM, LINEAR_MEMBERS, MEMBERS, linear_hash, read_bundle
from edge_runtime.detector import cell
from edge_runtime.detector import step as stepping
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.kernels import CORE_KERNEL_ID, HOST_KERNEL_ID, KERNEL_ID
from edge_runtime.detector.tiers import Phase
from edge_runtime.errors import GruardError
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision.worker_process import BundleIdentity, WorkerProcess, worker_command
from tests.apparatus.harm import edit_manifest, flip_bit, replace_member, truncate

ROOT = Path(__file__).parents[3]
FLOW = 1
PATIENT = 60.0  # seconds; only a failing test ever waits for them


def run(detector: Detector, rows: np.ndarray) -> list[Record]:
    return [detector.step(Sample(i, None, row)) for i, row in enumerate(rows)]


def gruard(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edge_runtime", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def refused(bundle: Path) -> str:
    with pytest.raises(GruardError) as caught:
        read_bundle(bundle)
    assert str(caught.value).startswith(str(bundle))
    return str(caught.value)


@pytest.fixture
def detector(linear_bundle: Path) -> Detector:
    return Detector(read_bundle(linear_bundle))


# Reading it.


def test_all_of_the_model_is_in_the_manifest(linear_bundle: Path) -> None:
    bundle = read_bundle(linear_bundle)
    assert bundle.manifest.linear and bundle.manifest.outputs == {}
    assert bundle.model == b"" and bundle.graph is NO_GRAPH
    assert {path.name for path in linear_bundle.iterdir()} == {
        "manifest.json",
        CHECKSUM,
        *LINEAR_MEMBERS,
    }
    assert {*bundle.manifest.members, *bundle.manifest.proof} == {*LINEAR_MEMBERS}
    assert {*LINEAR_MEMBERS} == {*MEMBERS} - {"model.tflite"}
    assert list(bundle.manifest.thresholds) == [HOST_KERNEL_ID]
    assert not any(name.startswith("codes/") for name in bundle.arrays("golden.npz"))
    assert np.abs(np.array(bundle.manifest.forecast.cross)).max() > 0.05


def test_the_model_hash_is_that_of_the_forecast(linear_bundle: Path, linear_copy: Path) -> None:
    bundle = read_bundle(linear_bundle)
    assert len(bundle.model_hash) == 12 and int(bundle.model_hash, 16)
    assert linear_hash(bundle.manifest.forecast).startswith(bundle.model_hash)
    for name, path in (("highway", (1, 2)), ("cross", (2, 4)), ("innovation_scale", (1,))):
        edit_manifest(linear_copy, lambda m: m.update(version=m["version"] + 1))
        assert read_bundle(linear_copy).model_hash == bundle.model_hash

        def nudge(manifest: dict, name: str = name, path: tuple[int, ...] = path) -> None:
            row = manifest["forecast"][name]
            for index in path[:-1]:
                row = row[index]
            row[path[-1]] += 1e-3

        edit_manifest(linear_copy, nudge)
        assert read_bundle(linear_copy).model_hash != bundle.model_hash
        forecast = json.loads((linear_bundle / "manifest.json").read_text())["forecast"]
        edit_manifest(linear_copy, lambda m, whole=forecast: m.update(forecast=whole))


def test_the_hash_depends_on_numbers_alone() -> None:
    def hash_of(cross: Matrix = (), own: Matrix = (), ahead: Matrix = ()) -> str:
        return linear_hash(Forecast(((1.0,),), cross, (1.0,), own, ahead, len(ahead)))

    nothing: Matrix = ((0.0,),)
    every = [hash_of(), hash_of(cross=nothing), hash_of(own=nothing), hash_of(ahead=nothing)]
    assert len(set(every)) == 4 and hash_of() == every[0]
    # What a bundle without the two was known by.
    text = '{"cross": [], "highway": [[1.0]], "innovation_scale": [1.0]}'
    assert every[0] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("member", LINEAR_MEMBERS)
def test_a_harmed_member_is_refused(linear_copy: Path, member: str) -> None:
    flip_bit(linear_copy / member, 40)
    assert f"{member}: does not match" in refused(linear_copy)
    flip_bit(linear_copy / member, 40)
    read_bundle(linear_copy)
    truncate(linear_copy / member, 0.5)
    assert f"{member}: does not match" in refused(linear_copy)
    (linear_copy / member).unlink()
    assert f"{member}: cannot be read" in refused(linear_copy)


def test_a_graph_beside_a_linear_manifest_is_refused(linear_copy: Path, tiny_bundle: Path) -> None:
    model = (tiny_bundle / "model.tflite").read_bytes()
    (linear_copy / "model.tflite").write_bytes(model)
    assert read_bundle(linear_copy).model == b""  # a file that nobody vouches for is not read
    replace_member(linear_copy, "model.tflite", model)
    assert "manifest inputs are not the model's" in refused(linear_copy)


def tensors_of(bundle: Path, side: str) -> dict:
    return dict(json.loads((bundle / "manifest.json").read_text())[side])


@pytest.mark.parametrize("sides", [("outputs",), ("inputs",), ("inputs", "outputs")], ids=str)
def test_tensors_without_their_graph_are_refused(
    linear_copy: Path, tiny_bundle: Path, sides: tuple[str, ...]
) -> None:
    for side in sides:
        tensors = tensors_of(tiny_bundle, side)
        edit_manifest(linear_copy, lambda m, s=side, t=tensors: m.update({s: t}))
    message = refused(linear_copy)
    expected = "inputs are not the model's" if sides == ("outputs",) else "model.tflite"
    assert expected in message


@pytest.mark.parametrize("sides", [("inputs",), ("inputs", "outputs")], ids=str)
def test_a_graph_whose_tensors_were_struck_out_is_refused(
    bundle_copy: Path, sides: tuple[str, ...]
) -> None:
    edit_manifest(bundle_copy, lambda m: m.update({side: {} for side in sides}))
    assert "manifest inputs are not the model's" in refused(bundle_copy)


def test_a_threshold_of_another_kernel_does_not_count(linear_copy: Path) -> None:
    def rename(manifest: dict) -> None:
        manifest["thresholds"] = {"tflite-builtin": manifest["thresholds"][HOST_KERNEL_ID]}

    edit_manifest(linear_copy, rename)
    with pytest.raises(GruardError, match="no threshold for kernel host-float32"):
        Detector(read_bundle(linear_copy))


# Stepping.


def test_records_are_those_of_the_pure_step(detector: Detector) -> None:
    model = detector.model
    fallback = Fallback(model.manifest, model.model_hash)
    rows = tiny_model.machine_rows(200, seed=7)
    rows[80:130, FLOW] += 30
    rows[150:175] = np.nan
    state, expected = stepping.initial_state(model), []
    for i, row in enumerate(rows):
        sample = Sample(i, None, row)
        record, state, _ = stepping.step(model, sample, state, fallback.step(sample))
        expected.append(record)
    assert run(detector, rows) == expected
    assert {record.tier for record in expected} == {1, 2, 3}  # or nothing would be compared


def test_the_forecast_is_the_regression_over_the_trusted_readings(detector: Detector) -> None:
    model, rows = detector.model, tiny_model.machine_rows(120, seed=7)
    rows[40:44, FLOW] = np.nan
    rows[60:63, FLOW] += 30
    state, seen = stepping.initial_state(model), []
    for i, row in enumerate(rows):
        sample = Sample(i, None, row)
        fallback = Fallback(model.manifest, "").step(sample)
        _, state, traces = stepping.step(model, sample, state, fallback)
        seen.append(traces)
    order, cross = len(model.lines.highway), model.lines.cross.astype(float)
    for now in range(order, len(rows)):
        lags = [seen[now - 1 - k].trusted.astype(float) for k in range(order)]
        expected = cross @ np.concatenate(lags)
        expected += sum(a * x for a, x in zip(model.lines.highway.astype(float), lags, strict=True))
        np.testing.assert_allclose(seen[now].forecast, expected, rtol=1e-5, atol=2e-6)
    for trace in seen:
        np.testing.assert_array_equal(trace.gate, trace.mask)
        assert not trace.doubt.any() and trace.hidden == () and trace.outputs == {}
        masked = trace.mask == 0
        np.testing.assert_array_equal(trace.trusted[masked], trace.forecast[masked])
        near = ~masked & (np.abs(trace.value - trace.forecast) < cell.INNOVATION_CLIP)
        np.testing.assert_allclose(trace.trusted[near], trace.value[near], rtol=0, atol=1e-6)
    assert (seen[41].mask[FLOW], seen[61].mask[FLOW]) == (0, 1)
    far = seen[60]  # so far off that it is taken in part only
    assert far.trusted[FLOW] == pytest.approx(far.forecast[FLOW] + cell.INNOVATION_CLIP)


def test_it_settles_after_its_lags_and_leaves_a_clean_machine_in_peace(detector: Detector) -> None:
    records = run(detector, tiny_model.machine_rows(400, seed=8))
    warmup = 2 * tiny_model.ORDER
    assert [Flag.WARMUP in record.flags for record in records] == [i < warmup for i in range(400)]
    assert [record.tier for record in records] == [3] * warmup + [1] * (400 - warmup)
    assert not any(record.alarm or record.imputed for record in records[warmup:])
    assert {record.model for record in records} == {detector.model.model_hash}


def test_a_deviating_channel_is_found_and_blamed_and_forgotten(detector: Detector) -> None:
    rows = tiny_model.machine_rows(500, seed=9)
    rows[100:130, FLOW] += 20
    records = run(detector, rows)
    during = records[103:130]
    assert not any(record.alarm for record in records[10:100])
    assert all(record.alarm and record.blamed[0] == "flow" for record in during)
    assert not any(record.imputed for record in records)  # without a gate nothing is replaced
    assert records[-1].tier == 1 and not records[-1].alarm


def test_a_flow_that_no_longer_follows_its_set_point_is_found(detector: Detector) -> None:
    rows = tiny_model.machine_rows(400, seed=9)
    rows[200:, FLOW] = tiny_model.machine_rows(200, seed=11)[:, FLOW]  # healthy, at another time
    records = run(detector, rows)
    assert not any(record.alarm for record in records[10:200])
    seen = [record.alarm or Flag.CHANGED in record.flags for record in records[220:]]
    assert np.mean(seen) > 0.9


def test_a_free_run_without_a_gate_still_takes_every_reading_it_can_get(detector: Detector) -> None:
    model = detector.model
    run(detector, tiny_model.machine_rows(50, seed=7))
    recurrent = detector.state.recurrent
    assert recurrent is not None
    value, ones = np.float32([0.5, 0.4, 0.3]), np.ones(3, np.float32)
    nothing = np.zeros(3, np.float32)
    traces = [cell.advance(model, value, ones, recurrent, nothing, phase)[0] for phase in Phase]
    for trace in traces[1:]:
        np.testing.assert_array_equal(trace.trusted, traces[0].trusted)


def test_a_blackout_is_answered_by_the_fallback_and_passes(detector: Detector) -> None:
    rows = tiny_model.machine_rows(300, seed=9)
    rows[100:140, 1:] = np.nan
    tiers = [record.tier for record in run(detector, rows)]
    bridged = 100 + detector.model.manifest.tiers.bridge + 1
    free = bridged + detector.model.manifest.tiers.free_run_limit
    assert set(tiers[100:bridged]) == {1} and set(tiers[bridged:free]) == {2}
    assert set(tiers[free:140]) == {3} and tiers[-1] == 1


def test_reset_settles_anew(detector: Detector) -> None:
    rows = tiny_model.machine_rows(100, seed=7)
    assert run(detector, rows)[-1].tier == 1
    detector.reset()
    warmup = 2 * tiny_model.ORDER
    assert [record.tier for record in run(detector, rows)] == [3] * warmup + [1] * (100 - warmup)


# The commands, the worker, and a machine without any interpreter.


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", *tiny_model.CHANNELS])
        rows = tiny_model.machine_rows(60, seed=7)
        writer.writerows([i, *map(float, row)] for i, row in enumerate(rows))
    return path


def test_replay_writes_the_records_of_the_detector(
    linear_bundle: Path, recording: Path, detector: Detector, tmp_path: Path
) -> None:
    out = tmp_path / "records.csv"
    done = gruard("replay", linear_bundle, recording, "--out", out)
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        found = list(csv.DictReader(file))
    expected = run(detector, tiny_model.machine_rows(60, seed=7))
    assert len(found) == 60
    for cells, record in zip(found, expected, strict=True):
        assert np.float32(cells["score"]) == np.float32(record.score)
        assert (int(cells["tier"]), int(cells["flag"])) == (record.tier, record.alarm)


@pytest.mark.long
def test_run_answers_with_the_model_under_its_supervisor(
    linear_bundle: Path, recording: Path, detector: Detector
) -> None:
    done = gruard("run", linear_bundle, "--source", recording, "--deadline", "60")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["index"] for record in records] == list(range(60))
    assert records[-1]["tier"] == 1 and records[-1]["model"] == detector.model.model_hash


@pytest.mark.parametrize(("asked", "kernel"), [(None, CORE_KERNEL_ID), (KERNEL_ID, HOST_KERNEL_ID)])
def test_the_worker_process_answers_as_the_detector_does(
    linear_bundle: Path, detector: Detector, asked: str | None, kernel: str
) -> None:
    command = worker_command(linear_bundle, kernel=asked)
    process = WorkerProcess(command, identity=BundleIdentity.of(read_bundle(linear_bundle)))
    process.start()
    try:
        hello = process.poll_ready(PATIENT)
        assert hello is not None and hello.kernel == kernel
        for index, row in enumerate(tiny_model.machine_rows(20, seed=7)):
            sample = Sample(index, None, row)
            process.tell(sample)
            answer, expected = process.answer(sample, PATIENT), detector.step(sample)
            assert answer is not None and answer.to_json() == expected.to_json()
    finally:
        process.kill()


@pytest.mark.long
def test_inspect_and_selftest_tell_what_it_is(linear_bundle: Path, tiny_bundle: Path) -> None:
    facts, other = (
        json.loads(gruard("inspect", bundle, "--json").stdout)
        for bundle in (linear_bundle, tiny_bundle)
    )
    named = ("highway", "gate", "gru units")
    assert [facts[name] for name in named] == ["full", "none", "none (linear)"]
    assert [other[name] for name in named] == ["full", "yes", [8]]
    assert facts["bytes"] == 0 and facts["validation"] == "passed"
    assert facts["trial"] == other["trial"] == "no"
    done = gruard("selftest", linear_bundle, "--kernel", KERNEL_ID, "--json")
    outcome = json.loads(done.stdout)
    assert done.returncode == 0 and outcome["kernel"] == HOST_KERNEL_ID
    assert outcome["model"] == facts["model"]


@pytest.mark.long
def test_a_bundle_that_has_seen_little_says_so(linear_copy: Path, tmp_path: Path) -> None:
    def seen_little(manifest: dict) -> None:
        for threshold in manifest["thresholds"].values():
            threshold["clean_days"] = 899 / 86400

    edit_manifest(linear_copy, seen_little)
    told = "threshold from 899 clean rows; learn again with more"
    assert json.loads(gruard("inspect", linear_copy, "--json").stdout)["trial"] == told
    source, rows = tmp_path / "day.csv", tiny_model.machine_rows(20, seed=3)
    np.savetxt(source, rows, delimiter=",", header=",".join(tiny_model.CHANNELS), comments="")
    ended = gruard("run", linear_copy, "--source", source, "--sink", tmp_path / "day.jsonl")
    assert ended.returncode == 0
    assert ended.stderr.count(f"{linear_copy}: trial: {told}\n") == 1


WITHOUT_INTERPRETER = """
from pathlib import Path
import numpy as np
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.errors import GruardError
from edge_runtime.record import Sample

try:
    detector = Detector(read_bundle(Path(sys.argv[1])))
except GruardError as error:
    sys.exit(str(error))
detector.self_test()
for index, row in enumerate(np.load(sys.argv[2])):
    print(detector.step(Sample(index, None, row)).to_json())
"""


def test_it_works_where_no_interpreter_can_be_imported(
    linear_bundle: Path, tiny_bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    rows = tiny_model.machine_rows(20, seed=7)
    np.save(tmp_path / "rows.npy", rows)

    def alone(bundle: Path) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-c", BLOCKED + WITHOUT_INTERPRETER, bundle, tmp_path / "rows.npy"]
        command = list(map(str, words))
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = alone(linear_bundle)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [record.to_json() for record in run(detector, rows)]
    refused = alone(tiny_bundle)  # the same program, where one is needed
    assert refused.returncode == 1 and "pip install 'gruard[interpreter]'" in refused.stderr
