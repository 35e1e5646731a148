"""The simulated machine: deterministic, plausible, and its faults are where it says they are."""

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.learning.recording import read_recordings, write_recording
from edge_runtime.learning.settings import find_settings, load_settings
from train.simulate import (
    ALL_KINDS,
    CHANNELS,
    MACHINE_KINDS,
    PERIOD,
    SETTINGS,
    simulate,
    simulate_faults,
    write_settings,
)

ROWS = 30_000


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert simulate(2000, 7).values.tobytes() == simulate(2000, 7).values.tobytes()
    assert simulate(2000, 7).values.tobytes() != simulate(2000, 8).values.tobytes()
    first, second = simulate_faults(5000, 7), simulate_faults(5000, 7)
    assert first.recording.values.tobytes() == second.recording.values.tobytes()
    assert first.events == second.events


def test_the_healthy_machine_stays_within_its_limits_and_keeps_moving() -> None:
    recording = simulate(ROWS, 1)
    assert recording.values.shape == (ROWS, len(CHANNELS))
    assert recording.values.dtype == np.float32
    for values, channel in zip(recording.values.T, CHANNELS, strict=True):
        settings = SETTINGS[channel]
        assert settings["low"] <= values.min() < values.max() <= settings["high"], channel
        if "max_rate" in settings:
            assert np.abs(np.diff(values)).max() < PERIOD * settings["max_rate"], channel
        if "stuck_after" in settings:
            assert (np.diff(values) != 0).mean() > 0.95, channel


def test_every_kind_comes_and_only_labelled_rows_carry_a_fault() -> None:
    simulation = simulate_faults(ROWS, 3)
    healthy = simulate(ROWS, 3)
    recording, labels = simulation.recording, simulation.recording.labels
    assert labels is not None
    assert {event.kind for event in simulation.events} == set(ALL_KINDS)
    inside = np.zeros(ROWS, np.int8)
    for event in simulation.events:
        inside[event.start : event.stop] = 1
    np.testing.assert_array_equal(labels, inside)
    clean = labels == 0
    away = np.abs(recording.values - healthy.values)[clean] / healthy.values.std(axis=0)
    assert away.max() < 0.35  # only what a machine fault leaves while it fades in or out
    assert not labels[:2000].any()


@pytest.mark.parametrize(
    ("kind", "signs"),
    [
        ("bearing_wear", {"vibration": 1, "current": 1, "temperature": 1}),
        ("leak", {"flow": 1, "pressure": -1}),
        ("blocked_filter", {"flow": -1, "pressure": 1}),
        ("cooling_loss", {"temperature": 1, "oil_temperature": 1}),
    ],
)
def test_machine_faults_move_their_channels(kind: str, signs: dict[str, int]) -> None:
    simulation, healthy = simulate_faults(6000, 5, [kind]), simulate(6000, 5)
    change = (simulation.recording.values - healthy.values) / healthy.values.std(axis=0)
    assert tuple(signs) == MACHINE_KINDS[kind] == simulation.events[0].channels
    for event in simulation.events:
        moved = change[event.start : event.stop].mean(axis=0)
        for channel, sign in signs.items():
            assert sign * moved[CHANNELS.index(channel)] > 0.1
    assert not change[:, CHANNELS.index("set_point")].any()


def test_impossible_demands_are_refused() -> None:
    with pytest.raises(ValueError, match="gremlin"):
        simulate_faults(5000, 1, ["gremlin"])
    with pytest.raises(ValueError, match="399"):
        simulate_faults(5000, 1, every=399)


def test_files_read_back(tmp_path: Path) -> None:
    recording = simulate_faults(ROWS // 2, 2, ["blackout", "leak"]).recording
    path = tmp_path / "machine.csv"
    write_recording(path, recording)
    write_settings(tmp_path / "channels.yaml")
    (read,) = read_recordings([path]).recordings
    np.testing.assert_array_equal(read.values, recording.values)
    np.testing.assert_array_equal(read.labels, recording.labels)
    settings = load_settings(find_settings(path), read.channels)
    assert settings.period == read.period == PERIOD
    assert [name for name in CHANNELS if settings.channels[name].exogenous] == ["set_point"]
    assert settings.channels["flow"].unit == "l/min"
