"""Recordings of simulated pumps, short enough to learn in a second."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_fleet import MakeJob, Once

from edge_runtime import __version__
from edge_runtime.learning.recording import write_recording
from fleet.job import Job
from train.simulate import simulate

if TYPE_CHECKING:
    from made_fleet import Plant


@pytest.fixture(scope="session")
def recording(once: Once) -> Path:
    """A CSV of 160 rows and two channels of a healthy pump. Read-only."""

    def write(folder: Path) -> None:
        whole = simulate(160, seed=1)
        small = replace(whole, channels=whole.channels[1:3], values=whole.values[:, 1:3])
        write_recording(folder / "pump.csv", small)

    return once("fleet-recording", write) / "pump.csv"


@pytest.fixture
def job(tmp_path: Path) -> MakeJob:
    """Return `job(asset, data, **changes)` for the fleet in `tmp_path / "fleet"`."""
    fleet = tmp_path / "fleet"
    fleet.mkdir()

    def make(asset: str, data: Path, **changes: object) -> Job:
        known = {
            "settings": "", "target": 1.0, "model": "linear", "bundle": "", "fleet": str(fleet),
            "run": "run1", "gruard": __version__, "seconds": 100.0, "megabytes": 1000,
        }  # fmt: skip
        return Job(asset=asset, data=str(data), **{**known, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def two_versions(once: Once) -> Path:
    """The folder of a plant whose device runs version 1, while version 2 is published. Read-only.

    `www-1` is its repository before that.
    """

    def make(folder: Path) -> None:
        from made_fleet import Plant

        plant = Plant(folder)
        plant.publish(1)
        plant.check()
        shutil.copytree(plant.www, folder / "www-1")
        plant.publish(2)
        plant.server.stop()

    return once("two-versions", make)


@pytest.fixture
def plant(two_versions: Path, tmp_path: Path) -> "Iterator[Plant]":
    """A plant of the test's own, as of `two_versions`."""
    from made_fleet import Plant

    plant = Plant(Path(shutil.copytree(two_versions, tmp_path / "plant")))
    yield plant
    plant.server.stop()
