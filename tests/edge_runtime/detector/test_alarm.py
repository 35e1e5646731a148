"""Debounce M of N, then hysteresis: an alarm neither chatters nor hides."""

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.detector.alarm import AlarmState, debounced, update_alarm

scores = st.lists(st.floats(0, 10, width=16), max_size=60)
counts = st.integers(1, 6).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n)))


def run(
    values: list[float], m: int = 2, n: int = 3, clear: float = 3.0, clear_after: int = 4
) -> list[bool]:
    """The alarm, score by score, with threshold 5."""
    state, found = AlarmState(), []
    for value in values:
        state = update_alarm(value, 5.0, clear, m, n, clear_after, state)
        found.append(state.active)
    return found


def test_m_of_n_scores_raise_the_alarm() -> None:
    assert run([9, 0, 0, 9, 0, 9]) == [False] * 5 + [True]


def test_one_score_alone_does_not() -> None:
    assert not any(run([9, 0, 0] * 20))


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    assert not any(run([5.0] * 20))


def test_the_alarm_clears_after_calm_samples_in_a_row() -> None:
    assert run([9, 9, 3, 3, 3, 3, 3]) == [False, True, True, True, True, False, False]


def test_one_score_above_the_clear_level_starts_the_count_again() -> None:
    assert run([9, 9, 3, 3, 3, 3.5, 3, 3, 3, 3]) == [False] + [True] * 8 + [False]


def test_between_clear_and_threshold_nothing_changes() -> None:
    assert run([4] * 10) == [False] * 10
    assert run([9, 9] + [4] * 20)[1:] == [True] * 21


@given(scores, counts)
def test_the_alarm_rises_exactly_when_the_mth_largest_of_n_exceeds(
    values: list[float], count: tuple[int, int]
) -> None:
    m, n = count
    found = run(values, m, n, clear=5.0, clear_after=1)
    for i, active in enumerate(found):
        window = values[max(i - n + 1, 0) : i + 1]
        rises = sum(value > 5 for value in window) >= m
        assert rises == (len(window) >= m and sorted(window)[-m] > 5)
        assert rises == (debounced(tuple(window), m) > 5)
        if rises:
            assert active
        elif not found[i - 1] or i == 0:
            assert not active


@given(scores, counts, st.integers(1, 8))
def test_an_alarm_ends_only_after_enough_calm(
    values: list[float], count: tuple[int, int], clear_after: int
) -> None:
    found = run(values, *count, clear=3.0, clear_after=clear_after)
    for i in range(1, len(found)):
        if found[i - 1] and not found[i]:
            assert all(value <= 3 for value in values[i - clear_after + 1 : i + 1])


@given(scores, counts)
def test_the_state_keeps_no_more_than_it_needs(values: list[float], count: tuple[int, int]) -> None:
    m, n = count
    state = AlarmState()
    for value in values:
        state = update_alarm(value, 5.0, 3.0, m, n, 4, state)
        assert len(state.recent) <= n - 1
