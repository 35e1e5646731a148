"""A booted systemd with gruard, a bundle and a reader script in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import device_files
import paho
import pytest
import systemd_tree
from booted import Booted


@pytest.fixture(scope="session")
def files(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is added to the Debian tree: this checkout's runtime, MQTT, its bundle, a reader."""
    folder = tmp_path_factory.mktemp("files")
    device_files.install(folder / "opt")
    shutil.copytree(paho.__path__[0], folder / "opt" / "paho")
    shutil.copytree(tiny_bundle, folder / "var" / "lib" / "gruard" / tiny_bundle.name)
    packages = folder / "usr" / "lib" / "python3" / "dist-packages"
    packages.mkdir(parents=True)
    (packages / "gruard.pth").write_text("/opt\n/wheels\n")
    (folder / "var" / "lib" / "gruard").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def systemd(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A running system; one for all tests of a file."""
    systemd_tree.ready()
    with Booted(files, tmp_path_factory.mktemp("scratch")) as booted:
        yield booted
