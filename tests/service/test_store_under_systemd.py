"""A service with a store, under a real systemd: root installs, a user made for it decides."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from booted import Booted, until
from tiny_service import UNIT, kill_main, records, restarts

from tests.apparatus.harm import edit_manifest, replace_member

pytestmark = pytest.mark.service

STORE = "/var/lib/gruard/tiny"
READER = ("--reader", "/usr/bin/python3 -u /opt/reader.py 20")


@pytest.fixture(scope="module")
def files(
    files: Path, tiny_bundle: Path, linear_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Versions 2 to 4 beside: another model, one that fails its self-test, and a good one."""
    folder = Path(shutil.copytree(files, tmp_path_factory.mktemp("with") / "files"))
    for version, origin in ((2, linear_bundle), (3, tiny_bundle), (4, tiny_bundle)):
        bundle = Path(shutil.copytree(origin, folder / "opt" / f"tiny-{version}.gruard"))
        identity = {"name": tiny_model.NAME, "version": version}
        edit_manifest(bundle, lambda data, identity=identity: data.update(identity))
        if version == 3:
            replace_member(bundle, "golden.npz", (linear_bundle / "golden.npz").read_bytes())
    return folder


def install_bundle(system: Booted, bundle: str, *options: str) -> str:
    """As root, who lets nobody read what he makes."""
    words = ("python3", "-m", "edge_runtime", "install", bundle, "--store", STORE, *options)
    return system("bash", "-c", f"umask 077; exec {' '.join(words)}")


def stored(system: Booted) -> "dict[str, Any]":
    return json.loads(system.gruard("list", "--store", STORE, "--json"))


def version(system: Booted, role: str) -> "int | None":
    """The version of the bundle that is current, previous or on trial."""
    found = [b["version"] for b in stored(system)["bundles"] if b["role"] == role]
    return found[0] if found else None


def told(system: Booted, sentence: str) -> None:
    until(lambda: sentence in system.journal(UNIT), sentence)


def no_record_is_missing(system: Booted) -> bool:
    """One record for each sample of each life."""
    indices = [record["index"] for record in records(system)]
    return indices[0] == 0 and all(b in (a + 1, 0) for a, b in pairwise(indices))


@pytest.fixture(scope="module")
def installed(systemd: Booted) -> Booted:
    """The service with a store that has version 1, and a trial of six seconds."""
    assert "tiny-1" in install_bundle(systemd, "/var/lib/gruard/tiny-1.gruard")
    words = ("--store", STORE, "--source", "-", "--healthy-minutes", "0.1", "--deadline", "10")
    systemd.gruard("service", "install", "--watchdog-sec", "30", *READER, "--", *words)
    return systemd


def test_the_store_becomes_the_services_own(installed: Booted) -> None:
    main = installed.property(UNIT, "MainPID")
    owner = installed("stat", "--dereference", "--format=%u", STORE).strip()
    assert int(owner) >= 61184  # a dynamic user
    assert owner in installed("cat", f"/proc/{main}/status").split("Uid:")[1].splitlines()[0]
    assert "private" in installed("readlink", STORE)
    assert version(installed, "current") == 1


def test_an_update_that_is_healthy_is_kept(installed: Booted) -> None:
    assert "on trial" in install_bundle(installed, "/opt/tiny-2.gruard")
    told(installed, "tiny-2 answers from here on")
    told(installed, "tiny-2 has proven itself and is current now")
    assert version(installed, "current") == 2 and version(installed, "previous") == 1
    assert len({record["model"] for record in records(installed)}) == 2
    assert restarts(installed) == 0 and no_record_is_missing(installed)


def test_an_update_that_fails_its_self_test_is_rolled_back(installed: Booted) -> None:
    install_bundle(installed, "/opt/tiny-3.gruard")
    told(installed, "tiny-3: could not take over")
    until(lambda: stored(installed)["rejected"] is not None, "the end of the trial")
    assert version(installed, "current") == 2 and version(installed, "trial") is None
    assert restarts(installed) == 0 and no_record_is_missing(installed)


def test_an_update_that_takes_all_of_gruard_along_is_rolled_back(installed: Booted) -> None:
    install_bundle(installed, "/opt/tiny-4.gruard", "--attempts", "2")
    told(installed, "tiny-4 answers from here on")
    kill_main(installed)
    until(lambda: stored(installed)["trial"]["attempts"] == 0, "the second load")
    kill_main(installed)
    told(installed, "tiny-4: used up its attempts")
    found = stored(installed)
    assert found["trial"] is None and "used up its attempts" in found["rejected"]["reason"]
    assert version(installed, "current") == 2 and no_record_is_missing(installed)


def test_root_goes_back(installed: Booted) -> None:
    installed.gruard("rollback", "--store", STORE)
    told(installed, "tiny-1 answers from here on")
    assert version(installed, "current") == 1 and no_record_is_missing(installed)
