"""The split: parts in time order, apart by the gap, clean where something is learned from them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_runtime.errors import GruardError
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.split import PARTS, Split, clean_parts, labelled_parts, split_by_time


def numbered(rows: int, first: int = 0, labels: np.ndarray | None = None) -> Recording:
    """A recording whose only channel counts the rows, so that every row can be told apart."""
    values = np.arange(first, first + rows, dtype=np.float32)[:, None]
    return Recording(f"from{first}.csv", ("x",), None, values, labels, None)


def consecutive(lengths: list[int]) -> list[Recording]:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return [numbered(rows, int(start)) for rows, start in zip(lengths, starts, strict=False)]


def rows_of(split: Split, part: str) -> list[int]:
    return [int(row) for recording in getattr(split, part) for row in recording.values[:, 0]]


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=7),
    gap=st.integers(0, 20),
)
def test_parts_follow_one_another_and_keep_the_gap(lengths: list[int], gap: int) -> None:
    assume(sum(lengths) > 10 * (gap + 2))
    split = split_by_time(consecutive(lengths), gap=gap)
    parts = [rows_of(split, part) for part in PARTS]
    assert parts[0][0] == 0 and parts[-1][-1] == sum(lengths) - 1
    for part in parts:
        assert part == list(range(part[0], part[-1] + 1))
    for earlier, later in pairwise(parts):
        assert later[0] - earlier[-1] == gap + 1


def test_fractions_are_of_the_rows() -> None:
    split = split_by_time([numbered(1000)], gap=0)
    assert [len(rows_of(split, part)) for part in PARTS] == [600, 100, 200, 100]
    assert split.calibrate[0].first_row == 700


@given(lengths=st.lists(st.integers(90, 110), min_size=10, max_size=30))
def test_many_recordings_stay_whole(lengths: list[int]) -> None:
    recordings = consecutive(lengths)
    split = split_by_time(recordings)
    assert [r for part in PARTS for r in getattr(split, part)] == recordings
    assert all(getattr(split, part) for part in PARTS)


def test_one_long_recording_among_many_is_cut() -> None:
    split = split_by_time(consecutive([5000] + [1] * 9), gap=10)
    assert all(rows_of(split, part) for part in PARTS)


def test_given_parts_are_taken_as_they_are() -> None:
    own_calibrate, own_test = numbered(50, 5000), numbered(40, 6000)
    split = split_by_time([numbered(700)], gap=0, calibrate=[own_calibrate], test=[own_test])
    assert (split.calibrate, split.test) == ((own_calibrate,), (own_test,))
    assert [len(rows_of(split, part)) for part in ("train", "validate")] == [600, 100]


labelled = st.lists(st.integers(0, 1), min_size=1, max_size=200)


@given(labels=labelled, margin=st.integers(0, 10))
def test_clean_parts_hold_every_row_far_from_an_anomaly(labels: list[int], margin: int) -> None:
    recording = numbered(len(labels), labels=np.array(labels, np.int8))
    parts = clean_parts(recording, margin)
    kept = [int(row) for part in parts for row in part.values[:, 0]]
    bad = np.flatnonzero(labels)
    assert kept == [
        row for row in range(len(labels)) if not len(bad) or np.abs(bad - row).min() > margin
    ]
    assert all(part.first_row == part.values[0, 0] for part in parts)
    assert all(
        later.first_row > earlier.first_row + earlier.rows for earlier, later in pairwise(parts)
    )


def test_anomalies_reach_the_test_only() -> None:
    labels = np.zeros(1000, np.int8)
    labels[[100, 650, 800, 950]] = 1
    split = split_by_time([numbered(1000, labels=labels)], gap=0, margin=10)
    for part in ("train", "validate", "calibrate"):
        assert not any(r.labels is None or r.labels.any() for r in getattr(split, part))
    assert len(split.train) == 2
    assert rows_of(split, "test") == list(range(900, 1000))
    assert split.test[0].labels is not None and split.test[0].labels.sum() == 1


@given(labels=labelled, margin=st.integers(0, 10))
def test_labelled_parts_hold_every_other_row(labels: list[int], margin: int) -> None:
    recording = numbered(len(labels), labels=np.array(labels, np.int8))
    parts = labelled_parts(recording, margin)
    clean = [row for part in clean_parts(recording, margin) for row in part.values[:, 0]]
    others = [row for part in parts for row in part.values[:, 0]]
    assert sorted([*clean, *others]) == list(range(len(labels)))
    assert all(part.labels is not None and part.labels.any() for part in parts)
    assert all(part.first_row == part.values[0, 0] for part in parts)
    assert labelled_parts(numbered(50), margin) == ()


def test_only_events_of_the_training_part_are_kept_to_learn_from() -> None:
    labels = np.zeros(1000, np.int8)
    labels[[100, 599, 620, 650, 800, 950]] = 1
    split = split_by_time([numbered(1000, labels=labels)], gap=30, margin=10)
    assert rows_of(split, "labelled") == [*range(90, 111), *range(589, 600)]
    assert [piece.labels.sum() for piece in split.labelled if piece.labels is not None] == [1, 1]
    given = numbered(100, 5000, labels=labels[50:150])
    split = split_by_time([numbered(1000)], gap=0, margin=5, calibrate=[given], test=[given])
    assert split.labelled == ()


def test_whole_recordings_keep_their_events_to_themselves() -> None:
    labels = np.zeros(100, np.int8)
    labels[50] = 1
    recordings = [numbered(100, 100 * i, labels) for i in range(10)]
    split = split_by_time(recordings, gap=0, margin=5)
    trained = {row // 100 for row in rows_of(split, "train")}
    assert [r.first_row for r in split.labelled] == [45] * len(trained)
    assert {row // 100 for row in rows_of(split, "labelled")} == trained < set(range(10))


def test_given_calibration_rows_are_cleaned_too() -> None:
    labels = np.zeros(100, np.int8)
    labels[50] = 1
    split = split_by_time(
        [numbered(1000)], gap=0, margin=5, calibrate=[numbered(100, labels=labels)]
    )
    assert [r.rows for r in split.calibrate] == [45, 44]


@pytest.mark.parametrize("anomalous", [slice(700, 900), slice(0, 700), slice(500, None)])
def test_where_anomalies_fill_a_part_the_clean_rows_are_divided(anomalous: slice) -> None:
    labels = np.zeros(1000, np.int8)
    labels[anomalous] = 1
    split = split_by_time([numbered(1000, labels=labels)], gap=0, margin=5)
    clean = [r for part in PARTS for r in rows_of(split, part)]
    assert clean == sorted(set(clean)) and not labels[clean].any()
    assert {row for row in range(1000) if row not in clean} == set(rows_of(split, "labelled"))
    assert len(rows_of(split, "train")) == pytest.approx(0.6 * len(clean), abs=1)


def test_a_part_without_clean_rows_is_refused() -> None:
    with pytest.raises(
        GruardError, match=r"left to validate: 100 of 100 rows .* 50 rows between two"
    ):
        split_by_time([numbered(100)], gap=50)
    with pytest.raises(GruardError, match="left to train: 0 of 90 rows are clean"):
        split_by_time([numbered(90, labels=np.ones(90, np.int8))], gap=0)
    with pytest.raises(GruardError, match="no clean rows are left to calibrate"):
        split_by_time([numbered(900)], gap=0, calibrate=[numbered(9, labels=np.ones(9, np.int8))])
