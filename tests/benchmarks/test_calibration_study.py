"""The study of thresholds: its process, its rules and its counting do what they say."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.calibration import (
    PROCESSES,
    RULES,
    WISH,
    Kept,
    Process,
    _excess,
    _moments,
    draw,
    main,
    measure,
    realised,
    simulate,
    tables,
)

QUICK = PROCESSES[0]


def test_a_simulation_is_reproducible_and_its_volatility_clusters() -> None:
    scores = simulate(QUICK, 3000, 4, seed=3)
    assert scores.shape == (4, 3000) and scores.dtype == np.float32
    np.testing.assert_array_equal(scores, simulate(QUICK, 3000, 4, seed=3))
    assert (scores != simulate(QUICK, 3000, 4, seed=4)).any()
    calm = simulate(Process("calm", 50, 1e-6), 3000, 4, seed=3)

    def remembered(lag: int, of: np.ndarray) -> float:
        return float(np.mean([np.corrcoef(row[:-lag], row[lag:])[0, 1] for row in of]))

    assert remembered(30, scores) > 0.25 > 0.1 > remembered(30, calm)


@pytest.mark.long
def test_a_higher_threshold_is_exceeded_less_often() -> None:
    rate = realised(QUICK, 2)
    levels = np.linspace(4, 9, 20)
    rates = [rate(level) for level in levels]
    assert rates == sorted(rates, reverse=True) and rates[0] > 10 * rates[-1] > 0


def test_every_rule_gives_a_threshold_above_the_bulk_and_says_how_it_did() -> None:
    clean = simulate(QUICK, 7200, 3, seed=1)
    found = measure(QUICK, clean, lambda threshold: threshold)
    assert {kept.rule for kept in found} == set(RULES) and {kept.hours for kept in found} == {1}
    for kept in found:
        assert all(rate > np.quantile(clean, 0.97) for rate in kept.rates), kept.rule


def test_moments_find_the_tail_that_was_drawn() -> None:
    uniform = np.random.default_rng(0).random(20_000)
    for shape in (-0.2, 0.0, 0.15):
        scale, found = _moments(_excess(1 / uniform, 2.0, shape))
        assert (scale, found) == (pytest.approx(2.0, rel=0.05), pytest.approx(shape, abs=0.03))


def test_the_figures_of_a_rule_are_those_of_its_rates(tmp_path: Path) -> None:
    kept = Kept("p", "gruard", 1, (0.2, 0.4, 0.6, 4.0))
    assert (kept.median, kept.exceeded) == (0.5, 0.25) and WISH == 1
    every = [Kept("p", "gruard", hours, kept.rates) for hours in (1, 6, 24, 72)]
    assert "| gruard | 0.50 (0.23–3.49), 25% |" in tables(every)
    picture = tmp_path / "study.png"
    draw(every, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_command_teaches() -> None:
    told = CliRunner().invoke(main, ["--help"]).output
    assert "one false alarm a day" in told and "--days" in told
