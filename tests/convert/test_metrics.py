"""Figures of merit against their definitions, counted by hand or by brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert.metrics import agreement, auc, first_hits, intervals, rank_correlation

flags = st.lists(st.booleans(), max_size=60)


@given(rows=st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[int, bool]]) -> None:
    ones = [score for score, positive in rows if positive]
    zeros = [score for score, positive in rows if not positive]
    found = auc([score for score, _ in rows], [positive for _, positive in rows])
    if not ones or not zeros:
        assert np.isnan(found)
        return
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in ones for b in zeros]
    assert found == pytest.approx(np.mean(pairs))


def test_auc_of_a_perfect_a_useless_and_a_reversed_score() -> None:
    labels = [False, False, True, True]
    assert auc([1, 2, 3, 4], labels) == 1
    assert auc([7, 7, 7, 7], labels) == 0.5
    assert auc([4, 3, 2, 1], labels) == 0


def test_agreement_and_kappa_of_a_worked_example() -> None:
    # 50 samples: both yes 20, only a 5, only b 10, both no 15. Observed 0.7, by chance
    # 25/50 30/50 + 25/50 20/50 = 0.5, kappa (0.7 - 0.5) / (1 - 0.5) = 0.4 (Cohen 1960).
    assert agreement([[15, 10], [5, 20]]) == pytest.approx((0.7, 0.4))


def test_kappa_at_its_edges() -> None:
    assert agreement([[4, 0], [0, 0]]) == (1.0, 1.0) and agreement([[0, 0], [0, 4]]) == (1.0, 1.0)
    assert agreement([[2, 0], [0, 2]]) == (1.0, 1.0)
    assert agreement([[0, 2], [2, 0]]) == (0.0, -1.0)
    # Agreeing by chance alone is worth nothing, however high the share.
    assert agreement([[3, 0], [1, 0]]) == (0.75, 0.0)
    assert agreement([[0, 0], [4, 0]]) == (0.0, 0.0)
    assert np.isnan(agreement([[0, 0], [0, 0]])).all()


def test_rank_correlation_knows_order_only() -> None:
    x = np.arange(10.0)
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, -x) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(0.8)


@given(flags=flags)
def test_intervals_are_exactly_the_true_stretches(flags: list[bool]) -> None:
    found = intervals(np.array(flags, bool))
    painted = np.zeros(len(flags), bool)
    for start, stop in found:
        assert start < stop and not painted[start:stop].any()
        painted[start:stop] = True
        assert start == 0 or not flags[start - 1]
        assert stop == len(flags) or not flags[stop]
    assert painted.tolist() == flags


def test_first_hits_are_delays_or_misses() -> None:
    alarm = np.zeros(40, bool)
    alarm[[12, 13, 25, 39]] = True
    events = [(10, 20), (20, 24), (30, 35)]
    assert first_hits(alarm, events) == [2, None, None]
    assert first_hits(alarm, events, grace=2) == [2, 5, None]
    assert first_hits(alarm, events, grace=10) == [2, 5, 9]
    assert first_hits(alarm, [(12, 14)]) == [0] and first_hits(alarm, []) == []
