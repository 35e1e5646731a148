"""The study of engines: what counts as a warning, and what gruard does on the fleet."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import engines
from benchmarks.engines import FEW, EngineResult, judged, normaliser, table


def alarms(length: int, *spans: tuple[int, int]) -> np.ndarray:
    found = np.zeros(length, bool)
    for start, stop in spans:
        found[start:stop] = True
    return found


def test_a_warning_is_an_alarm_that_begins_after_the_healthy_part() -> None:
    lives = [
        alarms(100, (60, 100)),  # 40 flights before the end
        alarms(100, (10, 12), (29, 100)),  # early, and never told again
        alarms(200, (59, 61), (180, 185), (190, 200)),  # early, then with 20 flights left
        alarms(150),
    ]
    told = judged("4 sensors", "made", lives)
    assert (told.warned, told.early, told.median) == (0.5, 0.5, 10.0)
    assert told.tenth == 0


def test_readings_are_relative_to_their_mode() -> None:
    rng = np.random.default_rng(0)
    modes = rng.integers(0, 2, 400)
    settings = np.array([[0, 0.0, 100], [35, 0.84, 100]])[modes] + rng.uniform(0, 0.004, (400, 3))
    sensor = np.array([500, 900])[modes] + np.array([1, 9])[modes] * rng.normal(size=400)
    rows = np.column_stack([settings, sensor]).astype(np.float32)
    relative = normaliser([rows[:200], rows[200:]])(rows)
    for mode in range(2):
        assert relative[modes == mode, 3].mean() == pytest.approx(0, abs=1e-3)
        assert relative[modes == mode, 3].std() == pytest.approx(1, rel=1e-3)


def test_the_table_has_a_part_for_each_choice_of_sensors() -> None:
    found = [
        EngineResult("21 sensors", "a", 0.981, 0.012, 30.4, 8),
        EngineResult("4 sensors", "a", 0, 0, 0, 0),
    ]
    first, second = table(found).split("4 sensors and three settings:")
    assert "21 sensors and three settings:" in first and "| a | 98.1% | 1.2% | 30 | 8 |" in first
    assert "| a | 0.0% | 0.0% | 0 | 0 |" in second


def test_without_the_data_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engines, "DATA", tmp_path)
    done = CliRunner().invoke(engines.main, [])
    assert done.exit_code == 1 and "SKIPPED, nothing was measured" in done.output


@pytest.mark.long
def test_wear_is_told_in_time_with_four_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (engines.DATA / "engines").is_dir():
        pytest.skip(f"SKIPPED: no {engines.DATA / 'engines'}")
    monkeypatch.setattr(engines, "RECORDED", {"4 sensors": FEW})
    monkeypatch.setattr(engines, "FLOORS", ())
    monkeypatch.setattr(engines, "BASELINES", ())
    done = CliRunner().invoke(engines.main, ["--json"])
    assert done.exit_code == 0, done.output
    with_settings, without = json.loads(done.stdout)
    assert with_settings["warned"] >= 0.95 and with_settings["early"] <= 0.05
    assert with_settings["median"] >= 20
    assert without["warned"] < 0.2
