"""What an Arm learns is what this machine learns, but for the last digits of a few constants.

They come from numpy's linear algebra, whose order of summation depends on the processor.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arm_userland import Arm, run
from made_diagnosis import NAMES, made_rows

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from tests.debian_tree import ROOT

pytestmark = pytest.mark.arm

ROWS = 300
LAST_DIGITS = 1e-5  # relative, and of a standard deviation
MOST_OFF = 0.02  # share of the constants that may differ at all
ENVIRONMENT = ("members", "proof", "provenance")


def leaves(value: Any, place: str = "") -> dict[str, Any]:
    """All that is in a JSON value, by its place."""
    if not isinstance(value, (dict, list)):
        return {place: value}
    named = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        inner: each
        for name, part in named
        for inner, each in leaves(part, f"{place}/{name}").items()
    }


def constants(bundle: Path) -> dict[str, Any]:
    data = json.loads((bundle / "manifest.json").read_text())
    return leaves({name: value for name, value in data.items() if name not in ENVIRONMENT})


def test_an_arm_learns_the_same_but_for_last_digits(arm: Arm, tmp_path: Path) -> None:
    recording = tmp_path / "healthy.csv"
    table = made_rows(ROWS, seed=5)
    np.savetxt(recording, table, delimiter=",", header=",".join(NAMES), comments="", fmt="%.6g")
    here, there = tmp_path / "here" / "made-1.gruard", tmp_path / "there" / "made-1.gruard"
    words = ["-m", "edge_runtime", "learn", str(recording), "--period", "1", "--out"]
    subprocess.run([sys.executable, *words, str(here)], cwd=ROOT, check=True, capture_output=True)
    found = run(arm, [*words, str(there)])
    assert found.returncode == 0, found.stderr
    mine, theirs = constants(here), constants(there)
    assert mine.keys() == theirs.keys()
    off = [place for place, value in mine.items() if value != theirs[place]]
    assert len(off) <= MOST_OFF * len(mine), off
    for place in off:
        assert theirs[place] == pytest.approx(mine[place], rel=LAST_DIGITS, abs=LAST_DIGITS), place
    for bundle in (here, there):
        Detector(read_bundle(bundle)).self_test()  # what the Arm computed is computed here, too
