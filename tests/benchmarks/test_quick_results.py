"""The quick series' results, pinned: wide enough for noise, narrow enough to notice a broken model.

The linear variant has no randomness, so what moves these figures is a change of the code. A broken
highway, distance or smoothing costs more than the tolerance: the last test breaks one of them.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gruard_detector import GruardDetector
from benchmarks.judge import judge
from benchmarks.series import DATA, WATCH, Series, catalogue

TOLERANCE = 0.05
# Series of `python -m benchmarks.accuracy --quick`: figure and value.
PINNED = {
    "simulator/0": ("vus_pr", 0.730),
    "tep/plant": ("fdr", 0.989),
    "asd/omi-6": ("vus_pr", 0.673),
}


def _series(name: str) -> Series:
    missing: list[str] = []
    found = catalogue(DATA, WATCH, True, missing.append)
    if name not in found:
        pytest.skip(f"{name}: " + "; ".join(missing))
    return found[name]()


def _figure(series: Series, name: str, folder: Path) -> float:
    folder.mkdir()
    outcome = GruardDetector("linear").run(series, 0, folder)["gruard-linear"]
    value = judge(series, outcome)[name]
    assert value is not None
    return value


@pytest.mark.slow
@pytest.mark.parametrize("name", PINNED)
def test_the_linear_detector_finds_what_it_found(name: str, tmp_path: Path) -> None:
    figure, expected = PINNED[name]
    assert _figure(_series(name), figure, tmp_path / "run") == pytest.approx(
        expected, abs=TOLERANCE
    )


@pytest.mark.long
def test_a_detector_that_learned_from_other_rows_is_noticed(tmp_path: Path) -> None:
    """Time-shuffled clean rows leave every level and correlation, but no dynamics to learn."""
    series = _series("simulator/0")
    rng = np.random.default_rng(0)
    shuffled = tuple(replace(r, values=rng.permutation(r.values)) for r in series.train)
    figure, expected = PINNED["simulator/0"]
    spoiled = _figure(replace(series, train=shuffled), figure, tmp_path / "run")
    assert spoiled < expected - TOLERANCE
