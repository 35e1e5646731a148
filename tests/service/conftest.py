"""A booted systemd with gruard, a bundle and a reader script in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import systemd_tree
import tiny_model
from booted import Booted

import edge_runtime


@pytest.fixture(scope="session")
def files(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is added to the Debian tree: this checkout's runtime, its bundle, a reader."""
    folder = tmp_path_factory.mktemp("files")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(
        Path(edge_runtime.__file__).parent, folder / "opt" / "edge_runtime", ignore=ignored
    )
    shutil.copytree(tiny_bundle, folder / "var" / "lib" / "gruard" / tiny_bundle.name)
    packages = folder / "usr" / "lib" / "python3" / "dist-packages"
    packages.mkdir(parents=True)
    (packages / "gruard.pth").write_text("/opt\n/wheels\n")
    shutil.copy(Path(__file__).with_name("reader.py"), folder / "opt")
    rows = tiny_model.machine_rows(300, seed=3)
    lines = [",".join(tiny_model.CHANNELS), *(",".join(map(str, row)) for row in rows)]
    (folder / "opt" / "rows.csv").write_text("\n".join(lines) + "\n")
    (folder / "var" / "lib" / "gruard").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def systemd(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A running system; one for all tests of a file."""
    systemd_tree.ready()
    with Booted(files, tmp_path_factory.mktemp("scratch")) as booted:
        yield booted
