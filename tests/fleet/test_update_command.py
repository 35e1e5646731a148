"""`gruard update` as a user runs it: its options, its answers, its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tuf", reason="updates are not tested: pip install '.[fleet]'")

from made_fleet import Plant

from edge_runtime.plain import read_sealed
from edge_runtime.updates.update_check import DeviceReport

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_TUF = """
import sys
sys.modules["tuf"] = None
from {module} import main
main()
"""


def gruard(plant: Plant, *words: object) -> "subprocess.CompletedProcess[str]":
    command = [
        sys.executable, "-m", "edge_runtime", "update", "--from", plant.server.address,
        "--asset", "pump", "--store", plant.store.root, *words,
    ]  # fmt: skip
    return subprocess.run(
        [*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_its_answers(plant: Plant) -> None:
    first, second = gruard(plant, "--json"), gruard(plant)
    assert first.returncode == second.returncode == 0
    facts = json.loads(first.stdout)
    assert (facts["outcome"], facts["bundle"]) == ("installed", "pump-2")
    assert second.stdout == "pump: pump-2 is on trial\n"
    kept = read_sealed(plant.store.root / "updates" / "report.json", DeviceReport)
    assert kept and kept.trial == facts["digest"] and not kept.problem


def test_its_exit_codes(plant: Plant) -> None:
    plant.server.folder = plant.folder / "elsewhere"
    refused = gruard(plant)
    plant.server.stop()
    away = gruard(plant)
    assert (refused.returncode, away.returncode) == (2, 1)
    for done in (refused, away):
        assert done.stdout == "" and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    kept = read_sealed(plant.store.root / "updates" / "report.json", DeviceReport)
    assert kept and "cannot be read" in kept.problem


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--rate", "fast"), "such as 200k or 2M"),
        (("--rate", "0k"), "such as 200k or 2M"),
        (("--every", "1s"), "no length of an interval"),
        (("--asset", "a/b"), "up to 80 letters"),
        (("--from", "file:///etc"), "give http://… or https://…"),
        (("--from", "https://"), "give http://… or https://…"),
        (("--report", "nowhere"), "a broker is written mqtt://HOST/TOPIC"),
        (("--report", "mqtt://host"), "no topic is named"),
        (("--root", "/nowhere.json"), "/nowhere.json: no root metadata (No such file"),
        (("--store", "/proc/none"), "cannot be written"),
    ],
)
def test_a_wrong_option_is_named(plant: Plant, words: tuple[str, str], says: str) -> None:
    done = gruard(plant, *words)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert not plant.on_trial()


def test_the_first_check_needs_a_root(plant: Plant) -> None:
    (plant.store.root / "updates" / "root.json").unlink()
    done = gruard(plant)
    assert done.returncode == 2 and "give the owner's file once: --root" in done.stderr
    assert gruard(plant, "--root", plant.root).returncode == 0


def test_a_damaged_root_is_replaced_by_the_option(plant: Plant) -> None:
    (plant.store.root / "updates" / "root.json").write_bytes(b"")
    assert gruard(plant).returncode == 2
    assert gruard(plant, "--root", plant.root).returncode == 0
    assert gruard(plant).returncode == 0


def test_the_state_may_be_elsewhere(plant: Plant, tmp_path: Path) -> None:
    done = gruard(plant, "--state", tmp_path / "own", "--root", plant.root)
    assert done.returncode == 0 and plant.on_trial() == "pump-2"
    assert {file.name for file in (tmp_path / "own").iterdir()} >= {"metadata", "report.json"}


def test_a_device_may_require_a_signature_of_the_bundle_as_well(
    plant: Plant, tmp_path: Path
) -> None:
    from convert.signing import generate_keys

    _, public = generate_keys(tmp_path / "plant")
    for _ in range(2):
        done = gruard(plant, "--trusted-key", public)
        assert done.returncode == 2 and "is not signed" in done.stderr and not plant.on_trial()
    assert len(plant.server.ranges_of(".tar")) == 1
    assert gruard(plant).returncode == 0 and len(plant.server.ranges_of(".tar")) == 1


@pytest.mark.parametrize(
    ("module", "words", "says"),
    [
        ("edge_runtime.commands.main", ("update", "--from", "http://h", "--asset", "a"),
         "pip install 'gruard[updates]'"),
        ("fleet.__main__", ("keys", "--out", "none"), "pip install -c constraints.txt '.[fleet]'"),
        ("fleet.__main__", ("publish", "f", "--keys", "k", "--to", "d"), "'.[fleet]'"),
    ],
)  # fmt: skip
def test_a_missing_package_is_named(
    module: str, words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TUF.format(module=module), *words],
        cwd=ROOT, capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
