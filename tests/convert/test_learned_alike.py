"""`gruard learn` and `train fit --model linear` with `convert` make the same detector."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model

from convert.bundle_writer import write_bundle
from convert.convert_run import convert_run
from edge_runtime.learning.learn import learn, linear_run, write_learned
from edge_runtime.learning.request import Request, read_data
from train.cell_config import CellConfig
from train.train_run import train_run
from train.training_request import Budget, TrainingRequest, read_training_data

SETTINGS = "channels:\n  set_point: {exogenous: true}\n  flow: {low: -20, high: 60, unit: l/min}\n"

pytestmark = pytest.mark.long


def silent(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with holes and a labelled stretch; the settings lie next to them."""
    rows = tiny_model.machine_rows(1500, seed=3)
    rows[300:303, 1] = np.nan
    rows[900:905, 2] += 400
    label = np.zeros(len(rows))
    label[900:905] = 1
    file = tmp_path_factory.mktemp("pump") / "pump.csv"
    names = ",".join((*tiny_model.CHANNELS, "label"))
    table = np.column_stack([rows, label])
    np.savetxt(file, table, delimiter=",", header=names, comments="", fmt="%.7g")
    (file.parent / "channels.yaml").write_text(SETTINGS)
    return file


@pytest.fixture(scope="module")
def bundles(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The bundle of the device, and that of the workstation."""
    folder = tmp_path_factory.mktemp("bundles")
    run = linear_run(read_data(Request((recording,), period=1.0)), "pump", 0, silent)
    request = TrainingRequest(
        data=(recording,), out=folder / "run", name="pump", period=1.0, model="linear"
    )
    trained = train_run(
        request, read_training_data(request), CellConfig(0), Budget(), silent, silent
    )
    return (
        write_learned(learn(run, 2, 0.5, silent), folder / "device", force=False),
        write_bundle(convert_run(trained, 2, 0.5, silent), folder / "workstation", force=False),
    )


def content(bundle: Path) -> dict[str, Any]:
    """The manifest without the report's hashes and the versions of tools."""
    manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    del manifest["provenance"]["tools"]
    del manifest["proof"]["report.json"], manifest["proof"]["report.html"]
    return manifest


def test_the_constants_and_thresholds_are_the_same(bundles: tuple[Path, Path]) -> None:
    device, workstation = map(content, bundles)
    assert device["diagnosis"] is not None and device["forecast"]["cross"]
    assert device == workstation


@pytest.mark.slow
@pytest.mark.parametrize("member", ["golden.npz", "calibration.npz"])
def test_the_arrays_are_the_same_bytes(bundles: tuple[Path, Path], member: str) -> None:
    device, workstation = ((bundle / member).read_bytes() for bundle in bundles)
    assert device == workstation


@pytest.mark.slow
def test_both_reports_say_the_same_of_what_both_judge(bundles: tuple[Path, Path]) -> None:
    device, workstation = (json.loads((b / "report.json").read_text()) for b in bundles)
    shared = set(device) & set(workstation) - {"provenance"}
    assert {"checks", "thresholds", "diagnosis", "warnings", "trial"} <= shared
    assert {name: device[name] for name in shared} == {name: workstation[name] for name in shared}
