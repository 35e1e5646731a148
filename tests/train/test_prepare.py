"""Preparation: training sees exactly what the runtime will see, and data is known by its values."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bundle.manifest import Channel
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.step import initial_state, step
from edge_runtime.learning.prepare import describe_channels, fingerprint, standard_rows
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.run import Run
from edge_runtime.learning.settings import ChannelSettings, Settings
from edge_runtime.record import Sample


def faulty(rows: np.ndarray) -> np.ndarray:
    """Holes, infinities, readings out of range, an impossible jump and a stuck channel."""
    rows = rows.copy()
    rows[20:24, 0] = np.nan
    rows[30, 1], rows[31, 2] = np.inf, -np.inf
    rows[40:43, 1] = 1000.0
    rows[50, 1] += 45.0
    rows[60:90, 2] = rows[60, 2]
    rows[100:105] = np.nan
    return rows


def test_training_sees_row_by_row_what_the_runtime_sees(tiny_run: Run, tiny_bundle: Path) -> None:
    recordings = [faulty(tiny_run.rows["test"][0]), tiny_run.rows["validate"][0][::-1]]
    channels, period = tiny_run.config.channels, tiny_run.config.period
    prepared = standard_rows(recordings, channels, period)
    assert 0 < prepared.masks[0].mean() < 1
    bundle = read_bundle(tiny_bundle)
    detector = Detector(bundle)
    for rows, values, masks in zip(recordings, prepared.values, prepared.masks, strict=True):
        state, fallback = initial_state(detector.model), Fallback(bundle.manifest, "")
        for index, row in enumerate(rows):
            sample = Sample(index, None, row)
            _, state, traces = step(detector.model, sample, state, fallback.step(sample))
            np.testing.assert_array_equal(values[index], traces.value)
            np.testing.assert_array_equal(masks[index], traces.mask)


def test_each_rule_masks_what_it_should(tiny_run: Run) -> None:
    rows = faulty(tiny_run.rows["test"][0])
    channels, period = tiny_run.config.channels, tiny_run.config.period
    mask = standard_rows([rows], channels, period).masks[0]
    assert not mask[20:24, 0].any() and not mask[100:105].any()
    assert not mask[30, 1] and not mask[31, 2] and not mask[40:43, 1].any() and not mask[50, 1]
    stuck = channels[2].stuck_after
    assert stuck and mask[61 : 60 + stuck, 2].all() and not mask[60 + stuck : 90, 2].any()
    lax = tuple(replace(c, low=None, high=None, max_rate=None, stuck_after=None) for c in channels)
    np.testing.assert_array_equal(standard_rows([rows], lax, period).masks[0], np.isfinite(rows))


def test_recordings_do_not_see_one_another() -> None:
    channel = Channel("x", "", 0.0, 1.0, None, None, 1.0, 3, False)
    rows = np.zeros((3, 1), np.float32)
    far = rows + 50
    assert standard_rows([rows, far], (channel,), 1.0).masks[1].all()
    joined = standard_rows([np.concatenate([rows, far])], (channel,), 1.0).masks[0]
    assert not joined[3:].all()


def recording(values: np.ndarray, channels: tuple[str, ...] = ("a", "b")) -> Recording:
    return Recording("x.csv", channels, None, values.astype(np.float32), None, None)


def test_channels_carry_the_scaler_of_the_training_rows_and_their_settings() -> None:
    values = np.random.default_rng(0).normal([5, -3], [2, 0.5], (4000, 2))
    rules = ChannelSettings("bar", -1.0, 9.0, 2.0, 7, True)
    settings = Settings(None, {"a": rules, "b": ChannelSettings()})
    a, b = describe_channels([recording(values)], settings)
    assert (a.unit, a.low, a.high, a.max_rate, a.stuck_after, a.exogenous) == (
        "bar", -1.0, 9.0, 2.0, 7, True,
    )  # fmt: skip
    assert (b.low, b.high, b.max_rate, b.stuck_after, b.exogenous) == (None,) * 4 + (False,)
    assert (a.center, a.scale) == pytest.approx((5, 2), rel=0.05)
    assert (b.center, b.scale) == pytest.approx((-3, 0.5), rel=0.05)


@given(row=st.integers(0, 19), column=st.integers(0, 1), bit=st.integers(0, 31))
def test_the_fingerprint_changes_with_any_bit_of_any_value(row: int, column: int, bit: int) -> None:
    values = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    changed = values.copy()
    changed.view(np.uint32)[row, column] ^= np.uint32(1 << bit)
    assert fingerprint([recording(values)]) == fingerprint([recording(values.copy())])
    assert fingerprint([recording(values)]) != fingerprint([recording(changed)])


def test_the_fingerprint_knows_names_order_and_number_of_recordings() -> None:
    values = np.arange(40.0).reshape(20, 2)
    whole, first, last = recording(values), recording(values[:9]), recording(values[9:])
    renamed = recording(values, ("a", "c"))
    found = [[whole], [renamed], [first, last], [last, first], [whole, whole], [first]]
    assert len({fingerprint(recordings) for recordings in found}) == len(found)
