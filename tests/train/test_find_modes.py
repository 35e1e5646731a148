"""Operating modes: found without labels, and kept only where a forecast gains by them."""

from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.bundle.manifest import Channel
from edge_runtime.learning.modes import FEWEST_ROWS, find_levels, find_modes, with_modes
from edge_runtime.learning.prepare import describe_channels
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.settings import ChannelSettings, Settings
from train.simulate import simulate

LOADS = {20.0: 1.0, 35.0: 4.0, 80.0: -3.0}  # where the readings stand


def machine(rows: int, seed: int, dwell: int = 1, lag: float = 0.0) -> np.ndarray:
    """Load, weather, and two readings that follow the load at once or with a lag."""
    rng = np.random.default_rng(seed)
    load = np.repeat(rng.choice([*LOADS], rows), dwell)[:rows]
    place, follower = np.array([LOADS[value] for value in load]), np.zeros(rows)
    for t in range(rows):
        follower[t] = lag * follower[t - 1] + (1 - lag) * place[t] if t else place[0]
    noise = rng.normal(0, 0.1, (rows, 2)) * (1 + load[:, None] / 20)
    readings = follower[:, None] * [1.0, -2.0] + noise
    weather = rng.normal(10, 3, rows)
    return np.column_stack([load + rng.normal(0, 0.2, rows), weather, readings]).astype(np.float32)


def described(rows: np.ndarray, *exogenous: int) -> tuple[Channel, ...]:
    names = tuple(f"c{i}" for i in range(rows.shape[1]))
    chosen = {name: ChannelSettings(exogenous=i in exogenous) for i, name in enumerate(names)}
    recording = Recording("made", names, None, rows, None, None)
    return describe_channels([recording], Settings(None, chosen))


def count(channels: tuple[Channel, ...]) -> int:
    return max(len(channel.modes) for channel in channels)


def test_levels_are_as_many_as_the_setting_has() -> None:
    rng = np.random.default_rng(0)
    setting = rng.choice([0.0, 10.0, 16.0], 900) + rng.uniform(-0.4, 0.4, 900)
    levels = find_levels(setting.astype(np.float32))
    assert [round(place.center) for place in levels.places] == [0, 10, 16]
    # Half the way to the nearest other level.
    assert [place.scale for place in levels.places] == pytest.approx([5, 3, 3], abs=0.1)
    assert (levels.of_row == np.searchsorted([5, 13], setting)).all()


@pytest.mark.parametrize("rare", [0, FEWEST_ROWS - 1])
def test_a_setting_without_gaps_has_no_levels(rare: int) -> None:
    setting = np.random.default_rng(1).normal(20, 5, 3000).astype(np.float32)
    setting[:rare] = 1000  # too few to be a level
    setting[-1] = np.nan
    levels = find_levels(setting)
    assert levels.places == () and levels.of_row[-1] == -1
    assert find_levels(np.full(100, 3.0, np.float32)).places == ()


def test_a_wide_level_reaches_to_its_own_end() -> None:
    wide = np.linspace(0, 50, 1000)
    levels = find_levels(np.concatenate([wide, np.full(100, 60.0)]).astype(np.float32))
    assert levels.places[0].scale == pytest.approx(25) and levels.places[1].scale == 17.5


def test_each_mode_has_the_centre_and_scale_of_its_rows() -> None:
    rows = machine(3000, 2)
    load, weather, first, _ = find_modes(described(rows, 0, 1), rows)
    assert [round(place.center) for place in load.modes] == [*LOADS]
    assert weather.modes == ()
    assert [place.center for place in first.modes] == pytest.approx([*LOADS.values()], abs=0.05)
    assert [place.scale for place in first.modes] == pytest.approx([0.2, 0.275, 0.5], rel=0.1)


def test_settings_that_are_not_exogenous_give_no_modes() -> None:
    rows = machine(3000, 2)
    channels = described(rows, 1)
    assert find_modes(channels, rows) is channels


def test_rows_outside_every_mode_may_be_few() -> None:
    rows = machine(3000, 3)
    channels = described(rows, 0, 1)
    rows[:40, 0] = np.nan
    assert count(find_modes(channels, rows)) == 3
    rows[:80, 0] = np.nan
    assert find_modes(channels, rows) is channels


def test_a_channel_without_a_reading_in_some_mode_leaves_none() -> None:
    rows = machine(3000, 3)
    rows[rows[:, 0] > 70, 2] = np.nan
    channels = described(rows, 0)
    assert find_modes(channels, rows) is channels


def test_too_many_levels_are_no_modes() -> None:
    rows = machine(3400, 4)
    rows[:, 0] = np.arange(3400) % 17
    channels = described(rows, 0)
    assert find_modes(channels, rows) is channels


def test_modes_are_kept_where_readings_follow_at_once() -> None:
    rows = machine(2000, 5)
    channels = described(rows, 0, 1)
    found = with_modes(channels, [rows[:900], rows[900:]], None)
    assert count(found) == 3
    assert [replace(channel, modes=()) for channel in found] == list(channels)


def test_missing_readings_and_short_pieces_decide_nothing() -> None:
    rows = machine(2000, 5)
    channels = described(rows, 0, 1)
    rows[::9, 2] = rows[100:103] = np.nan
    found = with_modes(channels, [rows[:3], rows[3:900], rows[900:]], None)
    assert count(found) == 3


def test_modes_are_not_kept_where_readings_follow_slowly() -> None:
    rows = machine(4000, 6, dwell=60, lag=0.95)
    channels = described(rows, 0, 1)
    assert count(find_modes(channels, rows)) == 3
    assert with_modes(channels, [rows], None) is channels


@pytest.mark.parametrize("seed", [0, 1])
def test_the_simulated_pump_has_none(seed: int) -> None:
    rows = simulate(12000, seed).values
    channels = described(rows, 0)
    assert with_modes(channels, [rows], 0.1) is channels
