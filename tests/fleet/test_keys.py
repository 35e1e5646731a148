"""Keys that sign updates: made once, kept apart, replaced so that no device is left behind."""

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("tuf", reason="updates are not tested: pip install '.[fleet]'")

from made_fleet import NOW, Plant, no_passphrase, put_bundle
from tuf.api.metadata import Metadata, Timestamp

from edge_runtime.errors import GruardError
from edge_runtime.updates.update_check import CURRENT, INSTALLED
from fleet.__main__ import cli
from fleet.keys import ROLES, make_keys, read_keys, rotate_keys
from fleet.release_commands import _ask_passphrase

SECRET = "correct horse"


def fleet(*words: object, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(cli, [*map(str, words)])


def test_private_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    done = fleet("keys", "--out", tmp_path / "keys")
    assert done.exit_code == 0 and "1.root.json" in done.output
    files = list((tmp_path / "keys").rglob("*.key"))
    assert sorted(file.name.split("-")[0] for file in files) == sorted(ROLES)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert {file.parent.stat().st_mode & 0o777 for file in files} == {0o700}


def test_keys_are_not_overwritten(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", NOW, "")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    done = fleet("keys", "--out", tmp_path / "keys")
    assert done.exit_code != 0 and "is not empty" in str(done.exception)
    assert {file: file.read_bytes() for file in before} == before


def test_a_passphrase_encrypts_them(tmp_path: Path) -> None:
    out, www = tmp_path / "keys", tmp_path / "www"
    assert fleet("keys", "--out", out, "--passphrase", GRUARD_KEYS_PASSPHRASE=SECRET).exit_code == 0
    assert all(b"ENCRYPTED" in file.read_bytes() for file in out.rglob("*.key"))
    put_bundle(tmp_path / "fleet", "pump", 1)
    words = ("publish", tmp_path / "fleet", "--keys", out, "--to", www)
    _ask_passphrase.cache_clear()
    wrong = fleet(*words, GRUARD_KEYS_PASSPHRASE="wrong")
    assert wrong.exit_code != 0 and "passphrase is wrong" in str(wrong.exception)
    assert not (www / "metadata" / "timestamp.json").exists()
    _ask_passphrase.cache_clear()
    assert fleet(*words, GRUARD_KEYS_PASSPHRASE=SECRET).exit_code == 0
    _ask_passphrase.cache_clear()


@pytest.mark.parametrize("role", ROLES)
def test_a_device_follows_a_new_key(plant: Plant, role: str) -> None:
    old = rotate_keys(read_keys(plant.keys.path, no_passphrase), role, NOW, "")
    plant.repository().publish(plant.fleet)
    assert plant.check().outcome == INSTALLED
    for file in old:
        file.unlink()
    plant.commit()
    plant.publish(3)
    assert plant.check().outcome == INSTALLED and plant.on_trial() == "pump-3"


@pytest.mark.parametrize("role", ROLES)
def test_while_keys_change_every_state_serves_old_and_new_devices(plant: Plant, role: str) -> None:
    """Also if the command is killed before the new root metadata is published."""
    rotate_keys(read_keys(plant.keys.path, no_passphrase), role, NOW, "")
    plant.repository().publish(plant.fleet)
    root = plant.www / "metadata" / "2.root.json"
    shutil.move(root, plant.folder / "2.root.json")
    assert plant.check().outcome == INSTALLED
    shutil.move(plant.folder / "2.root.json", root)
    plant.commit()
    assert plant.check().outcome == CURRENT


def test_a_device_that_slept_through_many_new_keys_catches_up(plant: Plant) -> None:
    for role in ROLES * 3:
        rotate_keys(read_keys(plant.keys.path, no_passphrase), role, NOW, "")
    plant.repository().publish(plant.fleet)
    assert plant.check().outcome == INSTALLED


def test_a_stolen_old_key_signs_nothing_any_more(plant: Plant) -> None:
    stolen = plant.keys.signers("timestamp")
    old = rotate_keys(read_keys(plant.keys.path, no_passphrase), "timestamp", NOW, "")
    plant.repository().publish(plant.fleet)
    plant.check()
    assert all(file.exists() for file in old)
    file = plant.metadata("timestamp")
    timestamp = Metadata[Timestamp].from_file(str(file))
    timestamp.signed.version += 1
    for signer in stolen:
        timestamp.sign(signer)
    file.write_bytes(timestamp.to_bytes())
    with pytest.raises(GruardError, match="not signed by the keys that this device trusts"):
        plant.check()


def test_a_change_of_keys_needs_as_many_root_keys_as_its_threshold(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys", NOW, "", root_keys=3, threshold=2)
    files = sorted((tmp_path / "keys" / "offline").glob("root-*.key"))
    assert len(files) == 3 and keys.root.roles["root"].threshold == 2
    files[0].unlink()
    rotate_keys(keys, "timestamp", NOW, "")
    files[1].unlink()
    with pytest.raises(GruardError, match="the private key is missing"):
        rotate_keys(read_keys(tmp_path / "keys", no_passphrase), "timestamp", NOW, "")


def test_a_threshold_above_the_number_of_keys_is_refused(tmp_path: Path) -> None:
    done = fleet("keys", "--out", tmp_path / "keys", "--threshold", 2)
    assert done.exit_code != 0 and "2 of 1 root keys cannot sign" in str(done.exception)
    assert not (tmp_path / "keys").exists()


def test_the_online_keys_are_enough_to_refresh(plant: Plant) -> None:
    shutil.rmtree(plant.keys.path / "offline")
    before = plant.metadata("timestamp").read_bytes()
    done = fleet("refresh", "--keys", plant.keys.path, "--to", plant.www)
    assert done.exit_code == 0 and plant.metadata("timestamp").read_bytes() != before
    assert plant.check().outcome == INSTALLED
    done = fleet("publish", plant.fleet, "--keys", plant.keys.path, "--to", plant.www)
    assert done.exit_code == 0  # nothing is new, so nothing is signed by the offline key
    with pytest.raises(GruardError, match=r"targets-\w+\.key: the private key is missing"):
        plant.publish(3)
    plant.check()
    assert plant.on_trial() == "pump-2"


def test_after_a_new_targets_key_a_refresh_asks_to_publish(plant: Plant) -> None:
    rotate_keys(read_keys(plant.keys.path, no_passphrase), "targets", NOW, "")
    with pytest.raises(GruardError, match="publish again first"):
        plant.repository().refresh()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: (folder / "1.root.json").unlink(), "are not complete"),
        (lambda folder: (folder / "1.root.json").write_text("{}"), "no root metadata"),
        (lambda keys: shutil.copy(keys / "1.root.json", keys / "2.root.json"), "is version 1"),
        (lambda folder: next(folder.glob("online/timestamp*")).write_text("x"), "no key in PEM"),
        (lambda folder: os.truncate(next(folder.glob("online/timestamp*")), 0), "is blank"),
        (
            lambda folder: shutil.copy(
                next(folder.glob("online/snapshot*")), next(folder.glob("online/timestamp*"))
            ),
            "is another key than",
        ),
    ],
)  # fmt: skip
def test_damaged_keys_are_named(plant: Plant, harm: object, says: str) -> None:
    harm(plant.keys.path)  # type: ignore[operator]
    with pytest.raises(GruardError, match=says):
        plant.repository().refresh()
    assert plant.check().outcome == INSTALLED  # what is published is as it was


def test_root_metadata_that_others_signed_is_refused(plant: Plant, tmp_path: Path) -> None:
    make_keys(tmp_path / "other", NOW, "")
    rotate_keys(read_keys(tmp_path / "other", no_passphrase), "root", NOW, "")
    shutil.copy(tmp_path / "other" / "2.root.json", plant.keys.path / "2.root.json")
    with pytest.raises(GruardError, match=r"2\.root\.json: root was signed by 0/1 keys"):
        plant.repository()
