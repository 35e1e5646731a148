"""Common units of the assets of a type: gains and offsets are found from all channels together."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.bundle.manifest import Channel, Place
from edge_runtime.learning.prepare import standard_rows
from edge_runtime.record import Float32
from fleet.alignment import Alignment, Moments, aligned, fit_alignment, moments_of

NAMES = ("setting", "follows", "alone")
EXOGENOUS = np.array([True, False, False])
CHANNELS = tuple(
    Channel(name, "", 10.0, 2.0, None, None, None, None, name == "setting") for name in NAMES
)


def usual_rows(rows: int, seed: int) -> Float32:
    """Rows of the usual asset: a setting, a channel that follows it closely, and noise."""
    noise = np.random.default_rng(seed).standard_normal((rows, 3))
    setting = noise[:, 0]
    return (10 + 2 * np.stack([setting, setting + 0.1 * noise[:, 1], noise[:, 2]], axis=1)).astype(
        np.float32
    )


def sensed(rows: Float32, gain: float, offset: float) -> Float32:
    """The rows as the sensor of the second channel shows them."""
    found = rows.copy()
    found[:, 1] = 10 + gain * (rows[:, 1] - 10) + offset
    return found


def moments(rows: Float32) -> Moments:
    found = moments_of(standard_rows([rows], CHANNELS, None))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def alignment() -> Alignment:
    """Of twelve assets whose second sensors differ."""
    rng = np.random.default_rng(0)
    return fit_alignment(
        [
            moments(sensed(usual_rows(4000, seed), np.exp(rng.normal(0, 0.1)), rng.normal()))
            for seed in range(12)
        ],
        EXOGENOUS,
    )


@settings(max_examples=20, deadline=None)
@given(st.floats(0.8, 1.25), st.floats(-2, 2), st.integers(0, 100))
def test_rows_of_an_asset_become_rows_of_its_type(gain: float, offset: float, seed: int) -> None:
    differing = [sensed(usual_rows(4000, n), 1 + n / 20, n - 2.0) for n in range(5)]
    alignment = fit_alignment([moments(rows) for rows in differing], EXOGENOUS)
    rows = usual_rows(4000, 1000 + seed)
    own, usual = (
        standard_rows([each], aligned(CHANNELS, moments(each), alignment), None).values[0]
        for each in (sensed(rows, gain, offset), rows)
    )
    assert np.sqrt(np.square(own - usual).mean(axis=0)).max() < 0.1, "in channel scales"
    assert (own[:, 0] == usual[:, 0]).all(), "a setting is the same for all assets"


def test_a_gain_is_found_by_the_relation_not_by_the_load(alignment: Alignment) -> None:
    rows = usual_rows(3000, 77)
    calm = (10 + (rows - 10) * np.array([0.3, 0.3, 1], np.float32)).astype(np.float32)
    gentle = aligned(CHANNELS, moments(calm), alignment)
    assert gentle[1].scale == pytest.approx(2.0, rel=0.1), "another load, the same sensor"


def test_what_differs_is_measured_and_what_does_not_stays(alignment: Alignment) -> None:
    assert alignment.gains[1] == pytest.approx(0.01, rel=0.9) and alignment.gains[0] == 0
    assert alignment.gains[2] < 0.002 and alignment.offsets[2] < 0.02
    assert alignment.offsets[1] == pytest.approx(0.25, rel=0.9) and alignment.offsets[0] == 0


def test_an_asset_with_few_rows_is_taken_for_usual(alignment: Alignment) -> None:
    rows = sensed(usual_rows(2000, 5), 1.3, 3.0)
    few = aligned(CHANNELS, moments(rows[:5]), alignment)
    many = aligned(CHANNELS, moments(rows), alignment)
    assert abs(few[1].scale - 2.0) < 0.3 < many[1].scale - 2.0
    assert abs(few[1].center - 10) < abs(many[1].center - 10)


def test_places_of_operating_modes_move_with_their_channel(alignment: Alignment) -> None:
    places = (Place(10.0, 2.0), Place(50.0, 4.0))
    channels = (CHANNELS[0], replace(CHANNELS[1], modes=places), CHANNELS[2])
    found = aligned(channels, moments(sensed(usual_rows(2000, 9), 1.2, 2.0)), alignment)[1]
    assert (found.center, found.scale) == (found.modes[0].center, found.modes[0].scale)
    assert found.modes[1].scale == pytest.approx(2 * found.scale)
    assert found.modes[1].center - 50 == pytest.approx(2 * (found.center - 10), abs=1e-4)


def test_rows_without_all_readings_say_nothing() -> None:
    rows = usual_rows(50, 1)
    rows[3:, 1] = np.nan
    assert moments_of(standard_rows([rows], CHANNELS, None)) is None


def test_a_channel_that_stands_still_says_nothing_about_its_gain(alignment: Alignment) -> None:
    still, dead = usual_rows(2000, 3), usual_rows(2000, 4)
    still[:, 1] = 11.0
    assert aligned(CHANNELS, moments(still), alignment)[1].scale == 2.0
    dead[:, 2] = 10.0
    known = fit_alignment([moments(dead)] * 3, EXOGENOUS)
    assert aligned(CHANNELS, moments(usual_rows(2000, 5)), known)[2] == CHANNELS[2]
