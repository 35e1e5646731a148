"""The standard score by hand, and a detector that is not there."""

import math
from pathlib import Path

import pytest

from benchmarks import nab

WINDOWS = [(100, 150), (300, 350)]


def detections(*places: int) -> list[int]:
    return list(places)


def sigmoid(position: float) -> float:
    return 2 / (1 + math.exp(5 * position)) - 1


def test_the_bounds_are_perfect_and_silent() -> None:
    assert nab.score(detections(100, 300), WINDOWS) == pytest.approx(2)
    assert nab.score(detections(), WINDOWS) == -2


def test_late_detections_count_less_and_later_ones_of_a_window_nothing() -> None:
    late = sigmoid(-10 / 50) / sigmoid(-1)
    assert nab.score(detections(140, 145, 300), WINDOWS) == pytest.approx(late + 1)


def test_detections_outside_are_charged_the_more_the_further_they_are_behind_a_window() -> None:
    before = nab.score(detections(50, 100, 300), WINDOWS)
    assert before == pytest.approx(2 - 0.11)
    near, far = (nab.score(detections(100, 300, at), WINDOWS) for at in (151, 299))
    assert near == pytest.approx(2 + 0.11 * sigmoid(2 / 49))
    assert far == pytest.approx(2 + 0.11 * sigmoid(150 / 49)) and far < near < 2


def test_a_stream_too_short_to_learn_from_is_a_detector_that_is_silent(tmp_path: Path) -> None:
    rows = [f"2026-01-01 00:{i % 60:02}:00,{i % 7},{int(300 < i < 320)}" for i in range(400)]
    file = tmp_path / "short.csv"
    file.write_text("\n".join(["timestamp,value,label", *rows]) + "\n")
    found = nab.measure(file)
    assert "too few" in found.failed and (found.raw, found.windows, found.announced) == (-1, 1, 0)
    assert nab.standard([found]) == 0 and "no detector" in nab._line(found)
    assert nab.table([found]).splitlines()[-1].startswith("| all 1 | 0.0 | 0 of 1 | 0.00% |")
