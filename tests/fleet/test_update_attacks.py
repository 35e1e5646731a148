"""Attacks on updates: a real server, or what it serves, is hostile; the store stays as it was."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("tuf", reason="updates are not tested: pip install '.[fleet]'")

from made_fleet import NOW, PATIENT, SHORT, Plant, days, other_keys, put_bundle
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from edge_runtime.errors import DamagedError, GruardError
from edge_runtime.updates.fetcher import Fetcher
from edge_runtime.updates.repository import UnreachableError, UpdateSource
from edge_runtime.updates.update_check import INSTALLED, OLDER
from fleet.keys import make_keys, rotate_keys
from fleet.publish import UpdateRepository
from tests.apparatus.harm import flip_bit
from tests.apparatus.update_server import (
    Answer,
    Request,
    body,
    endless,
    stalls,
    status,
    trickles,
)

HEADER = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"


def refused(
    plant: Plant, says: str, kind: type[GruardError] = GruardError, window: float = PATIENT
) -> None:
    """The check fails with these words, and the store and its folder are as before."""
    before = plant.store.pointers()
    with pytest.raises(GruardError, match=says) as caught:
        plant.check(window=window)
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    assert plant.store.pointers() == before
    assert not (plant.store.root / "updates" / "new").exists()


def taken_afterwards(plant: Plant) -> None:
    """Without the attack the update succeeds: the refusal was no dead end."""
    plant.server.instead.clear()
    assert plant.check().outcome == INSTALLED and plant.on_trial() == "pump-2"


def test_without_an_attack_the_update_is_taken(plant: Plant) -> None:
    taken_afterwards(plant)
    plant.commit()
    assert plant.current() == "pump-2"


def test_a_roll_back_of_the_repository_is_refused(plant: Plant) -> None:
    taken_afterwards(plant)
    shutil.rmtree(plant.www)
    shutil.copytree(plant.folder / "www-1", plant.www)
    refused(plant, "offers older metadata than this device has accepted")


def test_an_older_bundle_is_left_alone_though_it_is_signed(plant: Plant) -> None:
    taken_afterwards(plant)
    plant.commit()
    plant.repository().restore(plant.version("targets") - 1, ["pump"])
    downloads = len(plant.server.ranges_of(".tar"))
    assert plant.check().outcome == OLDER and plant.current() == "pump-2"
    assert len(plant.server.ranges_of(".tar")) == downloads


def test_a_freeze_is_refused(plant: Plant) -> None:
    """The server goes on to serve what was good a month ago."""
    plant.repository(NOW - days(30)).refresh()
    refused(plant, "the metadata has expired")
    plant.repository().refresh()
    taken_afterwards(plant)


def test_a_repository_that_was_lost_can_be_made_anew(plant: Plant) -> None:
    taken_afterwards(plant)
    shutil.rmtree(plant.www)
    plant.publish(3, NOW + days(1))
    assert plant.check().outcome == INSTALLED and plant.on_trial() == "pump-3"


def test_an_expired_root_is_refused_and_a_renewed_one_is_taken(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    shutil.rmtree(plant.keys.path)
    plant.keys = make_keys(tmp_path / "keys", NOW - days(4 * 365), "")
    plant.root = tmp_path / "keys" / "1.root.json"
    put_bundle(plant.fleet, "pump", 1)
    plant.repository().publish(plant.fleet)
    refused(plant, "the metadata has expired")
    rotate_keys(plant.keys, "root", NOW, "")
    plant.repository().publish(plant.fleet)
    assert plant.check().outcome == INSTALLED
    plant.server.stop()


@pytest.mark.parametrize("role", ["targets", "snapshot"])
def test_files_of_two_states_are_not_mixed(plant: Plant, role: str) -> None:
    """Each file is signed, but one is of an older state than those that name it."""
    good = plant.metadata(role).read_bytes()
    older = plant.metadata(role).with_name(f"{plant.version(role) - 1}.{role}.json")
    plant.metadata(role).write_bytes(older.read_bytes())
    refused(plant, "a file is not the one that was signed")
    plant.metadata(role).write_bytes(good)
    taken_afterwards(plant)


def test_an_archive_with_other_bytes_is_refused(plant: Plant) -> None:
    archive = max(plant.www.glob("targets/*.tar"), key=lambda file: file.stat().st_mtime_ns)
    good = archive.read_bytes()
    flip_bit(archive, len(good) // 2)
    refused(plant, "a file is not the one that was signed")
    assert not list(plant.store.root.glob("updates/*.tar"))
    archive.write_bytes(good)
    taken_afterwards(plant)


def test_an_endless_archive_ends_at_the_signed_length(plant: Plant) -> None:
    plant.server.instead[".tar"] = endless
    refused(plant, "sends more bytes than it may")
    kept = [file.stat().st_size for file in plant.store.root.glob("updates/*.tar")]
    assert sum(kept) == 0
    taken_afterwards(plant)


@pytest.mark.parametrize(
    "name", ["timestamp.json", ".snapshot.json", ".targets.json", "2.root.json"]
)
def test_endless_metadata_ends_at_a_limit(plant: Plant, name: str) -> None:
    plant.server.instead[name] = endless
    refused(plant, "sends more bytes than it may")
    taken_afterwards(plant)


@pytest.mark.parametrize("name", ["timestamp.json", ".targets.json", ".tar"])
@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(stalls(b""), id="no byte"),
        pytest.param(stalls(b"HTTP/1.1 200 OK\r\n"), id="half a header"),
        pytest.param(stalls(HEADER, b"\r\n{"), id="one byte of the body"),
        pytest.param(trickles(b"HTTP/1.1 200 OK\r\nX: "), id="an endless header, byte by byte"),
        pytest.param(trickles(HEADER + b"\r\n"), id="a body, byte by byte"),
    ],
)
def test_slow_retrieval_is_given_up(plant: Plant, name: str, slow: Answer) -> None:
    plant.server.instead[name] = slow
    refused(plant, "answers too slowly or not at all", UnreachableError, SHORT)
    plant.server.released.set()
    taken_afterwards(plant)


@pytest.mark.parametrize(("number", "kind"), [(404, GruardError), (503, UnreachableError)])
def test_a_status_of_http_is_named(plant: Plant, number: int, kind: type[GruardError]) -> None:
    plant.server.instead["timestamp.json"] = status(number)
    refused(plant, f"HTTP status {number}", kind)
    taken_afterwards(plant)


def test_a_server_that_is_away_is_unreachable(plant: Plant) -> None:
    plant.server.stop()
    refused(plant, "cannot be read", UnreachableError)


@pytest.mark.parametrize(
    "text", [b"", b"<html>not here</html>", b"[" * 16000, b"{}", b"\xff", b"null"]
)
@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json"])
def test_what_is_no_metadata_is_refused(plant: Plant, name: str, text: bytes) -> None:
    plant.server.instead[name] = body(text)
    refused(plant, "is no valid repository")
    taken_afterwards(plant)


def test_a_redirection_to_a_file_is_not_followed(plant: Plant) -> None:
    def redirects(request: Request) -> None:
        request.begin(302, {"Location": "file:///etc/passwd", "Content-Length": "0"})

    plant.server.instead["timestamp.json"] = redirects
    refused(plant, "HTTP status 302", UnreachableError)


def test_another_owner_is_refused(plant: Plant, tmp_path: Path) -> None:
    shutil.rmtree(plant.www)
    UpdateRepository(plant.www, other_keys(tmp_path / "other"), NOW).publish(plant.fleet)
    refused(plant, "not signed by the keys that this device trusts")


def test_another_root_does_not_replace_the_trusted_one(plant: Plant, tmp_path: Path) -> None:
    other_keys(tmp_path / "other")
    plant.root = tmp_path / "other" / "1.root.json"
    with pytest.raises(GruardError, match="another root metadata than --root names"):
        plant.check()


def test_a_new_root_that_the_old_one_has_not_signed_is_refused(
    plant: Plant, tmp_path: Path
) -> None:
    other = other_keys(tmp_path / "other")
    rotate_keys(other, "root", NOW, "")
    shutil.copy(tmp_path / "other" / "2.root.json", plant.www / "metadata" / "2.root.json")
    refused(plant, "not signed by the keys that this device trusts")


def test_online_keys_alone_install_nothing(plant: Plant, tmp_path: Path) -> None:
    """Who has the snapshot and timestamp keys, and another targets key, is refused."""
    evil = other_keys(tmp_path / "other")
    targets = Metadata[Targets].from_file(str(plant.metadata("targets")))
    targets.signed.version += 1
    targets.signatures.clear()
    for signer in evil.signers("targets"):
        targets.sign(signer, append=True)
    content = targets.to_bytes(JSONSerializer())
    _sign_upwards(plant, content, targets.signed.version)
    refused(plant, "not signed by the keys that this device trusts")


def _sign_upwards(plant: Plant, targets: bytes, version: int) -> None:
    """Serve `targets`, with a snapshot and a timestamp by the owner's online keys."""
    folder = plant.www / "metadata"
    (folder / f"{version}.targets.json").write_bytes(targets)
    meta = {"targets.json": MetaFile.from_data(version, targets, ["sha256"])}
    snapshot = Metadata(Snapshot(version, expires=NOW + days(1), meta=meta))
    for signer in plant.keys.signers("snapshot"):
        snapshot.sign(signer)
    content = snapshot.to_bytes(JSONSerializer())
    (folder / f"{version}.snapshot.json").write_bytes(content)
    newest = MetaFile.from_data(version, content, ["sha256"])
    timestamp = Metadata(Timestamp(version, expires=NOW + days(1), snapshot_meta=newest))
    for signer in plant.keys.signers("timestamp"):
        timestamp.sign(signer)
    plant.metadata("timestamp").write_bytes(timestamp.to_bytes(JSONSerializer()))


def _sign_target(plant: Plant, archive: bytes, **custom: object) -> None:
    """Publish `archive` for the pump with the owner's own keys: they were stolen, too."""
    targets = Metadata[Targets].from_file(str(plant.metadata("targets")))
    targets.signed.version += 1
    target = targets.signed.targets["pump.tar"]
    sha256 = hashlib.sha256(archive).hexdigest()
    target.hashes, target.length = {"sha256": sha256}, len(archive)
    target.custom.update(custom)
    for signer in plant.keys.signers("targets"):
        targets.sign(signer)
    (plant.www / "targets" / f"{sha256}.pump.tar").write_bytes(archive)
    content = targets.to_bytes(JSONSerializer())
    _sign_upwards(plant, content, targets.signed.version)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("place", ["updates", "updates/metadata"])
def test_a_link_in_a_store_leads_nowhere(plant: Plant, tmp_path: Path, place: str) -> None:
    """The service, which owns the store, was broken into; root must not write or remove there."""
    target = tmp_path / "etc"
    target.mkdir()
    (target / "backup.tar").write_bytes(b"precious")
    (target / "tmp1").write_bytes(b"precious")
    shutil.rmtree(plant.store.root / place)
    (plant.store.root / place).symlink_to(target)
    os.chown(plant.store.root if place == "updates" else plant.store.root / "updates", 1000, 1000)
    with pytest.raises(GruardError, match="is no folder of this user"):
        plant.check()
    assert {file.name for file in target.iterdir()} == {"backup.tar", "tmp1"}


def test_a_signed_archive_is_not_trusted_either(plant: Plant) -> None:
    _sign_target(plant, b"no archive" * 100)
    refused(plant, "is no archive of a bundle", DamagedError)


@pytest.mark.parametrize(
    ("custom", "says"),
    [
        ({"schema": 99, "gruard": "9.0"}, "update gruard on this device to 9.0"),
        ({"asset": "fan"}, "is no bundle for pump"),
        ({"digest": "../../x"}, "its digest is no SHA-256"),
        ({"version": "2"}, "is not of type int"),
        ({"name": "a\x1b[2J"}, "has control characters"),
        ({"name": "../../../x"}, "is another bundle than was published"),
    ],
)
def test_what_the_metadata_says_of_a_bundle_is_checked(
    plant: Plant, custom: dict[str, object], says: str
) -> None:
    archive = max(plant.www.glob("targets/*.tar"), key=lambda file: file.stat().st_mtime_ns)
    _sign_target(plant, archive.read_bytes(), **custom)
    refused(plant, says)


@pytest.mark.parametrize("digest", ["../../../x", "", "0" * 63, "/etc/x"])
def test_a_hash_that_is_a_path_is_refused(plant: Plant, digest: str) -> None:
    targets = Metadata[Targets].from_file(str(plant.metadata("targets")))
    targets.signed.version += 1
    targets.signed.targets["pump.tar"].hashes = {"sha256": digest}
    for signer in plant.keys.signers("targets"):
        targets.sign(signer)
    _sign_upwards(plant, targets.to_bytes(JSONSerializer()), targets.signed.version)
    refused(plant, "is no bundle for pump")


def test_a_later_field_of_the_metadata_is_ignored(plant: Plant) -> None:
    archive = max(plant.www.glob("targets/*.tar"), key=lambda file: file.stat().st_mtime_ns)
    _sign_target(plant, archive.read_bytes(), later="field")
    taken_afterwards(plant)


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_no_change_of_any_byte_installs_anything(plant: Plant, data: st.DataObject) -> None:
    """Metadata with one byte changed is refused in one line, or is what it was."""
    role = data.draw(st.sampled_from(["timestamp", "snapshot", "targets"]))
    name = plant.metadata(role).name
    good = plant.metadata(role).read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    value = data.draw(st.integers(0, 255))
    harmed = good[:place] + bytes([value]) + good[place + 1 :]
    fresh = plant.folder / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    plant.server.instead[name] = body(harmed)
    source = UpdateSource(plant.server.address, fresh, plant.root, Fetcher())
    try:
        with source.held():
            published, _ = source.look("pump")
    except GruardError as error:
        assert "\n" not in str(error) and "\x1b" not in str(error)
    else:
        assert published.label == "pump-2"
    finally:
        plant.server.instead.clear()
