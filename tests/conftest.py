"""Real bundles for all tests, stored ones, and a way to share what is made.

Each is made once a test run, however many processes of pytest-xdist share the tests.
"""

import fcntl
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.golden_bundles import FOLDER, LINEAR, TINY

# A shell has programs in the background ignore Ctrl-C, and what they start ignores it, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test asserts how long it takes: the machine may be busy.
settings.register_profile("gruard", deadline=None, max_examples=50)
settings.load_profile("gruard")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: what is left for the end is short, so no process waits."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return `once(name, make)`: a folder that `make(folder)` filled.

    The first process that asks makes it, the others wait for the lock and share it. `name` is one
    of the whole test run.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                unfinished = tmp_path_factory.mktemp(name)
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return folder_of


@pytest.fixture(scope="session")
def golden(once: Once) -> Path:
    """A copy of what `golden_bundles` stored: commands put files next to a bundle."""
    return once("golden", lambda folder: shutil.copytree(FOLDER, folder, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def tiny_bundle(golden: Path) -> Path:
    """The stored bundle with gate and GRU. Read-only; to harm one take `bundle_copy`."""
    return golden / TINY.name


@pytest.fixture(scope="session")
def linear_bundle(golden: Path) -> Path:
    """The stored linear bundle of the same machine. Read-only; to harm one take `linear_copy`."""
    return golden / LINEAR.name


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_bundle` of the test's own."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name))


@pytest.fixture
def linear_copy(linear_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `linear_bundle` of the test's own."""
    return Path(shutil.copytree(linear_bundle, tmp_path / linear_bundle.name))
