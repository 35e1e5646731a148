"""Fault injection: touches what it labels and nothing else, and does to it what its kind says."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.learning.faults import ALL, SIZED, Fault, FaultyWindow, inject

WINDOW = np.random.default_rng(0).normal(size=(128, 6)).astype(np.float32)
EXOGENOUS = np.array([True, False, False, True, False, False])

subsets = st.lists(st.sampled_from(ALL), min_size=1, unique=True)


def one(kind: Fault, seed: int = 0, **options: object) -> FaultyWindow:
    rng = np.random.default_rng(seed)
    return inject(WINDOW, rng, kinds=[kind], events=(1, 1), **options)  # type: ignore[arg-type]


@given(seed=st.integers(0, 2**32), kinds=subsets, most=st.integers(0, 6), spaced=st.booleans())
def test_only_labelled_cells_are_touched(
    seed: int, kinds: list[Fault], most: int, spaced: bool
) -> None:
    before = WINDOW.copy()
    result = inject(
        WINDOW,
        np.random.default_rng(seed),
        kinds=kinds,
        events=(0, most),
        exogenous=EXOGENOUS,
        first=8,
        spaced=spaced,
    )
    np.testing.assert_array_equal(WINDOW, before)
    clean = result.labels == 0
    np.testing.assert_array_equal(result.values[clean], WINDOW[clean])
    assert (result.mask[clean] == 1).all()
    assert (result.values[result.mask == 0] == 0).all()
    assert clean[:8].all() and clean[:, EXOGENOUS].all()
    assert (result.values.dtype, result.mask.dtype) == (np.float32, np.float32)
    assert result.labels.dtype == np.uint8
    assert len(result.events) <= most
    assert {event.kind for event in result.events} <= set(kinds)
    labelled = np.zeros_like(clean)
    for event in result.events:
        labelled[event.start : event.stop, event.channels] = True
    np.testing.assert_array_equal(labelled, ~clean)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 20))
def test_spaced_faults_never_meet(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    events = inject(WINDOW, rng, events=(count, count), spaced=True).events
    assert len(events) == count
    for earlier, later in pairwise(events):
        assert earlier.start < earlier.stop < later.start < later.stop


@pytest.mark.parametrize("kind", ALL)
def test_each_kind_is_reproducible_and_visible(kind: Fault) -> None:
    first, second = one(kind, seed=3), one(kind, seed=3)
    assert first.events == second.events
    np.testing.assert_array_equal(first.values, second.values)
    (event,) = first.events
    stretch = np.s_[event.start : event.stop, event.channels]
    assert (first.labels[stretch] == kind).all()
    assert (first.values[stretch] != WINDOW[stretch]).any()
    assert (event.amplitude != 0) == (kind in SIZED)


@given(seed=st.integers(0, 2**32))
def test_what_each_kind_does(seed: int) -> None:
    scale = np.arange(1, 7, dtype=np.float32)
    done = {kind: one(kind, seed, scale=scale, sizes=(2.0, 3.0)) for kind in ALL}
    change, size, length = {}, {}, {}
    for kind, result in done.items():
        (event,) = result.events
        channel = event.channels[0]
        change[kind] = (result.values - WINDOW)[event.start : event.stop, channel]
        size[kind] = event.amplitude * scale[channel]
        length[kind] = event.stop - event.start
    assert 1 <= length[Fault.SPIKE] <= 3
    assert all(2 <= abs(done[kind].events[0].amplitude) <= 3 for kind in SIZED)
    np.testing.assert_allclose(change[Fault.SPIKE], size[Fault.SPIKE], rtol=1e-4)
    np.testing.assert_allclose(change[Fault.LEVEL], size[Fault.LEVEL], rtol=1e-4)
    ramp = np.arange(1, length[Fault.DRIFT] + 1) / length[Fault.DRIFT]
    np.testing.assert_allclose(change[Fault.DRIFT], size[Fault.DRIFT] * ramp, atol=1e-4)
    assert np.abs(change[Fault.NOISE]).max() < 6 * abs(size[Fault.NOISE])


@given(seed=st.integers(0, 2**32))
def test_stuck_repeats_and_decorrelation_borrows(seed: int) -> None:
    stuck, borrowed = one(Fault.STUCK, seed), one(Fault.DECORRELATION, seed)
    (event,) = stuck.events
    held = stuck.values[event.start : event.stop, event.channels[0]]
    assert (held == WINDOW[event.start - 1, event.channels[0]]).all()
    (event,) = borrowed.events
    channel = event.channels[0]
    assert np.isin(borrowed.values[event.start : event.stop, channel], WINDOW[:, channel]).all()


def test_a_dropout_takes_one_channel_and_a_blackout_all_but_the_exogenous() -> None:
    dropout, blackout = one(Fault.DROPOUT), one(Fault.BLACKOUT, exogenous=EXOGENOUS)
    assert ((dropout.mask == 0).sum(axis=1) <= 1).all() and (dropout.mask == 0).any()
    (event,) = blackout.events
    assert event.channels == (1, 2, 4, 5)
    assert (blackout.mask[event.start : event.stop, 1:3] == 0).all()


def test_impossible_demands_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="every channel is exogenous"):
        inject(WINDOW, rng, exogenous=np.ones(6, bool))
    with pytest.raises(ValueError, match="do not fit into 128 rows"):
        inject(WINDOW, rng, first=128)
    with pytest.raises(ValueError, match="100 faults from row 1 on do not fit"):
        inject(WINDOW, rng, events=(100, 100), spaced=True)
