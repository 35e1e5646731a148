"""Drift is found where scores change, and not where they only wander."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")
from fleet.ingest.drift import (
    FEWEST,
    MUCH,
    QUANTILES,
    Reference,
    chance_limit,
    drift_of,
    memory_of,
    reference_of,
    stability_index,
)
from fleet.ingest.totals import EDGES, WeekScores

MODEL = "0123456789ab"


def wandering(rng: np.random.Generator, rows: int, memory: float) -> np.ndarray:
    """Positive scores around 1 that follow each other for about `memory` rows."""
    keep, level = np.exp(-2 / memory), rng.standard_normal()
    noise, found = rng.standard_normal(rows) * np.sqrt(1 - keep * keep), np.empty(rows)
    for row in range(rows):
        level = keep * level + noise[row]
        found[row] = level
    return np.exp(0.5 * found)


def reference(scores: np.ndarray) -> Reference:
    quantiles = np.quantile(scores, np.linspace(0, 1, QUANTILES + 1))
    return Reference(
        MODEL, "pump", 1, tuple(quantiles.tolist()), len(scores), memory_of(scores), 1.0
    )


def week(scores: np.ndarray, threshold: float = 10.0) -> WeekScores:
    bins = np.searchsorted(EDGES, scores / threshold, side="right")
    counts = np.bincount(bins, minlength=len(EDGES) + 1)
    return WeekScores(MODEL, threshold, 0, tuple(counts.tolist()))


def test_the_index_is_the_formula() -> None:
    expected, counts = np.array([0.5, 0.3, 0.2]), np.array([20_000.0, 30_000.0, 50_000.0])
    by_hand = sum((q - p) * np.log(q / p) for p, q in ((0.5, 0.2), (0.3, 0.3), (0.2, 0.5)))
    assert stability_index(expected, counts) == pytest.approx(by_hand, rel=1e-3)
    assert stability_index(expected, expected * 1e6) < 1e-9
    # The 99.9 % quantile of chi-square with 9 degrees of freedom is 27.88.
    assert chance_limit(1.0, 10) == pytest.approx(27.88, rel=1e-2)


def test_the_memory_of_scores_is_found() -> None:
    rng = np.random.default_rng(0)
    assert memory_of(rng.standard_normal(20_000)) < 2
    found = [memory_of(wandering(rng, 40_000, 100)) for _ in range(5)]
    assert 60 < np.median(found) < 250
    assert memory_of(np.ones(1000)) >= 1 and memory_of(np.arange(3.0)) >= 1


def test_healthy_weeks_drift_rarely_though_the_usual_band_says_so() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(60):
        told = reference(wandering(rng, 4000, 100))
        found.append(drift_of(week(wandering(rng, 8000, 100)), told))
    judged = [each for each in found if not each.problem]
    assert len(judged) > 40
    assert sum(each.found for each in judged) <= 1
    assert sum(each.index > 0.1 for each in judged) > 5, "0.1 is not rare by chance"


@pytest.mark.parametrize("factor", [0.4, 2.5])
def test_scores_that_change_have_drifted(factor: float) -> None:
    rng = np.random.default_rng(2)
    told = reference(wandering(rng, 20_000, 20))
    found = drift_of(week(factor * wandering(rng, 20_000, 20)), told)
    assert found.found and found.index > found.limit >= MUCH
    assert not drift_of(week(wandering(rng, 20_000, 20)), told).found
    # Another threshold is another unit of the same scores.
    assert not drift_of(week(wandering(rng, 20_000, 20), threshold=3.0), told).found


def test_what_cannot_be_judged_says_why() -> None:
    rng = np.random.default_rng(3)
    told, came = reference(wandering(rng, 10_000, 20)), week(wandering(rng, 10_000, 20))
    short = replace(told, memory=told.rows / (FEWEST - 1))
    assert "record for longer" in drift_of(came, short).problem
    few = replace(came, counts=tuple(count // 100 for count in came.counts))
    assert "too few" in drift_of(few, told).problem
    alike = replace(told, scores=(1.0,) * len(told.scores))
    assert "alike" in drift_of(came, alike).problem
    assert drift_of(came, replace(told, problem="no kernel")).problem == "no kernel"
    assert not drift_of(came, told).problem


def test_a_model_without_a_bundle_has_no_reference(tmp_path: Path) -> None:
    (tmp_path / "x.gruard").mkdir()
    for model in (MODEL, "", "../../etc", "x" * 5000):
        assert reference_of(tmp_path / "a", model, (str(tmp_path / "x.gruard"),)) is None
    assert not (tmp_path / "a").exists()
