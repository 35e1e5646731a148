"""The core is the default of every command. It gives the reference's records, or says why not."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import native_core  # noqa: F401
import numpy as np
import pytest
import tiny_model
from no_interpreter import BLOCKED

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.golden import WATCH_EVERY
from edge_runtime.detector.kernels import CORE_KERNEL_ID, HOST_KERNEL_ID, KERNEL_ID
from edge_runtime.detector.thresholds import threshold_of
from edge_runtime.errors import GruardError
from edge_runtime.native.engine import INTERFACE, NativeDetector, core_module, open_detector
from edge_runtime.record import Sample
from edge_runtime.supervision.worker_process import (
    BundleIdentity,
    WorkerGoneError,
    WorkerProcess,
    worker_command,
)
from tests.apparatus.harm import edit_manifest, flip_in_memory, replace_member

ROOT = Path(__file__).parents[3]
PATIENT = 60.0  # seconds; only a failing test ever waits for them
CORE, REFERENCE = ("--kernel", CORE_KERNEL_ID), ("--kernel", KERNEL_ID)
# Found by every Python that starts with its folder on the path.
WITHOUT_ENGINE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "edge_runtime.native._core":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
"""
WHAT_TO_DO = (
    "this installation of gruard has no kernel core-c; install the wheel for this processor, or "
    "the source where there is a C compiler (on Debian: apt install gcc python3-dev)"
)
NO_INTERPRETER = "kernel tflite-builtin needs a TFLite interpreter, and none is installed"


def gruard(*words: object, path: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "edge_runtime", *map(str, words)],
        env=os.environ | {"PYTHONPATH": f"{path}:{ROOT}"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording in which readings are missing, stuck, shifted and spiking."""
    rows = tiny_model.machine_rows(500, seed=9).astype(float)
    rows[160:180, 1] = np.nan
    rows[200:240, 2] = rows[200, 2]
    rows[260:300, 1] += 15
    rows[330, 2] += 400
    rows[340:365] = np.nan
    file = tmp_path_factory.mktemp("data") / "rows.csv"
    lines = [",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in rows]
    file.write_text("\n".join([",".join(tiny_model.CHANNELS), *lines]) + "\n")
    return file


def blocking(folder: Path, text: str) -> Path:
    """Return the new `folder`; each Python that starts with it on its path runs `text`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(text)
    return folder


@pytest.fixture
def engineless(tmp_path: Path) -> Path:
    """A folder that makes the engine impossible to import."""
    return blocking(tmp_path / "engineless", WITHOUT_ENGINE)


@pytest.fixture
def interpreterless(tmp_path: Path) -> Path:
    """A folder that makes every TFLite interpreter impossible to import."""
    return blocking(tmp_path / "interpreterless", BLOCKED)


@pytest.fixture
def refused(bundle_copy: Path) -> Path:
    """A sound bundle that the core refuses, because it cannot count that far."""
    edit_manifest(bundle_copy, lambda manifest: manifest["tiers"].update(closed_limit=1 << 25))
    return bundle_copy


@pytest.fixture(params=["tiny_bundle", "linear_bundle"])
def bundle(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_a_supervised_run_gives_the_records_of_the_reference(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    sinks = {name: tmp_path / f"{name}.jsonl" for name in ("core", "reference")}
    words = ("run", bundle, "--source", data, "--deadline", PATIENT, "--status", tmp_path / "s")
    assert gruard(*words, "--sink", sinks["reference"], *REFERENCE).returncode == 0
    done = gruard(*words, "--sink", sinks["core"])
    assert done.returncode == 0 and " on core-c\n" in done.stderr
    records = sinks["core"].read_text()
    assert records == sinks["reference"].read_text()
    tiers = {json.loads(line)["tier"] for line in records.splitlines()}
    assert tiers == {1, 2, 3}
    shown = gruard("status", tmp_path / "s")
    assert " on core-c, " in shown.stdout


@pytest.mark.long
def test_a_worker_that_hangs_in_a_run_on_the_core_is_replaced(
    tiny_bundle: Path, data: Path, tmp_path: Path
) -> None:
    done = gruard(
        "run", tiny_bundle, "--source", data, "--sink", tmp_path / "out.jsonl", "--deadline", 0.3,
        "--inject", "hang@40",
    )  # fmt: skip
    assert done.returncode == 0
    assert "injected hang" in done.stderr
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["index"] for record in records] == list(range(500))
    assert all("FALLBACK" in record["flags"] for record in records[40:44])


def test_replay_gives_one_file_on_every_kernel(
    bundle: Path, data: Path, tmp_path: Path, engineless: Path
) -> None:
    found = {}
    for name, words, path in (
        ("core", CORE, ROOT), ("reference", REFERENCE, ROOT), ("default", (), ROOT),
        ("no engine", (), engineless),
    ):  # fmt: skip
        out = tmp_path / f"{name}.csv"
        done = gruard("replay", bundle, data, "--out", out, *words, path=path)
        assert done.returncode == 0, done.stderr
        found[name] = out.read_text()
    assert len(found["core"].splitlines()) == 1 + 500
    assert len(set(found.values())) == 1


@pytest.mark.long
@pytest.mark.parametrize("words", [(), CORE, REFERENCE], ids=["default", "core", "reference"])
def test_selftest_proves_the_core_unless_the_reference_is_asked_for(
    bundle: Path, words: tuple[str, ...]
) -> None:
    done = gruard("selftest", bundle, *words, "--json")
    linear = read_bundle(bundle).manifest.linear
    reference = HOST_KERNEL_ID if linear else KERNEL_ID
    expected = reference if words == REFERENCE else CORE_KERNEL_ID
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["kernel"] == expected


@pytest.mark.long
def test_the_default_needs_no_interpreter(
    bundle: Path, data: Path, tmp_path: Path, interpreterless: Path
) -> None:
    proven = gruard("selftest", bundle, "--json", path=interpreterless)
    assert json.loads(proven.stdout)["kernel"] == CORE_KERNEL_ID
    found = {}
    for path in (ROOT, interpreterless):
        sink = tmp_path / f"{path.name}.jsonl"
        words = ("--sink", sink, "--deadline", PATIENT)
        done = gruard("run", bundle, "--source", data, *words, path=path)
        assert done.returncode == 0 and " on core-c\n" in done.stderr
        found[path] = sink.read_text()
    assert found[ROOT] == found[interpreterless]


def test_a_bundle_that_the_core_refuses_runs_on_the_reference_and_the_reason_is_said(
    refused: Path, data: Path, tmp_path: Path
) -> None:
    reason = f"{refused}: closed_limit is {1 << 25}, the C core counts from 0 to {1 << 24}"
    proven = gruard("selftest", refused, "--json")
    assert json.loads(proven.stdout)["kernel"] == KERNEL_ID
    assert proven.stderr == f"gruard: {reason}; {KERNEL_ID} runs it\n"
    replayed = gruard("replay", refused, data, "--out", tmp_path / "out.csv")
    assert replayed.returncode == 0 and reason in replayed.stderr
    ran = gruard("run", refused, "--source", data, "--sink", tmp_path / "out.jsonl")
    assert f" on {KERNEL_ID}, because {reason}\n" in ran.stderr
    asked = gruard("selftest", refused, *CORE)
    assert asked.returncode == 2 and asked.stderr == f"gruard: {reason}\n"


def test_a_refused_bundle_without_an_interpreter_is_an_error_with_both_reasons(
    refused: Path, interpreterless: Path
) -> None:
    done = gruard("selftest", refused, path=interpreterless)
    assert done.returncode == 2 and done.stdout == ""
    assert "the C core counts from 0 to" in done.stderr and NO_INTERPRETER in done.stderr


def test_with_neither_a_network_is_refused_and_a_linear_bundle_runs(
    tiny_bundle: Path, linear_bundle: Path, tmp_path: Path
) -> None:
    neither = blocking(tmp_path / "neither", WITHOUT_ENGINE + BLOCKED)
    done = gruard("selftest", tiny_bundle, path=neither)
    assert done.returncode == 2
    assert WHAT_TO_DO in done.stderr and NO_INTERPRETER in done.stderr
    linear = gruard("selftest", linear_bundle, "--json", path=neither)
    assert json.loads(linear.stdout)["kernel"] == HOST_KERNEL_ID
    assert linear.stderr == f"gruard: {WHAT_TO_DO}; {HOST_KERNEL_ID} runs it\n"


def test_selftest_on_the_core_notices_one_bit(bundle_copy: Path) -> None:
    arrays = dict(read_bundle(bundle_copy).arrays("golden.npz"))
    arrays["state"].view(np.uint32).reshape(-1)[-1] ^= 1
    np.savez(bundle_copy / "scratch.npz", **arrays)
    replace_member(bundle_copy, "golden.npz", (bundle_copy / "scratch.npz").read_bytes())
    done = gruard("selftest", bundle_copy, *CORE)
    assert done.returncode == 2
    assert f"self-test failed at step {len(arrays['rows']) - 1} in state;" in done.stderr


@pytest.mark.long
def test_a_threshold_is_that_of_the_reference(bundle_copy: Path, data: Path) -> None:
    """Calibrated on either, it holds for both: equal bits make equal scores."""
    rows = tiny_model.machine_rows(1200, seed=31)
    clean = bundle_copy.parent / "clean.csv"
    np.savetxt(clean, rows, "%.6g", ",", header=",".join(tiny_model.CHANNELS), comments="")
    words = ("calibrate", bundle_copy, "--data", clean, "--false-alarms-per-day", 400, "--json")
    told = {}
    for kernel in (REFERENCE, CORE, ()):
        done = gruard(*words, *kernel)
        assert done.returncode == 0, done.stderr
        told[kernel] = json.loads(done.stdout)
    assert told[CORE] == told[()] == told[REFERENCE] and told[CORE]["kernel"] == KERNEL_ID
    loaded = read_bundle(bundle_copy)
    assert threshold_of(loaded, CORE_KERNEL_ID) == threshold_of(loaded, KERNEL_ID)
    record = open_detector(loaded, CORE_KERNEL_ID)
    for i, row in enumerate(rows[:150]):
        last = record.step(Sample(i, None, row))
    assert last.tier == 1 and last.threshold == told[CORE]["value"]


def test_a_linear_threshold_is_the_hosts(linear_bundle: Path) -> None:
    loaded = read_bundle(linear_bundle)
    expected = loaded.manifest.thresholds[HOST_KERNEL_ID]
    assert threshold_of(loaded, CORE_KERNEL_ID) == expected


@pytest.mark.long
@pytest.mark.parametrize("command", ["selftest", "replay", "calibrate"])
def test_without_the_engine_an_error_says_what_to_do(
    command: str, tiny_bundle: Path, data: Path, engineless: Path
) -> None:
    more = {"selftest": (), "replay": (data,), "calibrate": ("--data", data)}[command]
    done = gruard(command, tiny_bundle, *more, *CORE, path=engineless)
    assert done.returncode == 2
    assert done.stderr == f"gruard: {WHAT_TO_DO}\n"


def test_a_run_without_the_engine_says_so_and_the_fallback_answers(
    tiny_bundle: Path, data: Path, engineless: Path, tmp_path: Path
) -> None:
    sink = tmp_path / "out.jsonl"
    words = ("run", tiny_bundle, "--source", data, "--sink", sink, *CORE)
    done = gruard(*words, path=engineless)
    assert done.returncode == 0 and WHAT_TO_DO in done.stderr
    records = [json.loads(line) for line in sink.read_text().splitlines()]
    assert len(records) == 500
    assert all(record["tier"] == 3 and "FALLBACK" in record["flags"] for record in records)


def test_the_worker_answers_on_the_core_stage_by_stage(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    reference = open_detector(bundle, KERNEL_ID)
    process = WorkerProcess(
        worker_command(tiny_bundle),
        identity=BundleIdentity.of(read_bundle(tiny_bundle)),
    )
    process.start()
    try:
        hello = process.poll_ready(PATIENT)
        assert hello is not None and hello.kernel == CORE_KERNEL_ID
        for index, row in enumerate(tiny_model.machine_rows(20, seed=7)):
            sample = Sample(index, None, row)
            process.tell(sample)
            answer, expected = process.answer(sample, PATIENT), reference.step(sample)
            assert answer is not None and answer.to_json() == expected.to_json()
    except WorkerGoneError as gone:  # a stage left out ends it
        pytest.fail(str(gone))
    finally:
        process.kill()
    stages: list[str] = []
    core = NativeDetector(bundle)
    core.step(Sample(0, None, tiny_model.machine_rows(1, seed=7)[0]), stages.append)
    assert stages == ["mask", "invoke", "check"]


def step_with_a_flipped_bit(bundle: Bundle, share: float) -> None:
    """Steps until the watch looks again; `share`: where in the blob the bit is."""
    rows, detector = tiny_model.machine_rows(200, seed=7), NativeDetector(bundle)
    for i, row in enumerate(rows[:150]):
        detector.step(Sample(i, None, row))
    flip_in_memory(detector._blob, int(share * len(detector._blob)))
    for i, row in enumerate(rows[150 : 150 + WATCH_EVERY]):
        detector.step(Sample(150 + i, None, row))


@pytest.mark.parametrize("share", [0.1, 0.8, 0.99])
def test_a_constant_or_weight_that_changes_in_memory_is_noticed(
    tiny_bundle: Path, share: float
) -> None:
    with pytest.raises(GruardError, match="its weights changed in memory"):
        step_with_a_flipped_bit(read_bundle(tiny_bundle), share)


def test_an_operator_that_changes_in_memory_is_noticed_or_ends_the_process(
    tiny_bundle: Path,
) -> None:
    """Its place in the arena may then be outside this process's memory."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=step_with_a_flipped_bit, args=(read_bundle(tiny_bundle), 0.5))
    process.start()
    process.join(PATIENT)
    assert process.exitcode in (1, -signal.SIGSEGV)


def test_a_sound_core_is_watched_for_ever(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    detector, steps = NativeDetector(bundle), len(bundle.arrays("golden.npz")["rows"])
    for i, row in enumerate(tiny_model.machine_rows(2 * steps * WATCH_EVERY, seed=7)):
        record = detector.step(Sample(i, None, row))
    assert record.tier == 1


def test_an_engine_of_an_older_build_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "edge_runtime.native._core"
    assert core_module().INTERFACE == INTERFACE
    older = types.ModuleType(name)
    older.__file__ = "_core.so"
    monkeypatch.setitem(sys.modules, name, older)
    with pytest.raises(GruardError, match=r"_core\.so: was built for another version of gruard"):
        core_module()
