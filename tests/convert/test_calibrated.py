"""Which rows decide what: what is usual comes from all clean rows, the promise from unseen ones."""

from dataclasses import replace

import numpy as np
import pytest

from convert.convert_run import Conversion
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.detector.kernels import KERNEL_ID
from edge_runtime.learning.calibrated import calibrated
from edge_runtime.learning.run import Run


@pytest.fixture(scope="module")
def calm(tiny_run: Run) -> Run:
    """The run whose machine moved half as much while the rows to calibrate were recorded."""
    rows = [r + (np.median(r, axis=0) - r) / 2 for r in tiny_run.rows["calibrate"]]
    return replace(tiny_run, rows={**tiny_run.rows, "calibrate": rows})


@pytest.fixture(scope="module")
def found(calm: Run, conversion: Conversion) -> Manifest:
    return calibrated(calm, conversion.model, 1, 1.0).manifest


def test_calm_rows_to_calibrate_do_not_make_every_other_row_strange(
    found: Manifest, conversion: Conversion
) -> None:
    calm, ordinary = (m.score.memories[0] for m in (found, conversion.manifest))
    assert (np.array(calm.std[:5]) > 0.6 * np.array(ordinary.std[:5])).all()


def test_the_threshold_comes_from_the_rows_to_calibrate(
    found: Manifest, conversion: Conversion
) -> None:
    calm, ordinary = (m.thresholds[KERNEL_ID] for m in (found, conversion.manifest))
    assert calm.clean_days == ordinary.clean_days
    assert calm.value < ordinary.value
