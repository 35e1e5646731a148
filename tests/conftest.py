"""Real artefacts for all tests: small run folders, a conversion, bundles, made once a session."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny_model
from hypothesis import settings

if TYPE_CHECKING:
    from convert.convert_run import Conversion
    from train.run_folder import Run


# No test asserts how long it takes: the machine may be busy.
settings.register_profile("gruard", deadline=None)
settings.load_profile("gruard")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A finished run folder on disk (see `tiny_model`), read back. Treat it as read-only."""
    from train.run_folder import read_run

    path = tmp_path_factory.mktemp("tiny") / "run"
    tiny_model.write_run(path)
    return read_run(path)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: "Run", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished bundle of `tiny_run`. Treat it as read-only; to harm one take `bundle_copy`."""
    return tiny_model.write_bundle(tiny_run.path, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def good_run(tiny_run: "Run", tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """The small run with a seed whose faults stay clear of its threshold. Treat it as read-only."""
    from train.run_folder import read_run, save_config

    path = Path(shutil.copytree(tiny_run.path, tmp_path_factory.mktemp("good") / "run"))
    save_config(path, replace(tiny_run.config, seed=2))
    return read_run(path)


@pytest.fixture(scope="session")
def conversion(good_run: "Run") -> "Conversion":
    """The small run, converted and judged in full length. Treat it as read-only."""
    from convert.convert_run import convert_run

    return convert_run(good_run, 1, 1.0, lambda sentence: None)


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_bundle` of the test's own."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name))


@pytest.fixture(scope="session")
def linear_run(tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A finished run folder of the same machine that is the highway alone. Read-only."""
    from train.run_folder import read_run

    path = tmp_path_factory.mktemp("linear") / "run"
    tiny_model.write_linear_run(path)
    return read_run(path)


@pytest.fixture(scope="session")
def linear_bundle(linear_run: "Run", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished bundle of `linear_run`. Read-only; to harm one take `linear_copy`."""
    return tiny_model.write_linear_bundle(linear_run.path, tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def linear_copy(linear_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `linear_bundle` of the test's own."""
    return Path(shutil.copytree(linear_bundle, tmp_path / linear_bundle.name))
