"""No harmed bundle may end, stall or swell the reader, and what it lets through can be run.

The inputs come from a process of their own (`campaign`), so that a crash of it would be seen here.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from reading import ACCEPTED, MOST_GROWTH, MOST_SECONDS

REPOSITORY = Path(__file__).resolve().parents[2]
OUT = REPOSITORY / "build" / "fuzz"
FEW, MANY = 450, 100_002
# What each kind has to reach, or the harm is not the harm it is meant to be.
REACHED = {
    "manifest": {ACCEPTED, "JSON", "schema"},
    "archive": {ACCEPTED, "archive"},
    "graph": {ACCEPTED, "file format", "graph rules"},
}


@dataclass(frozen=True)
class Harmed:
    """The bundles that are harmed."""

    recurrent: Path
    linear: Path


@pytest.fixture(scope="module")
def harmed(tiny_bundle: Path, linear_bundle: Path) -> Harmed:
    return Harmed(tiny_bundle, linear_bundle)


def campaign(bundles: Harmed, out: Path, count: int, seed: int) -> dict[str, Any]:
    """The counts of so many inputs; fails when the process that reads them does not end well."""
    script = Path(__file__).with_name("campaign.py")
    command = [sys.executable, "-W", "ignore", script, bundles.recurrent, bundles.linear, out]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OPENBLAS_NUM_THREADS": "1"}
    print(f"fuzz: {count} inputs, seed {seed} (FUZZ_SEED={seed} repeats them)", flush=True)
    ended = subprocess.run(
        [*map(str, command), str(count), str(seed)], env=environment, check=False
    )
    assert ended.returncode == 0, f"the reader's process ended with {ended.returncode}: see {out}"
    found: dict[str, Any] = json.loads((out / "counts.json").read_text())
    print(json.dumps(found, indent=2))
    return found


def check(found: dict[str, Any], count: int) -> None:
    assert found["failures"] == []
    assert sum(sum(kind.values()) for kind in found["read"].values()) == count
    for kind, stages in REACHED.items():
        assert stages <= set(found["read"][kind]), kind
    assert found["growth_bytes"] <= MOST_GROWTH and found["slowest_seconds"] <= MOST_SECONDS
    accepted = found["read"]["graph"][ACCEPTED]
    assert sum(found["run"]["graph"].values()) == accepted
    assert set(found["run"]["graph"]) | set(found["run"]["manifest"]) <= {"ran", "refused"}


def test_a_few_harmed_bundles_are_refused_or_run(harmed: Harmed, tmp_path: Path) -> None:
    check(campaign(harmed, tmp_path / "fuzz", FEW, seed=1), FEW)


@pytest.mark.fuzz
def test_many_harmed_bundles_are_refused_or_run(harmed: Harmed) -> None:
    count = int(os.environ.get("FUZZ") or MANY)
    seed = int(os.environ.get("FUZZ_SEED") or time.time())
    check(campaign(harmed, OUT, count, seed), count)
