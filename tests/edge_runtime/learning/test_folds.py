"""Folds: every row in exactly one, in time order, and no piece across the end of a recording."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.learning.linear import FOLDS, cut_folds

lengths = st.lists(st.integers(0, 60), min_size=1, max_size=8)
counts = st.integers(1, 12)


def numbered(rows: list[int]) -> list[np.ndarray]:
    """Recordings whose rows say which recording they are of, and which row over all they are."""
    starts = np.cumsum([0, *rows])
    return [
        np.stack([np.full(n, number), np.arange(start, start + n)], axis=1).astype(np.float32)
        for number, (n, start) in enumerate(zip(rows, starts, strict=False))
    ]


@given(rows=lengths, folds=counts)
def test_nothing_is_lost_and_the_order_is_kept(rows: list[int], folds: int) -> None:
    recordings = numbered(rows)
    cut = cut_folds(recordings, folds)
    assert len(cut) == folds
    pieces = [piece for fold in cut for piece in fold]
    joined = np.concatenate([np.zeros((0, 2), np.float32), *pieces])
    np.testing.assert_array_equal(joined, np.concatenate(recordings))


@given(rows=lengths, folds=counts)
def test_no_piece_is_empty_or_reaches_over_a_recordings_end(rows: list[int], folds: int) -> None:
    for fold in cut_folds(numbered(rows), folds):
        for piece in fold:
            assert len(piece) and len(set(piece[:, 0])) == 1
            assert (np.diff(piece[:, 1]) == 1).all()


@given(rows=lengths, folds=counts)
def test_a_fold_is_cut_only_where_a_recording_ends(rows: list[int], folds: int) -> None:
    for fold in cut_folds(numbered(rows), folds):
        for piece, following in pairwise(fold):
            assert following[0, 0] > piece[0, 0] and following[0, 1] == piece[-1, 1] + 1


@given(rows=lengths, folds=counts)
def test_folds_are_of_equal_length(rows: list[int], folds: int) -> None:
    sizes = [sum(map(len, fold)) for fold in cut_folds(numbered(rows), folds)]
    assert max(sizes) - min(sizes) <= 1


@given(rows=lengths, folds=counts)
def test_values_and_masks_are_cut_alike(rows: list[int], folds: int) -> None:
    recordings = numbered(rows)
    wide = cut_folds([np.repeat(r, 2, axis=1) for r in recordings], folds)
    for fold, other in zip(cut_folds(recordings, folds), wide, strict=True):
        assert [len(piece) for piece in fold] == [len(piece) for piece in other]


def test_five_folds_by_hand() -> None:
    cut = cut_folds(numbered([15, 5]))
    assert len(cut) == FOLDS == 5
    assert [[list(piece[:, 1]) for piece in fold] for fold in cut[2:]] == [
        [[8, 9, 10, 11]], [[12, 13, 14], [15]], [[16, 17, 18, 19]]
    ]  # fmt: skip


@pytest.mark.parametrize("folds", [1, 3])
def test_recordings_without_rows_leave_no_trace(folds: int) -> None:
    assert cut_folds(numbered([0, 0]), folds) == [[] for _ in range(folds)]
