"""Batches: pure windows of one recording, each beside a twin that differs by its faults alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.learning.prepare import Rows
from train.batches import draw_batch, window_length

FREE = np.zeros(3, bool)
seeds = st.integers(0, 2**16)


def numbered(lengths: list[int]) -> Rows:
    """Recordings whose channels are recording number, row number and noise."""
    rng = np.random.default_rng(0)
    values = [
        np.stack([np.full(n, i), np.arange(n), rng.normal(size=n)], axis=1).astype(np.float32)
        for i, n in enumerate(lengths, 1)
    ]
    return Rows(tuple(values), tuple(np.ones_like(v) for v in values))


def with_holes(rows: Rows, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    masks = tuple((rng.random(v.shape) > 0.2).astype(np.float32) for v in rows.values)
    return Rows(tuple(v * m for v, m in zip(rows.values, masks, strict=True)), masks)


@given(lengths=st.lists(st.integers(16, 60), min_size=1, max_size=6), seed=seeds)
@settings(deadline=None)
def test_no_window_crosses_two_recordings(lengths: list[int], seed: int) -> None:
    clean = draw_batch(numbered(lengths), 16, 8, FREE, np.random.default_rng(seed))["clean"]
    assert clean.shape == (8, 16, 3)
    assert (clean[:, :, 0] == clean[:, :1, 0]).all()
    assert (np.diff(clean[:, :, 1], axis=1) == 1).all()


@given(seed=seeds)
@settings(deadline=None)
def test_the_twin_is_the_clean_window_where_nothing_is_labelled(seed: int) -> None:
    rows = with_holes(numbered([80, 50]), seed)
    batch = draw_batch(rows, 32, 6, np.array([True, False, False]), np.random.default_rng(seed))
    healthy = batch["fault"] == 0
    np.testing.assert_array_equal(batch["faulty"][healthy], batch["clean"][healthy])
    np.testing.assert_array_equal(batch["faulty_mask"][healthy], batch["clean_mask"][healthy])
    assert healthy[..., 0].all()
    assert {array.dtype for array in batch.values()} == {np.dtype(np.float32)}
    assert set(np.unique(batch["fault"])) <= {0.0, 1.0}


@given(seed=seeds)
@settings(deadline=None)
def test_readings_are_zero_where_they_are_missing(seed: int) -> None:
    rows = with_holes(numbered([80]), seed)
    batch = draw_batch(rows, 32, 6, FREE, np.random.default_rng(seed))
    assert not batch["clean"][batch["clean_mask"] == 0].any()
    assert not batch["faulty"][batch["faulty_mask"] == 0].any()
    assert (batch["faulty_mask"] <= batch["clean_mask"]).all()


def test_every_twin_has_a_fault_somewhere() -> None:
    batch = draw_batch(numbered([200]), 64, 50, FREE, np.random.default_rng(1))
    assert batch["fault"].any(axis=(1, 2)).all()
    differs = (batch["faulty"] != batch["clean"]).any(axis=(1, 2))
    assert differs.mean() > 0.9  # a sensor may be stuck at the very value it would have shown


def test_long_recordings_are_drawn_more_often_and_every_start_can_be_drawn() -> None:
    clean = draw_batch(numbered([16, 115]), 16, 3000, FREE, np.random.default_rng(2))["clean"]
    assert abs((clean[:, 0, 0] == 1).mean() - 1 / 101) < 0.01
    assert set(clean[clean[:, 0, 0] == 2][:, 0, 1]) == set(range(100))


def test_the_generator_decides_the_batch() -> None:
    first, again, other = (
        draw_batch(numbered([90]), 32, 4, FREE, np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    assert any(not np.array_equal(array, other[name]) for name, array in first.items())


@given(lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=5))
def test_a_window_fits_into_the_longest_recording(lengths: list[int]) -> None:
    rows = Rows(tuple(np.zeros((n, 1), np.float32) for n in lengths), ())
    length = window_length(rows)
    assert min(32, max(lengths)) <= length <= min(128, max(lengths))
    assert length in (32, 128, max(lengths), max(lengths) // 5)


def test_window_lengths_of_short_and_long_recordings() -> None:
    lengths = {20: 20, 100: 32, 300: 60, 640: 128, 9999: 128}
    for rows, expected in lengths.items():
        assert window_length(numbered([rows])) == expected


def test_recordings_shorter_than_a_window_are_left_out_with_their_masks() -> None:
    rows = with_holes(numbered([10, 40, 39]), 0).longer_than(40)
    assert [len(v) for v in rows.values] == [len(m) for m in rows.masks] == [40]
    assert rows.total == 40
