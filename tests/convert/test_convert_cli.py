"""`python -m convert` as its user meets it: the exit code is the verdict, an error is one line."""

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from spoiling import coarse_ranges

from convert.bundle_writer import write_bundle
from convert.convert_run import Conversion
from convert.proof import Outcome
from edge_runtime.bundle.reader import CHECKSUM, MEMBERS, checksum, read_bundle
from edge_runtime.detector.kernels import available_kernels
from edge_runtime.errors import GruardError
from edge_runtime.learning.run import Run, npz_bytes
from train.run_folder import read_arrays, read_run

ROOT = Path(__file__).resolve().parents[2]
Ended = subprocess.CompletedProcess[str]
Call = Callable[..., tuple[int, str, str]]

# A file may not grow beyond the limit: what a full disk does, for one process only.
STARVED = """
import pickle, resource, runpy, sys
from pathlib import Path
{before}
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop()),) * 2)
sys.argv[0] = 'convert'
runpy.run_module('convert', run_name='__main__')
"""
# The command gets the conversion from a file, and does everything that comes after it.
CONVERTED = """
from convert import candidates
found = pickle.loads(Path(sys.argv.pop(1)).read_bytes())
choice = candidates.Choice((candidates.Outcome('gated network', found.verdict),), found)
candidates.convert_first_fit = lambda *_: choice
"""
# The command judges on short streams.
BRIEF = """
import runpy, sys
sys.path[:0] = ['', 'tests']
import tiny_model
tiny_model.judge_briefly()
sys.argv[0] = 'convert'
runpy.run_module('convert', run_name='__main__')
"""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `python -m convert ARGS` in this process: exit code, stdout, stderr."""
    from convert.__main__ import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convert", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            assert isinstance(ended.code, int)
            code = ended.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def refused(result: tuple[int, str, str]) -> str:
    """The one line of a command that ended with exit code 2."""
    code, out, err = result
    assert code == 2 and out == ""
    (line,) = err.splitlines()
    assert line.startswith("convert: ")
    return line


# Nothing of a process's surroundings may show in a bundle.
ELSEWHERE = {
    "TZ": "Asia/Kathmandu",
    "PYTHONHASHSEED": "7",
    "SOURCE_DATE_EPOCH": "86400",
    "LANG": "C",
}


def convert(*arguments: object, brief: bool = True) -> Ended:
    code = ["-c", BRIEF] if brief else ["-m", "convert"]
    command = [sys.executable, *code, *map(str, arguments)]
    environment = {**os.environ, **ELSEWHERE}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def starved(limit: int, before: str, *arguments: object) -> Ended:
    """The command in a process whose files cannot grow beyond `limit` bytes."""
    command = [sys.executable, "-c", STARVED.format(before=before), *map(str, arguments)]
    command.append(str(limit))
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Command:
    """The whole command in a process of its own, and the run that it converted."""

    run: Path
    ended: Ended


@pytest.fixture(scope="module")
def command(good_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Command:
    run = Path(shutil.copytree(good_run.path, tmp_path_factory.mktemp("command") / "run"))
    return Command(run, convert(run, "--json"))


@pytest.fixture(scope="module")
def bad_run(good_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that fails its validation."""
    path = Path(shutil.copytree(good_run.path, tmp_path_factory.mktemp("bad") / "run"))
    weights = read_arrays(path / "weights.npz", "")
    weights["correction_kernel"] *= np.float32(60)
    (path / "weights.npz").write_bytes(npz_bytes(weights))
    return read_run(path)


@pytest.fixture
def nothing_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The linear detector computes other forecasts than its formula; judged on one kernel."""
    from convert import convert_run as module
    from edge_runtime.learning import formula

    expected = formula._expected
    coarse_ranges(monkeypatch)
    monkeypatch.setattr(module, "available_kernels", lambda: available_kernels()[:1])
    monkeypatch.setattr(
        formula, "_expected", lambda *args: expected(*args) + np.array([0, 0, 0.01])
    )


@pytest.mark.slow
def test_a_good_run_becomes_a_bundle_and_exit_code_0(command: Command) -> None:
    ended = command.ended
    assert ended.returncode == 0, ended.stdout + ended.stderr
    facts = json.loads(ended.stdout)
    assert facts["passed"] is True and all(check["passed"] for check in facts["checks"])
    assert facts["bundle"] == str(command.run / "bundle" / "tiny-1.gruard")
    assert facts["threshold"].startswith("wish: 1 false alarms a day")
    assert facts["choice"] == "gated network: passed" and facts["advice"] == facts["trial"] == ""
    assert read_bundle(Path(facts["bundle"])).manifest.validation.passed
    assert all(line.startswith("… ") for line in ended.stderr.splitlines())


@pytest.mark.long
@pytest.mark.slow
def test_another_process_converts_to_the_same_bytes(
    command: Command, conversion: Conversion, tmp_path: Path
) -> None:
    judged = (Outcome("gated network", conversion.verdict.without_evidence),)
    told = replace(conversion, proof=replace(conversion.proof, outcomes=judged))
    here = write_bundle(told, tmp_path, force=False)
    there = command.run / "bundle" / "tiny-1.gruard"
    for member in (*MEMBERS, "manifest.json"):
        assert (here / member).read_bytes() == (there / member).read_bytes(), member


@pytest.mark.long
def test_the_same_model_is_judged_in_full_length(
    good_run: Run, conversion: Conversion, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(good_run.path, tmp_path / "run"))
    ended = convert(run, brief=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    there = read_bundle(run / "bundle" / "tiny-1.gruard")
    here = read_bundle(write_bundle(conversion, tmp_path, force=False))
    assert replace(there.manifest, proof={}) == replace(here.manifest, proof={})
    assert there.manifest.proof["calibration.npz"] == here.manifest.proof["calibration.npz"]
    assert there.manifest.proof["report.json"] != here.manifest.proof["report.json"]


@pytest.mark.long
def test_where_no_candidate_passes_it_says_what_to_do(
    bad_run: Run, nothing_passes: None, call: Call
) -> None:
    code, out, err = call("bundle", bad_run.path)
    assert code == 1 and all(line.startswith("… ") for line in err.splitlines())
    assert "FAIL  one step: forecast, RMS" in out and "FAIL  linear: forecast off" in out
    assert out.count("FAIL  ") == out.count("\nFAIL  ") and "\npass  " not in out
    *_, choice, last = out.splitlines()
    assert [part.split(":")[0] for part in choice.split("; ")] == [
        "gated network", "network without a gate", "linear detector",
    ]  # fmt: skip
    assert last == (
        "FAILED: no bundle was written; train again without the channel 'heat', on which the "
        "linear detector failed; if that does not help, convert on another computer; --force "
        "writes the first candidate, marked"
    )
    assert not (bad_run.path / "bundle").exists()


def diverged(run: Path, patch: pytest.MonkeyPatch) -> str:
    """Weights of a training whose loss became infinite."""
    weights = read_arrays(run / "weights.npz", "")
    name = next(name for name in weights if name.startswith("gru_"))
    weights[name] = np.full_like(weights[name], np.nan)
    (run / "weights.npz").write_bytes(npz_bytes(weights))
    return f"its weights are not finite ({name}): the training diverged"


def without_tensorflow(run: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setitem(sys.modules, "tensorflow", None)
    patch.delitem(sys.modules, "convert.export", raising=False)
    return "tensorflow, which converts a network, is not installed: pip install"


@pytest.mark.long
@pytest.mark.parametrize("harm", [diverged, without_tensorflow])
def test_where_no_network_can_be_converted_the_linear_detector_is(
    call: Call,
    run_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Path, pytest.MonkeyPatch], str],
) -> None:
    why = harm(run_copy, monkeypatch)
    code, out, _ = call(run_copy)
    bundle = run_copy / "bundle" / "tiny-1.gruard"
    *_, reason, passed = out.splitlines()
    assert (code, passed) == (0, f"passed: {bundle}")
    assert reason.startswith(f"gated network: failed, {why}")
    assert f"; network without a gate: failed, {why}" in reason
    assert reason.endswith("; linear detector: passed")
    report = json.loads((bundle / "report.json").read_text())
    assert report["choice"] == reason and len(report["candidates"]) == 3
    manifest = read_bundle(bundle).manifest
    assert manifest.linear and manifest.validation.passed


def test_rows_that_no_model_can_settle_on_say_what_to_record(
    call: Call, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverged(run_copy, monkeypatch)
    rows = read_arrays(run_copy / "rows.npz", "")
    pieces = {
        f"{name}-{start:03d}": array[start : start + 8]
        for name, array in rows.items()
        for start in range(0, len(array), 8)
    }
    (run_copy / "rows.npz").write_bytes(npz_bytes(pieces))
    code, out, err = call(run_copy)
    *steps, line = err.splitlines()
    assert (code, out) == (2, "") and all(step.startswith("… ") for step in steps)
    assert "needs 3 clean rows in a row" in line and line.endswith("longer, without a break")
    assert not (run_copy / "bundle").exists()


@pytest.mark.long
def test_the_first_candidate_is_written_on_demand_and_refused_by_the_device(
    bad_run: Run, nothing_passes: None, call: Call, tmp_path: Path
) -> None:
    code, out, _ = call(bad_run.path, "--force", "--json", "--out", tmp_path, "--version", 7)
    assert code == 1
    facts = json.loads(out)
    assert facts["passed"] is False and "without the channel 'heat'" in facts["advice"]
    written = Path(facts["bundle"])
    assert written == tmp_path / "tiny-7.gruard"
    with pytest.raises(GruardError, match="failed its validation"):
        read_bundle(written)
    device = [sys.executable, "-m", "edge_runtime", "replay", str(written), "x.csv"]
    asked = subprocess.run(device, cwd=ROOT, capture_output=True, text=True, check=False)
    assert asked.returncode == 2 and "failed its validation" in asked.stderr
    manifest = read_bundle(written, allow_failed=True).manifest
    assert not manifest.validation.passed and manifest.validation.forced
    assert "logit" in manifest.outputs  # the model that was trained


@pytest.mark.long
def test_a_full_disk_is_one_line_and_leaves_nothing(
    run_copy: Path, conversion: Conversion, tmp_path: Path
) -> None:
    stored, out = tmp_path / "conversion", tmp_path / "out"
    stored.write_bytes(pickle.dumps(conversion))
    ended = starved(200_000, CONVERTED, stored, run_copy, "--out", out)
    assert ended.returncode == 2
    assert ended.stderr == f"convert: {out / 'tiny-1.gruard'}: cannot be written (File too large)\n"
    assert list(out.iterdir()) == []


@pytest.mark.long
@pytest.mark.slow
def test_no_room_for_temporary_files_is_one_line(run_copy: Path) -> None:
    ended = starved(40_000, "", run_copy)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("… ")]
    assert line.startswith("convert: TensorFlow could not write its temporary files to /")


@pytest.mark.long
@pytest.mark.slow
def test_a_bundle_is_judged_again_from_the_disk(command: Command, call: Call) -> None:
    bundle = command.run / "bundle" / "tiny-1.gruard"
    code, out, _ = call("validate", bundle)
    assert code == 0 and out.splitlines()[-1] == "passed"
    assert "pass  golden vectors: differing" in out


@pytest.mark.slow
def test_a_golden_vector_that_differs_fails_the_judgement(
    command: Command, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("convert.revalidate.available_kernels", lambda: ())
    source = command.run / "bundle" / "tiny-1.gruard"
    bundle = Path(shutil.copytree(source, tmp_path / source.name))
    golden = read_arrays(bundle / "golden.npz", "")
    golden["codes/gate_next"][3, 1] ^= 1
    (bundle / "golden.npz").write_bytes(npz_bytes(golden))
    manifest = json.loads((bundle / "manifest.json").read_text())
    digest = hashlib.sha256((bundle / "golden.npz").read_bytes()).hexdigest()
    manifest["members"]["golden.npz"] = digest
    text = json.dumps(manifest).encode()
    (bundle / "manifest.json").write_bytes(text)
    (bundle / CHECKSUM).write_bytes(checksum(hashlib.sha256(text).hexdigest()))
    code, out, _ = call("validate", bundle, "--run", command.run, "--json")
    assert code == 1
    facts = json.loads(out)
    failing = [check["name"] for check in facts["checks"] if not check["passed"]]
    assert facts["passed"] is False and failing == ["golden vectors: differing"]


def test_an_existing_bundle_is_refused_before_any_work(call: Call, run_copy: Path) -> None:
    existing = run_copy / "bundle" / "tiny-3.gruard"
    existing.mkdir(parents=True)
    for words in (["bundle", run_copy, "--version", "3"], [run_copy, "--version", "3"]):
        line = refused(call(*words))
        assert f"{existing}: is already there; raise the version" in line


def test_an_unfinished_run(call: Call, run_copy: Path) -> None:
    (run_copy / "weights.npz").rename(run_copy / "checkpoint.npz")
    line = refused(call(run_copy))
    assert "run the same train command again to resume" in line
    assert "not a finished run" in refused(call("bundle", run_copy / "nowhere"))


def test_a_damaged_run(call: Call, run_copy: Path) -> None:
    data = (run_copy / "rows.npz").read_bytes()
    (run_copy / "rows.npz").write_bytes(data[: len(data) // 2])
    assert "rows.npz: unreadable" in refused(call(run_copy))
    assert not (run_copy / "bundle").exists()


@pytest.mark.parametrize("member", [*MEMBERS, "manifest.json"])
def test_a_truncated_bundle_is_not_judged(call: Call, bundle_copy: Path, member: str) -> None:
    data = (bundle_copy / member).read_bytes()
    (bundle_copy / member).write_bytes(data[: len(data) // 2])
    line = refused(call("validate", bundle_copy, "--run", bundle_copy))
    assert member in line and "copy the bundle again" in line


def test_a_bundle_of_another_run_is_not_judged(
    call: Call, bundle_copy: Path, run_copy: Path
) -> None:
    weights = read_arrays(run_copy / "weights.npz", "")
    weights["logit_bias"] += np.float32(0.01)
    (run_copy / "weights.npz").write_bytes(npz_bytes(weights))
    line = refused(call("validate", bundle_copy, "--run", run_copy))
    assert "was not made from the weights in" in line and "--run" in line


def test_a_bundle_without_its_run_is_not_judged(call: Call, bundle_copy: Path) -> None:
    assert "not a finished run" in refused(call("validate", bundle_copy))
    assert "no such bundle" in refused(call("validate", bundle_copy / "nowhere"))


def test_audit_takes_a_bundle_or_its_model(call: Call, tiny_bundle: Path) -> None:
    for model in (tiny_bundle, tiny_bundle / "model.tflite"):
        code, out, _ = call("audit", model, "--json")
        facts = json.loads(out)
        assert code == 0 and facts["verdicts"][0]["passed"] is True
        assert facts["totals"]["file_bytes"] == (tiny_bundle / "model.tflite").stat().st_size
        names = [operator["name"] for operator in facts["operators"]]
        assert names.count("FULLY_CONNECTED") > 5 and facts["subgraphs"] == 1
    code, out, _ = call("audit", tiny_bundle)
    assert code == 0 and "yes  TFLite int8: runs in gruard" in out.splitlines()


def test_audit_refuses_the_float_step_with_the_reason(
    call: Call, tiny_run: Run, tmp_path: Path
) -> None:
    from convert.export import export_float
    from train.cell_config import CellConfig

    file = tmp_path / "float.tflite"
    file.write_bytes(export_float(tiny_run.weights, CellConfig(**tiny_run.config.sizes)))
    code, out, _ = call("audit", file, "--json")
    (fault, *_) = json.loads(out)["verdicts"][0]["reasons"]
    assert code == 1 and "are not int8" in fault and "full-integer quantisation" in fault


def test_audit_refuses_a_foreign_model(call: Call, tmp_path: Path) -> None:
    import tensorflow as tf

    from edge_runtime.detector.interpreter import quiet_stderr

    signature = tf.TensorSpec([1, 3], tf.float32, "x")
    function = tf.function(lambda x: {"y": tf.nn.softmax(x)})
    concrete = function.get_concrete_function(x=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
    file = tmp_path / "foreign.tflite"
    with quiet_stderr():
        file.write_bytes(converter.convert())
    code, out, _ = call("audit", file)
    assert code == 1
    assert "operator SOFTMAX is not allowed" in out and "not a gruard step" in out


def test_audit_of_what_is_no_model(call: Call, tmp_path: Path, tiny_bundle: Path) -> None:
    assert "cannot be read (No such file" in refused(call("audit", tmp_path / "no.tflite"))
    assert "is no bundle" in refused(call("audit", tmp_path))
    file = tmp_path / "x.tflite"
    file.write_bytes(b"hello, this is text")
    assert "not a .tflite file" in refused(call("audit", file))
    data = (tiny_bundle / "model.tflite").read_bytes()
    for share in (10, 3, 2):
        file.write_bytes(data[: len(data) // share])
        assert "damaged .tflite file" in refused(call("audit", file))


def test_help_needs_no_tensorflow() -> None:
    blocked = (
        "import runpy, sys; sys.modules.update(dict.fromkeys(['tensorflow', 'keras', 'scipy']));"
        "sys.argv[0] = 'convert'; runpy.run_module('convert', run_name='__main__')"
    )
    for words in (["--help"], ["bundle", "-h"], ["validate", "-h"], ["audit", "--help"]):
        command = [sys.executable, "-c", blocked, *words]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "Exit code 0" in ended.stdout or "python -m convert RUN" in ended.stdout


def test_a_wrong_option_is_exit_code_2(call: Call, run_copy: Path) -> None:
    for words in (["--version", "0"], ["--false-alarms-per-day", "0"], ["--nonsense"]):
        code, out, err = call(run_copy, *words)
        assert code == 2 and out == "" and "Traceback" not in err and words[0] in err


@pytest.mark.long
def test_ctrl_c_in_the_middle_leaves_nothing(tiny_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "bundles"
    command = [sys.executable, "-m", "convert", str(tiny_run.path), "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if "quantising" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait() == 130
    assert "convert: interrupted; nothing was written" in rest and "Traceback" not in rest
    assert not out.exists() or list(out.iterdir()) == []
