"""Raw readings become centred, scaled and bounded; what is not usable becomes 0."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from made_manifest import channel

from edge_runtime.detector.inputs import VALUE_CLIP, channel_scaler, standardise

SCALER = channel_scaler(
    (
        replace(channel("flow"), center=20.0, scale=5.0),
        replace(channel("heat"), center=-3.0, scale=0.25),
    )
)
BOTH = np.ones(2, bool)


def test_centre_and_scale_are_the_channels() -> None:
    found = standardise(np.array([30, -3.5], np.float32), BOTH, SCALER)
    assert found.tolist() == [2.0, -2.0] and found.dtype == np.float32


def test_rows_are_standardised_as_samples_are() -> None:
    rows = np.array([[30, -3.5], [20, -3]], np.float32)
    mask = np.array([[True, False], [True, True]])
    alone = [standardise(row, ok, SCALER) for row, ok in zip(rows, mask, strict=True)]
    np.testing.assert_array_equal(standardise(rows, mask, SCALER), alone)
    assert alone[0].tolist() == [2.0, 0.0]


def test_far_readings_are_clipped_on_their_own_side() -> None:
    found = standardise(np.array([1e9, -1e9], np.float32), BOTH, SCALER)
    assert found.tolist() == [VALUE_CLIP, -VALUE_CLIP]


@given(
    hnp.arrays(np.float32, 2, elements=st.floats(width=32)),
    hnp.arrays(bool, 2),
)
def test_the_result_is_finite_whatever_a_masked_reading_holds(
    values: np.ndarray, mask: np.ndarray
) -> None:
    mask = mask & np.isfinite(values)
    with np.errstate(over="ignore"):  # beyond float32 is beyond the clip
        found = standardise(values, mask, SCALER)
    assert np.isfinite(found).all() and (np.abs(found) <= VALUE_CLIP).all()
    assert (found[~mask] == 0).all()
