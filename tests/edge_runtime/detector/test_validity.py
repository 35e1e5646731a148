"""Which readings are usable: missing, out of range, impossibly fast and stuck ones are not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_manifest import channel

from edge_runtime.detector.inputs import check_validity, initial_validity, validity_rules

NAN, INF = float("nan"), float("inf")


def usable(readings: list[float], period: float | None = 1.0, **rules: float) -> list[bool]:
    """The mask of one channel, reading by reading."""
    vectors = validity_rules((channel("flow", **rules),), period)
    state, found = initial_validity(1), []
    for reading in readings:
        mask, state = check_validity(np.array([reading], np.float32), vectors, state)
        found.append(bool(mask[0]))
    return found


@pytest.mark.parametrize("reading", [NAN, INF, -INF])
def test_what_is_not_finite_is_not_usable(reading: float) -> None:
    assert usable([1.0, reading, 2.0]) == [True, False, True]


def test_both_limits_are_still_in_range() -> None:
    assert usable([-1.5, -1, 0, 4, 4.5], low=-1, high=4) == [False, True, True, True, False]


def test_without_rules_every_finite_reading_is_usable() -> None:
    assert all(usable([0.0, 1e29, -1e29, 1e-40, 0.0, 0.0, 0.0]))


def test_what_no_sensor_reads_is_not_usable() -> None:
    assert usable([1e30, -1e38, 2.0]) == [False, False, True]


def test_a_jump_is_believed_only_after_the_time_it_needs() -> None:
    # At most 2 units a second, a sample every half second: 10 units take 10 samples.
    found = usable([0.0] + [10.0] * 12, period=0.5, max_rate=2.0)
    assert found == [True] + [False] * 9 + [True] * 3


def test_a_spike_does_not_move_the_reference() -> None:
    assert usable([0, 100, 1, 2], max_rate=1.0) == [True, False, True, True]


def test_time_passes_for_the_rate_rule_while_readings_are_missing() -> None:
    assert usable([0, NAN, NAN, 3], max_rate=1.0) == [True, False, False, True]
    assert usable([0, NAN, 3], max_rate=1.0) == [True, False, False]


def test_the_first_reading_has_no_rate() -> None:
    assert usable([NAN, 1e6], max_rate=1.0) == [False, True]


def test_an_unknown_period_switches_the_rate_rule_off() -> None:
    assert usable([0, 1e6], period=None, max_rate=1.0) == [True, True]


def test_a_value_is_stuck_after_as_many_samples_without_any_change() -> None:
    assert usable([5.0] * 6, stuck_after=3) == [True] * 3 + [False] * 3


def test_a_missing_reading_neither_ends_nor_prolongs_being_stuck() -> None:
    found = usable([5, 5, NAN, 5, NAN, NAN, 5, 5], stuck_after=3)
    assert found == [True, True, False, True, False, False, False, False]


def test_the_smallest_change_ends_being_stuck() -> None:
    moved = float(np.nextafter(np.float32(5), np.float32(6)))
    assert usable([5, 5, 5, moved, moved], stuck_after=2) == [True, True, False, True, True]


def test_channels_are_judged_apart() -> None:
    rules = validity_rules((channel("a", high=1.0), channel("b")), 1.0)
    mask, _ = check_validity(np.array([5, 5], np.float32), rules, initial_validity(2))
    assert mask.tolist() == [False, True]


@given(
    st.lists(st.floats(width=32), max_size=60),
    st.integers(1, 5),
    st.floats(0.125, 1e6, width=32),
)
def test_a_usable_reading_keeps_every_rule(readings: list[float], stuck: int, rate: float) -> None:
    found = usable(readings, low=-100.0, high=100.0, stuck_after=stuck, max_rate=rate)
    for i, (reading, ok) in enumerate(zip(readings, found, strict=True)):
        if ok:
            assert -100 <= reading <= 100
            # A reading that another rule refused is none that could be stuck.
            repeats = i >= stuck and all(found[i - stuck : i])
            assert not repeats or len({*readings[i - stuck : i + 1]}) > 1


@given(st.lists(st.floats(width=32), min_size=1, max_size=30))
def test_the_state_is_a_value(readings: list[float]) -> None:
    rules = validity_rules((channel("a", max_rate=1.0, stuck_after=2),), 1.0)
    state = initial_validity(1)
    for reading in readings:
        values = np.array([reading], np.float32)
        before = [array.copy() for array in vars(state).values()]
        first, _ = check_validity(values, rules, state)
        second, following = check_validity(values, rules, state)
        assert first == second
        for old, now in zip(before, vars(state).values(), strict=True):
            np.testing.assert_array_equal(old, now)
        state = following
