"""Operating modes: the settings say which, and the other readings are seen in it."""

from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.bundle.manifest import Channel, Place
from edge_runtime.detector.cell import build_model
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.inputs import channel_scaler, in_mode, restored, standardise
from edge_runtime.detector.interpreter import NoGraph
from edge_runtime.detector.step import initial_state, step
from edge_runtime.record import Flag, Sample
from tests.edge_runtime.made_manifest import NAMES, channel, made_manifest

# Load 20 or 80, each known within 10; the flow stands at 100 ± 5 or 300 ± 20 then.
LOAD = replace(
    channel("load", exogenous=True), center=50.0, scale=30.0,
    modes=(Place(20.0, 10.0), Place(80.0, 10.0)),
)  # fmt: skip
FLOW = replace(
    channel("flow"), center=200.0, scale=100.0, modes=(Place(100.0, 5.0), Place(300.0, 20.0))
)
WEATHER = replace(channel("weather", exogenous=True), center=10.0, scale=5.0)  # tells nothing
CHANNELS: tuple[Channel, ...] = (LOAD, FLOW, WEATHER)
SCALER = channel_scaler(CHANNELS)


def seen(*values: float) -> tuple[list[float], bool]:
    """Standardised readings, NaN where unusable, and whether the mode is known."""
    row = np.array(values, np.float32)
    found = in_mode(row, np.isfinite(row), SCALER)
    standard = standardise(row, found.mask, found.scaler)
    return np.where(found.mask, standard, np.nan).tolist(), bool(found.known)


def test_a_reading_is_relative_to_its_mode_and_a_setting_to_all() -> None:
    assert seen(20, 110, 15) == ([-1.0, 2.0, 1.0], True)
    assert seen(80, 260, 15) == ([1.0, -2.0, 1.0], True)
    assert seen(89, 300, 10)[1] and seen(90, 300, 10)[1]


@pytest.mark.parametrize("load", [35.0, 90.5, -1e9, np.nan])
def test_in_an_unknown_mode_only_settings_are_usable(load: float) -> None:
    (_, flow, weather), known = seen(load, 100, 15)
    assert np.isnan(flow) and weather == 1 and not known


def test_a_channel_that_tells_no_modes_apart_may_be_anything() -> None:
    assert seen(20, 100, 1e6)[1] and seen(20, 100, np.nan)[1]


def test_rows_are_seen_as_samples_are() -> None:
    rows = np.array([[20, 110, 0], [80, 260, 5], [50, 260, 5], [np.nan, 1, 1]], np.float32)
    mask = np.isfinite(rows)
    whole = in_mode(rows, mask, SCALER)
    for i, row in enumerate(rows):
        alone = in_mode(row, mask[i], SCALER)
        np.testing.assert_array_equal(alone.mask, whole.mask[i])
        np.testing.assert_array_equal(alone.scaler.center, whole.scaler.center[i])
        np.testing.assert_array_equal(alone.scaler.scale, whole.scaler.scale[i])
        assert alone.known == whole.known[i]


def test_readings_come_back_from_their_mode() -> None:
    rng = np.random.default_rng(0)
    load = rng.choice([20.0, 80.0], 200) + rng.uniform(-9, 9, 200)
    rows = np.stack([load, rng.normal(200, 50, 200), rng.normal(size=200)], 1).astype(np.float32)
    found = in_mode(rows, np.isfinite(rows), SCALER)
    standard = standardise(rows, found.mask, found.scaler)
    np.testing.assert_allclose(restored(standard, found.mask, SCALER), rows, rtol=1e-5, atol=1e-4)


def test_without_modes_nothing_is_looked_for() -> None:
    scaler = channel_scaler(tuple(replace(c, modes=()) for c in CHANNELS))
    mask = np.array([False, True, True])
    found = in_mode(np.array([35, 100, 1], np.float32), mask, scaler)
    assert scaler.modes is None and found.scaler is scaler and found.mask is mask and found.known


def test_an_unknown_mode_is_flagged_and_not_judged() -> None:
    known = replace(LOAD, name=NAMES[0]), replace(FLOW, name=NAMES[1]), channel(NAMES[2])
    third = replace(known[2], modes=(Place(0.0, 1.0), Place(0.0, 1.0)))
    thresholds = {"host-float32": made_manifest().thresholds["tflite-builtin"]}
    manifest = made_manifest(channels=(*known[:2], third), thresholds=thresholds)
    model, fallback = build_model(manifest, NoGraph(), "0" * 12), Fallback(manifest, "0" * 12)
    state, records, scores = initial_state(model), [], []
    rows = [(20, 100, 0)] * 120 + [(80, 300, 0), (50, 300, 0), (50, 900, 9), (20, 100, 0)]
    for index, row in enumerate(rows):
        sample = Sample(index, None, np.array(row, np.float32))
        record, state, traces = step(model, sample, state, fallback.step(sample))
        records.append(record)
        scores.append(traces.score)
        assert traces.measured == (row[0] != 50)
    flagged = [i for i, record in enumerate(records) if Flag.UNKNOWN_MODE in record.flags]
    assert flagged == [121, 122]
    assert scores[120] == scores[121] == scores[122]
    assert records[122].masked == NAMES[1:]
    assert records[120].alarm == records[121].alarm == records[122].alarm
