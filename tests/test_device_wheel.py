"""The device wheels: alone in a fresh environment with their declared dependencies."""

import json
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from edge_runtime import __version__
from edge_runtime.learning.recording import Recording, write_recording
from tests.device_wheels import native_wheel, pure_wheel

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:  # type: ignore[no-untyped-def]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pure_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_runtime_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        rooms = {name.split("/")[0] for name in archive.namelist()}
        assert not [name for name in archive.namelist() if name.endswith((".c", ".so"))]
        template = archive.read("edge_runtime/service/gruard@.service")
        metadata = archive.read(f"gruard-{__version__}.dist-info/METADATA").decode()
    assert rooms == {"edge_runtime", f"gruard-{__version__}.dist-info"}
    assert template == (ROOT / "edge_runtime/service/gruard@.service").read_bytes()
    needed = [
        line.split(":", 1)[1].split(";")[0].strip()
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    names = {requirement.split(">")[0].split("<")[0] for requirement in needed}
    assert names == {"click", "numpy"}


@pytest.mark.long
@pytest.mark.slow
def test_the_wheel_with_the_engine_runs_where_nothing_else_is_installed(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    home, wheel = tmp_path / "device", native_wheel(platform.machine(), tmp_path)
    run(sys.executable, "-m", "venv", home)
    python, gruard = home / "bin" / "python", home / "bin" / "gruard"
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json").stdout)
    assert {item["name"] for item in listed} <= {"gruard", "numpy", "click", "pip", "setuptools"}

    data = tmp_path / "rows.csv"
    values = tiny_model.machine_rows(150, seed=9)
    times = tiny_model.PERIOD * np.arange(150)
    write_recording(data, Recording("tiny", tiny_model.CHANNELS, times, values, None, None))
    proven = run(gruard, "selftest", tiny_bundle, "--json", cwd=tmp_path).stdout
    assert json.loads(proven)["kernel"] == "core-c"
    run(gruard, "replay", tiny_bundle, data, "--out", "records.csv", cwd=tmp_path)
    assert len((tmp_path / "records.csv").read_text().splitlines()) == 151
    streamed = run(gruard, "run", tiny_bundle, "--source", data, cwd=tmp_path)
    records = [json.loads(line) for line in streamed.stdout.splitlines()]
    assert [record["index"] for record in records] == list(range(150))
    assert records[-1]["tier"] == 1
