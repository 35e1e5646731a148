"""A fault that nobody noticed in the recording is no part of what is learned as healthy."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.commands.main import gruard
from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.learning.rollout import roll
from edge_runtime.learning.shipped import shipped_model

sys.path.insert(0, str(Path(__file__).parents[1]))
from made_recording import pump, worn, write_csv

ROWS, WEAR, SEED = 3000, (500, 1250), 3
FOUND = "rows 500 to 1,250, 1 May 01:23 to 03:28: vibration and current are unlike the other"


def begins(bundle: Path) -> list[int]:
    """Rows of the next day, worn from row 2,000 to 3,000, at which `bundle` raises an alarm."""
    day = worn(pump(4000, 100 + SEED), 2000, 3000).astype(np.float32)
    model = shipped_model(read_bundle(bundle).manifest, b"")
    return [start for start, _ in alarm_stretches(roll(model, day).alarm)]


@pytest.mark.parametrize(
    ("label", "expected"), [(False, True), pytest.param(True, False, marks=pytest.mark.long)]
)
def test_the_fault_raises_an_alarm_when_it_comes_back(
    tmp_path: Path, label: bool, expected: bool
) -> None:
    file = write_csv(tmp_path / "dirty.csv", worn(pump(ROWS, SEED), *WEAR))
    if label:  # the owner says that all rows are healthy
        head, *rows = file.read_text().split()
        file.write_text("\n".join([f"{head},label", *(f"{row},0" for row in rows), ""]))
    bundle = tmp_path / "pump-1.gruard"
    result = CliRunner().invoke(gruard, ["learn", str(file), "--out", str(bundle)])
    assert result.exit_code == 0, result.output
    alarms = begins(bundle)
    assert all(2000 <= start < 3000 for start in alarms)
    assert bool(alarms) is expected
    warnings = json.loads((bundle / "report.json").read_text())["warnings"]
    (told,) = (warning for warning in warnings if warning.startswith(FOUND))
    assert ("Learning leaves these rows out" in told) is expected
    assert result.output.count(told) == 1 and FOUND in (bundle / "report.html").read_text()
