"""Which readings of a recording are usable: whole channels at once, as sample by sample."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_runtime.detector.inputs import ValidityRules, check_validity, initial_validity
from edge_runtime.learning.prepare import usable_readings
from edge_runtime.record import Float32

READINGS = st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.0, 5.0, -9.0, np.nan, np.inf, -np.inf, 2.0**120])
LIMITS = arrays(np.float32, 3, elements=st.sampled_from([1.0, 2.0, 4.0, np.inf]))


@given(
    arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=READINGS),
    st.tuples(LIMITS, LIMITS, LIMITS, LIMITS),
    st.booleans(),
)
def test_a_recording_at_once_is_checked_as_sample_by_sample(
    rows: Float32, limits: tuple[Float32, ...], none: bool
) -> None:
    low, high, step, stuck = limits
    off = np.full(3, np.inf, np.float32)
    rules = ValidityRules(*((-off, off, off, off) if none else (-low, high, step, stuck)), none)
    state = initial_validity(3)
    for row, found in zip(rows, usable_readings(rows, rules), strict=True):
        usable, state = check_validity(row, rules, state)
        assert found.tolist() == usable.tolist()
