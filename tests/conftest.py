"""Real artefacts for all tests: small run folders, a conversion, bundles.

Each is made once a test run, however many processes of pytest-xdist share the tests.
"""

import fcntl
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny_model
from hypothesis import settings

if TYPE_CHECKING:
    from convert.convert_run import Conversion
    from train.run_folder import Run


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
def tiny_run(once: Once) -> "Run":
    """A finished run folder on disk (see `tiny_model`), read back. Treat it as read-only."""
    from train.run_folder import read_run

    return read_run(once("tiny", lambda folder: tiny_model.write_run(folder / "run")) / "run")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: "Run", once: Once) -> Path:
    """The finished bundle of `tiny_run`. Treat it as read-only; to harm one take `bundle_copy`."""
    made = once("tiny-bundle", lambda folder: tiny_model.write_bundle(tiny_run.path, folder))
    return next(made.iterdir())


@pytest.fixture(scope="session")
def good_run(tiny_run: "Run", once: Once) -> "Run":
    """The small run with a seed whose faults stay clear of its threshold. Treat it as read-only."""
    from train.run_folder import read_run, save_config

    def make(folder: Path) -> None:
        path = Path(shutil.copytree(tiny_run.path, folder / "run"))
        save_config(path, replace(tiny_run.config, seed=2))

    return read_run(once("good", make) / "run")


@pytest.fixture(scope="session")
def short_proofs() -> Iterator[None]:
    """Judge on streams long enough for every check; `make test-long` judges on the full ones."""
    with pytest.MonkeyPatch.context() as patch:
        tiny_model.judge_briefly(patch.setattr)
        yield


@pytest.fixture(scope="session")
def conversion(good_run: "Run", once: Once, short_proofs: None) -> "Conversion":
    """The small run, converted and judged. Treat it as read-only."""
    from convert.convert_run import convert_run

    def make(folder: Path) -> None:
        made = convert_run(good_run, 1, 1.0, lambda sentence: None)
        (folder / "conversion.pickle").write_bytes(pickle.dumps(made))

    found: Conversion = pickle.loads((once("conversion", make) / "conversion.pickle").read_bytes())
    return found


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_bundle` of the test's own."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name))


@pytest.fixture(scope="session")
def linear_run(once: Once) -> "Run":
    """A finished run folder of the same machine that is the highway alone. Read-only."""
    from train.run_folder import read_run

    made = once("linear", lambda folder: tiny_model.write_linear_run(folder / "run"))
    return read_run(made / "run")


@pytest.fixture(scope="session")
def linear_bundle(linear_run: "Run", once: Once, short_proofs: None) -> Path:
    """The finished bundle of `linear_run`. Read-only; to harm one take `linear_copy`."""
    made = once("linear-bundle", lambda to: tiny_model.write_linear_bundle(linear_run.path, to))
    return next(made.iterdir())


@pytest.fixture
def linear_copy(linear_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `linear_bundle` of the test's own."""
    return Path(shutil.copytree(linear_bundle, tmp_path / linear_bundle.name))
