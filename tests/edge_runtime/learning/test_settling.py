"""Which channels a recording left on their way, and what that makes of a lasting change."""

from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.bundle.manifest import Channel, Place
from edge_runtime.learning.settling import LONGEST, SHORTEST, change_section, unsettled

TIME = np.arange(800)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, len(TIME))


def rows(*columns: np.ndarray) -> np.ndarray:
    return np.stack(columns, axis=1).astype(np.float32)


def channel(name: str, exogenous: bool = False) -> Channel:
    return Channel(name, "", 0.0, 1.0, None, None, None, None, exogenous)


def test_what_moves_to_the_end_has_not_settled() -> None:
    warming = 5 * (1 - np.exp(-TIME / 600)) + 0.3 * noise(1)
    walking = 0.2 * np.cumsum(noise(2))
    swinging = np.sin(TIME / 12) + 0.3 * noise(3)
    constant, level = np.full(len(TIME), 7.0), noise(4) + 1000
    found = unsettled(rows(warming, walking, swinging, constant, level))
    assert found.tolist() == [True, True, False, False, False]


def test_missing_readings_and_scale_decide_nothing() -> None:
    warming = 5 * (1 - np.exp(-TIME / 600)) + 0.3 * noise(1)
    table = rows(1e6 * warming, 1e-6 * noise(2), noise(3))
    table[::3, 0] = np.nan
    table[:, 2] = np.nan
    assert unsettled(table).tolist() == [True, False, False]


@pytest.mark.parametrize(("count", "after"), [(200, SHORTEST), (1200, 100), (9000, LONGEST)])
def test_a_change_lasts_a_twelfth_of_the_recording(count: int, after: int) -> None:
    ramp = np.linspace(0, 9, count)
    table = np.stack([ramp, ramp], axis=1).astype(np.float32)
    section = change_section(
        [table[: count // 2], table[count // 2 :]], [channel("a"), channel("b", True)], moving=True
    )
    assert section.after == after and section.rate == 3 / count
    assert section.follow == (pytest.approx(20 / count), 0.0)  # an input is not judged


def test_a_machine_that_ends_in_another_mode_has_settled() -> None:
    load = np.where(TIME < 500, 0.0, 1.0)
    table = rows(load, 30 * load + noise(1))
    load_channel, reading = channel("load", True), channel("reading")
    assert change_section([table], [load_channel, reading], moving=True).follow[1] > 0
    modal = (
        replace(load_channel, modes=(Place(0.0, 0.5), Place(1.0, 0.5))),
        replace(reading, modes=(Place(0.0, 1.0), Place(30.0, 1.0))),
    )
    assert change_section([table], modal, moving=True).follow == (0.0, 0.0)
