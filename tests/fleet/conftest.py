"""Recordings of simulated pumps, short enough to learn in a second."""

from dataclasses import replace
from pathlib import Path

import pytest
from small_fleet import MakeJob, Once

from edge_runtime import __version__
from edge_runtime.learning.recording import write_recording
from fleet.job import Job
from train.simulate import simulate


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
