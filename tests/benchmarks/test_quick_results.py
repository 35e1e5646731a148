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
from edge_runtime.detector.alarm import alarm_stretches
from train.simulate import simulate

TOLERANCE = 0.05
LINEAR = "gruard-linear"
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
    outcome = GruardDetector("linear").run(series, 0, folder)[LINEAR]
    value = judge(series, outcome)[name]
    assert value is not None
    return value


@pytest.mark.long
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


def _alarms(scratch: Path, jump: float) -> int:
    """Alarms on 6,000 healthy rows; their set-point is off by `jump` % of load from the middle on.

    The load steps between five levels, and both recordings have all of them.
    """
    healthy, watched = simulate(6000, 0), simulate(6000, 500)
    watched.values[3000:, watched.channels.index("set_point")] += jump
    series = _series("simulator/0")
    labels = np.zeros(watched.rows, np.int8)
    test = replace(series.tests[0], values=watched.values, labels=labels)
    series = replace(series, train=(healthy,), tests=(test,))
    return len(alarm_stretches(GruardDetector("linear").run(series, 0, scratch)[LINEAR].alarms[0]))


@pytest.mark.long
@pytest.mark.parametrize(("jump", "alarms"), [(0.0, range(1)), (30.0, range(1, 6000))])
def test_a_known_change_of_load_raises_no_alarm(jump: float, alarms: range, tmp_path: Path) -> None:
    """The set-point is recorded; an alarm is right once the machine no longer follows it."""
    assert _alarms(tmp_path, jump) in alarms
