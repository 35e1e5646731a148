"""The wheel of a device on that device: installed, with neither compiler nor interpreter there.

What is installed needs Debian's numpy and click and nothing else, and gives this machine's bits.
"""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pip
import pytest
from arm_userland import Arm, python, run
from made_diagnosis import NAMES, made_rows
from test_arm import write_faulty_rows

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.native.engine import NativeDetector
from tests.debian_tree import ROOT
from tests.device_wheels import TAGS, native_wheel

pytestmark = pytest.mark.arm

PROCESSORS = {"aarch64": "aarch64", "armv7": "armv7l"}
CODE = "edge_runtime/native/_core.abi3.so"
PATIENT = "600"  # seconds for a sample: an emulated processor is slow


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels with the engine, by processor."""
    folder = tmp_path_factory.mktemp("wheels")
    return {processor: native_wheel(processor, folder) for processor in TAGS}


@pytest.fixture(scope="session")
def installed(arm: Arm, wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the device's own pip has put the wheel, with all that it requires there already."""
    folder, wheel = tmp_path_factory.mktemp(arm.name), wheels[PROCESSORS[arm.name]]
    done = pip_on(arm, folder, "install", "--prefix", str(folder / "device"), str(wheel))
    assert done.returncode == 0, done.stderr
    (room,) = (folder / "device").rglob("edge_runtime/__init__.py")
    return room.parents[1]


def pip_on(arm: Arm, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run pip on the device, without an index. folder: for pip's own code."""
    code = folder / "pip-alone"
    if not code.is_dir():
        code.mkdir()
        (code / "pip").symlink_to(Path(pip.__file__).parent)
    # pip looks at its own program to see which processor it is for.
    command = [*python(arm, arm.python, [code]), "-m", "pip", *words]
    quiet = ["--no-index", "--no-cache-dir", "--disable-pip-version-check"]
    return subprocess.run(
        [*command, *quiet], cwd=folder, capture_output=True, text=True, check=False
    )


def gruard(arm: Arm, installed: Path, folder: Path, *words: object) -> str:
    """The output of gruard on the device."""
    told = ["-m", "edge_runtime", *map(str, words)]
    found = run(arm, told, [installed], cwd=folder)
    assert found.returncode == 0, found.stderr
    return found.stdout


def audited(wheel: Path) -> dict[str, Any]:
    """What auditwheel finds out about `wheel`. glibc: the oldest 2.N that it runs with."""
    words = [sys.executable, "-m", "auditwheel", "show", "--json", str(wheel)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"glibc": glibc_of(found["overall_tag"])}


def glibc_of(text: str) -> int:
    """The N of `manylinux_2_N` in `text`."""
    found = re.search(r"manylinux_2_(\d+)_", text)
    assert found, text
    return int(found[1])


@pytest.mark.parametrize("processor", TAGS)
def test_a_wheel_runs_with_every_libc_that_its_name_allows(
    wheels: dict[str, Path], processor: str
) -> None:
    wheel = wheels[processor]
    found = audited(wheel)
    assert found["glibc"] <= glibc_of(wheel.name)
    assert found["external_libs"] == {} and not found["unsupported_isa"]
    with zipfile.ZipFile(wheel) as archive:
        compiled = [name for name in archive.namelist() if not name.endswith((".py", ".service"))]
    code = [name for name in compiled if ".dist-info/" not in name]
    assert code == [CODE]


def test_a_wheel_that_needs_a_newer_libc_is_noticed(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    wheel, module = tmp_path / wheels["x86_64"].name, tmp_path / "newer.so"
    # Of glibc 2.36, in the form of a module of Python.
    text = "unsigned arc4random(void); unsigned PyInit__core(void) { return arc4random(); }"
    command = ["x86_64-linux-gnu-gcc", "-shared", "-fPIC", "-xc", "-", "-o", str(module)]
    subprocess.run(command, input=text, text=True, check=True)
    with zipfile.ZipFile(wheels["x86_64"]) as sound, zipfile.ZipFile(wheel, "w") as changed:
        for name in sound.namelist():
            changed.writestr(name, module.read_bytes() if name == CODE else sound.read(name))
    assert audited(wheel)["glibc"] == 36 > glibc_of(wheel.name)


def test_a_wheel_for_another_processor_is_refused(
    arm: Arm, wheels: dict[str, Path], tmp_path: Path
) -> None:
    words = ("install", "--prefix", str(tmp_path / "device"), str(wheels["x86_64"]))
    done = pip_on(arm, tmp_path, *words)
    assert done.returncode == 1 and "is not a supported wheel on this platform" in done.stderr


@pytest.mark.parametrize("name", ["tiny_bundle", "linear_bundle"])
def test_the_self_test_passes_on_the_core(
    arm: Arm, installed: Path, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bundle = request.getfixturevalue(name)
    told = gruard(arm, installed, tmp_path, "selftest", bundle, "--json")
    assert json.loads(told)["kernel"] == "core-c"


def test_replay_and_run_give_the_records_of_the_reference(
    arm: Arm, installed: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    data = tmp_path / "rows.csv"
    write_faulty_rows(data)
    words = (tiny_bundle, data, "--out")
    gruard(arm, installed, tmp_path, "replay", *words, "there.csv")
    run_there = ("run", tiny_bundle, "--source", data, "--deadline", PATIENT)
    gruard(arm, installed, tmp_path, *run_there, "--sink", "there.jsonl")
    run_here = ("run", tiny_bundle, "--source", data, "--sink", "here.jsonl")
    for command in (("replay", *words, "here.csv"), run_here):
        here = [sys.executable, "-m", "edge_runtime", *map(str, command)]
        subprocess.run(
            [*here, "--kernel", "tflite-builtin"], cwd=tmp_path, check=True, capture_output=True,
            env={"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    for end in ("csv", "jsonl"):
        here, there = ((tmp_path / f"{where}.{end}").read_bytes() for where in ("here", "there"))
        assert here == there
        assert len(there.splitlines()) >= 300


def test_it_learns_and_the_result_is_sound_here(arm: Arm, installed: Path, tmp_path: Path) -> None:
    recording, bundle = tmp_path / "healthy.csv", tmp_path / "made-1.gruard"
    table = made_rows(300, seed=5)
    np.savetxt(recording, table, delimiter=",", header=",".join(NAMES), comments="", fmt="%.6g")
    gruard(arm, installed, tmp_path, "learn", recording, "--period", "1", "--out", bundle)
    NativeDetector(read_bundle(bundle)).self_test()
