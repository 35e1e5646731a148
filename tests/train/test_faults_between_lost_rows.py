"""Between lost rows the device finds the faults that `train` injects as well as before."""

from pathlib import Path

import numpy as np
import pytest
import tiny_model

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.inputs import channel_scaler
from edge_runtime.learning.faults import Fault, inject
from edge_runtime.native.engine import NativeDetector
from tests.edge_runtime import native_core  # noqa: F401
from train.selection import average_precision

ROWS = 6000


@pytest.fixture(params=["tiny_bundle", "linear_bundle"], scope="module")
def bundle(request: pytest.FixtureRequest) -> Bundle:
    path: Path = request.getfixturevalue(request.param)
    return read_bundle(path)


def answered(bundle: Bundle, rows: np.ndarray) -> np.ndarray:
    """The records of all rows after the warm-up."""
    return NativeDetector(bundle).run(rows)[2 * bundle.manifest.tiers.warmup :]


def lossy(rows: np.ndarray, share: float) -> np.ndarray:
    lost = rows.copy()
    lost[np.random.default_rng(1).random(len(rows)) < share] = np.nan
    return lost


def of_faults(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Raw rows with a fault every 100 of them, and which rows are faulty."""
    scaler = channel_scaler(bundle.manifest.channels)
    clean = tiny_model.machine_rows(ROWS, seed=21)
    kinds = tuple(kind for kind in Fault if kind is not Fault.BLACKOUT)
    made = inject(
        (clean - scaler.center) / scaler.scale, np.random.default_rng(3), kinds=kinds,
        events=(ROWS // 100,) * 2, sizes=(1.0, 8.0), exogenous=np.array([True, False, False]),
        first=100, spaced=True,
    )  # fmt: skip
    rows = (made.values * scaler.scale + scaler.center).astype(np.float32)
    rows[made.mask == 0] = np.nan
    return rows, (made.labels > 0).any(axis=1)


def test_faults_are_found_as_before_with_2_per_cent_lost(bundle: Bundle) -> None:
    rows, faulty = of_faults(bundle)
    calm, found = answered(bundle, rows), answered(bundle, lossy(rows, 0.02))
    labels = faulty[len(rows) - len(calm) :]
    before, after = (average_precision(r["score"].astype(float), labels) for r in (calm, found))
    # A lost row has no score of its own: so much of any score must be lost with 2 % of them.
    assert before > 0.5 and after > 0.97 * before
