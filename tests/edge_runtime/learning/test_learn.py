"""`gruard learn`: from a recording to a bundle that the device accepts, with what a device has."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from made_diagnosis import NAMES, made_rows

from edge_runtime.bundle.reader import LINEAR_MEMBERS, read_bundle
from edge_runtime.calibration import trial_of
from edge_runtime.commands.main import gruard
from edge_runtime.detector.detector import Detector
from edge_runtime.errors import GruardError
from edge_runtime.learning import learn as module
from edge_runtime.learning.learn import Learned, learn, linear_run, slow_steps, write_learned
from edge_runtime.learning.request import Request, read_data
from edge_runtime.learning.run import Run
from edge_runtime.native.engine import NativeDetector

ROOT = Path(__file__).resolve().parents[3]
ROWS = 1400

ONLY_NUMPY = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        packages = ("tensorflow", "keras", "scipy", "yaml", "matplotlib", "tflite_runtime",
                    "ai_edge_litert", "train", "convert")
        if name.split(".")[0] in packages:
            raise ModuleNotFoundError(f"{name} is not on the device")

sys.meta_path.insert(0, Blocked())
from edge_runtime.commands.main import main
main()
"""


def written(path: Path, rows: np.ndarray, start: int = 0) -> Path:
    """A CSV of `rows`, one a second."""
    lines = [
        f"{start + i}," + ",".join("" if np.isnan(v) else f"{v:.6g}" for v in row)
        for i, row in enumerate(rows)
    ]
    path.write_text("\n".join([",".join(("time", *NAMES)), *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("healthy") / "healthy.csv", made_rows(ROWS, seed=1))


def on_a_device(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`gruard ARGUMENTS` in a process that has neither TensorFlow nor scipy, YAML, pictures."""
    command = [sys.executable, "-c", ONLY_NUMPY, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def learning(
    recording: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The bundle that a device learned, and what the command said."""
    bundle = tmp_path_factory.mktemp("learned") / "made-3.gruard"
    return bundle, on_a_device("learn", recording, "--out", bundle)


@pytest.fixture(scope="module")
def bundle(learning: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    return learning[0]


def quiet(sentence: str) -> None:
    pass


@pytest.fixture(scope="module")
def run(recording: Path) -> Run:
    return linear_run(read_data(Request((recording,))), "made", 0, quiet)


@pytest.fixture(scope="module")
def learned(run: Run) -> Learned:
    return learn(run, 3, 1.0, quiet)


def called(*arguments: object) -> tuple[int, str]:
    """Exit code and the line of the error of `gruard learn ARGUMENTS`."""
    result = CliRunner().invoke(gruard, ["learn", *map(str, arguments)], standalone_mode=False)
    if isinstance(result.exception, GruardError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.output


def test_a_device_learns_what_it_accepts(
    learning: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    bundle, said = learning
    assert (said.returncode, said.stdout.splitlines()[-1]) == (0, f"written: {bundle}")
    assert "Traceback" not in said.stderr and "fitting the linear forecast" in said.stderr
    loaded = read_bundle(bundle)
    assert {path.name for path in bundle.iterdir()} >= {*LINEAR_MEMBERS, "manifest.json"}
    manifest = loaded.manifest
    assert (manifest.name, manifest.version, manifest.linear) == ("made", 3, True)
    assert manifest.channel_names == NAMES and manifest.period == 1.0
    assert manifest.validation.passed and manifest.diagnosis is not None
    assert set(manifest.provenance.tools) == {"numpy"}
    Detector(loaded).self_test()
    NativeDetector(loaded).self_test()


@pytest.mark.parametrize("words", [("inspect",), ("selftest",)], ids="".join)
def test_the_commands_of_the_device_take_it(bundle: Path, words: tuple[str, ...]) -> None:
    found = on_a_device(*words, bundle)
    assert found.returncode == 0, found.stderr


@pytest.mark.long
def test_it_finds_a_fault_that_it_never_saw(bundle: Path, tmp_path: Path) -> None:
    rows = made_rows(600, seed=9)
    rows[400:, 2] += 3
    records = tmp_path / "records.jsonl"
    found = on_a_device(
        "run", bundle, "--source", written(tmp_path / "day.csv", rows), "--sink", records
    )
    assert found.returncode == 0, found.stderr
    made = [json.loads(line) for line in records.read_text().splitlines()]
    alarms = [record["index"] for record in made if record["alarm"] and record["tier"] == 1]
    assert len(made) == 600 and alarms and 400 <= min(alarms) < 410
    assert "flow" in made[min(alarms)]["blamed"]


@pytest.mark.long
def test_the_same_recording_gives_the_same_bytes(
    bundle: Path, recording: Path, tmp_path: Path
) -> None:
    again = tmp_path / bundle.name
    assert on_a_device("learn", recording, "--out", again).returncode == 0
    for path in bundle.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


@pytest.mark.long
def test_without_the_core_it_says_how_long_and_gives_the_same_bytes(
    run: Run, learned: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def absent() -> None:
        raise GruardError("was not built on this machine")

    assert slow_steps(run, 3, iter((0.0, 1.0)).__next__) == ""
    monkeypatch.setattr("edge_runtime.native.engine.core_module", absent)
    monkeypatch.setattr(module, "core_module", absent)
    sentence = slow_steps(run, 3, iter((10.0, 10.5)).__next__)
    steps = int(re.findall(r"([\d,]+) steps", sentence)[0].replace(",", ""))
    assert sentence.endswith(f"about {steps * 0.005:.0f} s") and steps > 2 * 0.8 * ROWS
    slowly = write_learned(learn(run, 3, 1.0, said.append), tmp_path / "slow", force=False)
    quickly = write_learned(learned, tmp_path / "quick", force=False)
    assert any("the C core is not built" in sentence for sentence in said)
    for path in quickly.iterdir():
        assert path.read_bytes() == (slowly / path.name).read_bytes(), path.name


def test_few_rows_make_a_trial(tmp_path: Path) -> None:
    short = written(tmp_path / "short.csv", made_rows(300, seed=2))
    code, out = called(short, "--out", tmp_path / "short-1.gruard", "--json")
    facts = json.loads(out.splitlines()[-1])
    manifest = read_bundle(tmp_path / "short-1.gruard").manifest
    assert (code, facts["passed"]) == (0, True) and manifest.diagnosis is None
    assert facts["trial"] == trial_of(manifest) and "learn again with more" in facts["trial"]
    assert facts["bundle"] == str(tmp_path / "short-1.gruard")
    report = json.loads((tmp_path / "short-1.gruard" / "report.json").read_text())
    assert {**report, "bundle": facts["bundle"]} == facts


def test_enough_rows_make_no_trial(learned: Learned) -> None:
    assert learned.facts()["trial"] == "" == trial_of(learned.manifest)


def test_the_page_says_what_the_facts_say(bundle: Path, learned: Learned) -> None:
    page = (bundle / "report.html").read_text()
    (threshold,) = learned.manifest.thresholds.values()
    assert threshold.statement in page and "passed" in page and "http" not in page
    assert all(check.name in page for check in learned.checks)


def test_a_strange_stretch_is_a_warning(tmp_path: Path) -> None:
    rows = made_rows(ROWS, seed=1)
    rows[700:712, 2] += 60
    strange = written(tmp_path / "strange.csv", rows)
    code, out = called(strange, "--out", tmp_path / "strange-1.gruard")
    assert code == 0 and "times the usual" in out and "learn again" in out
    assert "times the usual" in (tmp_path / "strange-1.gruard" / "report.html").read_text()


@pytest.mark.parametrize(
    "name", ["pump", "pump-0.gruard", "pump-1.5.gruard", "-1.gruard", "p.gruard"]
)
def test_another_name_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    code, said = called(tmp_path / "nothing.csv", "--out", tmp_path / name)
    assert code == 2 and "NAME-VERSION.gruard" in said and str(tmp_path / name) in said


def test_an_existing_bundle_stays_unless_forced(
    bundle: Path, recording: Path, tmp_path: Path
) -> None:
    before = (bundle / "manifest.json").read_bytes()
    code, said = called(recording, "--out", bundle)
    assert code == 2 and "already there" in said and "--force" in said
    assert (bundle / "manifest.json").read_bytes() == before
    short = written(tmp_path / "short.csv", made_rows(300, seed=2))
    out = tmp_path / "short-1.gruard"
    assert called(short, "--out", out)[0] == called(short, "--out", out, "--force")[0] == 0


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = called(tmp_path / "nothing.csv", "--out", tmp_path / "file" / "pump-1.gruard")
    assert code == 2 and "choose another --out" in said


def table(cell: Callable[[int], object], rows: int = 300, step: int = 1) -> str:
    """A recording of one channel `a`."""
    return "time,a\n" + "".join(f"{step * i},{cell(i)}\n" for i in range(rows))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (table(lambda i: i % 7, rows=100), ("100 rows are too few", "at least 150")),
        (table(lambda i: "oops"), ("line 2, column 'a'", "'oops' is not a number")),
        (table(lambda i: i), ("no column is left", "counting: a")),
        (table(lambda i: i % 7, step=0), ("line 3", "does not increase")),
    ],
    ids=["few", "text", "counter", "standing clock"],
)
def test_a_bad_recording_is_named(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    code, said = called(file, "--out", tmp_path / "bad-1.gruard")
    assert code == 2 and str(file) in said and all(name in said for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_a_recording_named_twice_is_refused(recording: Path, tmp_path: Path) -> None:
    for other in (recording, recording.parent):
        code, said = called(recording, other, "--out", tmp_path / "made-1.gruard")
        assert code == 2 and f"{recording}: is named twice" in said


def test_yaml_settings_without_yaml_say_what_to_do(recording: Path, tmp_path: Path) -> None:
    settings = tmp_path / "channels.yaml"
    settings.write_text("channels:\n  demand: {exogenous: true}\n")
    out = tmp_path / "made-1.gruard"
    found = on_a_device("learn", recording, "--settings", settings, "--out", out)
    assert found.returncode == 2 and not out.exists()
    assert found.stderr.startswith(f"gruard: {settings}: YAML needs the package PyYAML")
    assert "TOML" in found.stderr


@pytest.mark.long
@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in Python 3.11")
def test_toml_settings_need_no_package(recording: Path, tmp_path: Path) -> None:
    settings = tmp_path / "channels.toml"
    settings.write_text("[channels.demand]\nexogenous = true\nunit = 'l/min'\n")
    out = tmp_path / "made-1.gruard"
    found = on_a_device("learn", recording, "--settings", settings, "--out", out)
    assert found.returncode == 0, found.stderr
    first = read_bundle(out).manifest.channels[0]
    assert (first.name, first.exogenous, first.unit) == ("demand", True, "l/min")


@pytest.mark.long
def test_a_full_disk_leaves_nothing_behind(recording: Path, tmp_path: Path) -> None:
    starved = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    command = [sys.executable, "-c", starved + ONLY_NUMPY, "learn", recording]
    found = subprocess.run(
        [*map(str, command), "--out", str(tmp_path / "made-1.gruard")],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert found.returncode == 2 and "cannot be written" in found.stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.long
def test_steps_off_the_formula_are_not_written(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_runtime.learning import formula

    expected: Callable[..., np.ndarray] = formula._expected
    monkeypatch.setattr(formula, "_expected", lambda *args: expected(*args) + 0.01)
    code, said = called(recording, "--out", tmp_path / "made-1.gruard")
    assert code == 1 and "FAIL" in said and "nothing was written" in said
    assert not [*tmp_path.iterdir()]


@pytest.mark.long
def test_excluded_rows_are_not_learned(bundle: Path, tmp_path: Path) -> None:
    rows = made_rows(ROWS, seed=1)
    rows[700:712, 2] += 60
    strange = written(tmp_path / "strange.csv", rows)
    thresholds = []
    for number, words in enumerate(((), ("--exclude", "690..770")), start=1):
        out = tmp_path / f"made-{number}.gruard"
        code, said = called(strange, "--out", out, *words)
        assert (code, "times the usual" in said) == (0, number == 1)
        (threshold,) = read_bundle(out).manifest.thresholds.values()
        thresholds.append(threshold.value)
    (usual,) = read_bundle(bundle).manifest.thresholds.values()
    assert thresholds[0] > 2 * thresholds[1] and thresholds[1] < 1.5 * usual.value
