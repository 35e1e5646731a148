"""A published repository: only what is new is written, and clients never see half of it."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("tuf", reason="updates are not tested: pip install '.[fleet]'")

from made_fleet import NOW, Plant, days, other_keys, put_bundle

from edge_runtime.errors import BusyError, GruardError
from edge_runtime.updates.store import Store
from edge_runtime.updates.update_check import CURRENT, INSTALLED
from fleet.__main__ import cli
from fleet.publish import UpdateRepository
from tests.apparatus.harm import flip_bit
from tests.apparatus.lock_holder import LockHolder

ROOT = Path(__file__).resolve().parents[2]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def command(plant: Plant, *words: object) -> Result:
    words = ("publish", plant.fleet, "--keys", plant.keys.path, "--to", plant.www, *words)
    return CliRunner().invoke(cli, [*map(str, words)])


def test_the_same_again_writes_the_timestamp_only(plant: Plant) -> None:
    before = contents(plant.www)
    done = command(plant, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) | {"expires": None} == {
        "assets": 1, "new": [], "problems": [], "written": 0,
        "version": plant.version("targets"), "expires": None,
    }  # fmt: skip
    after = contents(plant.www)
    assert {name for name in after if after[name] != before.get(name)} == {
        "metadata/timestamp.json"
    }


def test_only_what_is_new_is_written(plant: Plant) -> None:
    put_bundle(plant.fleet, "fan", 1)
    before = contents(plant.www)
    done = command(plant)
    assert done.exit_code == 0 and "2 assets published, 1 of them new" in done.output
    new = contents(plant.www).keys() - before.keys()
    assert sorted(name.split(".", 1)[1] for name in new) == [
        "fan.tar",
        "snapshot.json",
        "targets.json",
    ]
    assert plant.check("fan").outcome == INSTALLED


def test_a_file_with_a_number_or_hash_never_changes(plant: Plant) -> None:
    before = contents(plant.www)
    plant.publish(3)
    plant.repository(NOW + days(60)).refresh()
    after = contents(plant.www)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"metadata/timestamp.json"}


def test_an_asset_that_is_gone_is_no_longer_published(plant: Plant) -> None:
    plant.publish(1, asset="fan")
    shutil.rmtree(plant.fleet / "assets" / "fan")
    command(plant)
    with pytest.raises(GruardError, match="nothing is published for the asset fan"):
        plant.check("fan")


def test_a_bundle_that_cannot_be_read_leaves_the_one_before(plant: Plant) -> None:
    put_bundle(plant.fleet, "fan", 1)
    put_bundle(plant.fleet, "pump", 3, lambda bundle: flip_bit(bundle / "golden.npz", 50))
    (plant.fleet / "assets" / "empty").mkdir()
    done = command(plant)
    assert done.exit_code == 1 and "2 assets published, 1 of them new" in done.output
    assert "pump: " in done.output and "does not match the manifest" in done.output
    assert "empty: has no bundle" in done.output
    plant.check()
    assert plant.on_trial() == "pump-2"


def test_a_fleet_without_bundles_publishes_nothing(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "none" / "assets").mkdir(parents=True)
    before = contents(plant.www)
    for folder in (tmp_path / "none", tmp_path / "missing"):
        with pytest.raises(GruardError, match="train"):
            plant.repository().publish(folder)
    assert contents(plant.www) == before


def test_signatures_are_renewed_when_half_of_their_days_are_over(plant: Plant) -> None:
    first = plant.version("snapshot")
    plant.repository(NOW + days(10)).refresh()
    assert plant.version("snapshot") == first
    plant.repository(NOW + days(60)).refresh()
    assert plant.version("snapshot") > first
    targets = plant.version("targets")
    done = plant.repository(NOW + days(350)).refresh()
    assert plant.version("targets") == targets
    assert any("targets expires on" in line for line in done.lines(NOW + days(350)))
    plant.repository(NOW + days(200)).publish(plant.fleet)
    assert plant.version("targets") > targets


def test_a_folder_of_other_keys_is_not_signed(plant: Plant, tmp_path: Path) -> None:
    other = UpdateRepository(plant.www, other_keys(tmp_path / "other"), NOW)
    before = contents(plant.www)
    with pytest.raises(GruardError, match="is not signed by these keys"):
        other.publish(plant.fleet)
    assert contents(plant.www) == before


def test_entries_that_somebody_added_are_not_signed(plant: Plant) -> None:
    """Who may write to the folder of the web server gets no signature from the next publish."""
    file = plant.metadata("targets")
    data = json.loads(file.read_text())
    data["signed"]["targets"]["evil.tar"] = data["signed"]["targets"]["pump.tar"]
    file.write_text(json.dumps(data))
    with pytest.raises(GruardError, match="is not signed by these keys"):
        plant.repository().publish(plant.fleet, only=["pump"])


def test_two_publishers_exclude_each_other(plant: Plant) -> None:
    with LockHolder(plant.www / "publish.lock"), pytest.raises(BusyError):
        plant.repository().refresh()


class _StopError(Exception):
    """The publisher was killed."""


def test_whenever_a_publisher_is_killed_devices_see_a_whole_state(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends before each rename; a new device gets version 2 or 3, never an error."""
    put_bundle(plant.fleet, "pump", 3)
    before, real = Path(shutil.copytree(plant.www, plant.folder / "before")), Path.replace
    left, seen = 0, []

    def counted(path: Path, target: Path) -> Path:
        nonlocal left
        if Path(target).is_relative_to(plant.www):
            left -= 1
            if left < 0:
                raise _StopError
        return real(path, target)

    monkeypatch.setattr(Path, "replace", counted)
    ended = False
    while not ended:
        shutil.rmtree(plant.www)
        shutil.copytree(before, plant.www)
        left = len(seen)
        try:
            plant.repository().publish(plant.fleet)
            ended = True
        except _StopError:
            pass
        plant.store = Store(plant.folder / f"store-{len(seen)}")
        seen.append(plant.check().bundle)
    assert seen == ["pump-2"] * 4 + ["pump-3"]  # archive, targets, snapshot, timestamp


def test_a_killed_publisher_is_finished_by_the_same_command(plant: Plant) -> None:
    """It is killed after the archive, before it writes metadata."""
    put_bundle(plant.fleet, "pump", 3)
    program = (
        "import os; from fleet import publish; from fleet.__main__ import main; "
        "publish.replace_file = lambda *_: os.kill(os.getpid(), 9); main()"
    )
    words = ["publish", plant.fleet, "--keys", plant.keys.path, "--to", plant.www]
    done = subprocess.run([sys.executable, "-c", program, *map(str, words)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert plant.check().bundle == "pump-2"
    assert command(plant).exit_code == 0
    assert plant.check().bundle == "pump-3"


def test_names_beyond_ascii_are_served(plant: Plant) -> None:
    plant.publish(1, asset="Pumpe-Süd")
    assert plant.check("Pumpe-Süd").outcome == INSTALLED


def test_restoring_a_version_takes_back_a_bundle(plant: Plant) -> None:
    before = plant.repository().version()
    plant.publish(3)
    plant.publish(1, asset="fan")
    plant.repository().restore(before, ["pump", "fan"])
    assert plant.check().bundle == "pump-2"
    with pytest.raises(GruardError, match="nothing is published for the asset"):
        plant.check("fan")
    plant.repository().publish(plant.fleet)
    assert plant.check().outcome == INSTALLED and plant.check("fan").outcome != CURRENT


def test_root_metadata_is_public_and_keys_are_not(plant: Plant) -> None:
    served = {file.name for file in plant.www.rglob("*") if file.is_file()}
    assert "1.root.json" in served and not [name for name in served if name.endswith(".key")]
    assert {file.stat().st_mode & 0o444 for file in plant.www.rglob("*.json")} == {0o444}
