"""The sample clock: every way in which readings come wrongly, one by one and in any mixture."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.sources.sample_clock import (
    BACKWARDS,
    FIRST_PATIENCE,
    PATIENCE_SECONDS,
    Placement,
    SampleClock,
)

HOUR = 3600.0


def placed(
    times: Sequence[float | None], period: float | None = 1.0, live: bool = False
) -> list[Placement]:
    """Placements of readings that come when their own times say."""
    clock = SampleClock(period, live, 0.0)
    now, found = 0.0, []
    for time in times:
        now = now if time is None else max(now, time)
        found.append(clock.place(time, now))
    return found


def missing(times: Sequence[float | None], period: float | None = 1.0) -> list[int]:
    return [place.missing for place in placed(times, period)]


def troubles(times: Sequence[float | None]) -> list[object]:
    return [place.trouble for place in placed(times)]


def test_gaps_are_counted_by_the_sources_own_times() -> None:
    assert missing([0.0, 1.0, 4.0, 5.0]) == [0, 0, 2, 0]
    assert missing([0.0, 0.1, 0.24, 0.4], 0.1) == [0, 0, 0, 1]


def test_times_that_jitter_are_regular() -> None:
    times = [0.0, 1.4, 1.7, 3.2, 3.8, 5.4, 5.6]
    assert placed(times) == [Placement()] * len(times)


def test_rows_without_a_time_still_count_as_rows() -> None:
    assert missing([0.0, None, None, 3.0, None, 7.0]) == [0, 0, 0, 0, 0, 2]


def test_nothing_is_wrong_without_a_period() -> None:
    assert placed([0.0, 1e9, 5.0, 5.0], None) == [Placement()] * 4


def test_a_duplicate_is_no_sample() -> None:
    found = placed([0.0, 1.0, 1.0, 2.0])
    assert found[2] == Placement(accepted=False, trouble="duplicate")
    assert found[3] == Placement()


def test_a_reading_out_of_order_is_no_sample() -> None:
    found = placed([0.0, 1.0, 3.0, 2.0, 4.0])
    # Its index had its gap record by then.
    assert found[2:] == [
        Placement(1), Placement(accepted=False, trouble="out of order"), Placement()
    ]  # fmt: skip


def test_a_clock_that_was_put_back_is_followed() -> None:
    times = [*range(5000, 5020), *range(1420, 1430)]
    found = placed([float(time) for time in times])[20:]
    assert [place.trouble for place in found[:BACKWARDS]] == [
        "out of order", "out of order", "clock stepped"
    ]  # fmt: skip
    # The two that were left out by then get gap records.
    assert found[BACKWARDS - 1] == Placement(BACKWARDS - 1, trouble="clock stepped")
    assert found[BACKWARDS:] == [Placement()] * 7


def test_a_clock_that_was_put_forward_makes_no_hour_of_gaps() -> None:
    clock = SampleClock(1.0, True, 0.0)
    for now in range(20):
        assert clock.place(5000.0 + now, float(now)) == Placement()
    assert clock.place(5020.0 + HOUR, 20.0) == Placement(trouble="clock stepped")
    assert clock.place(5021.0 + HOUR, 21.0) == Placement()
    assert clock.troubles == {"clock stepped": 1}


def test_a_pause_of_a_live_source_is_a_gap_and_no_step() -> None:
    clock = SampleClock(1.0, True, 0.0)
    for now in range(20):
        clock.place(float(now), float(now))
    assert clock.place(50.0, 50.0) == Placement(30)


def test_a_recording_that_is_piped_in_keeps_its_gaps() -> None:
    clock = SampleClock(1.0, True, 0.0)
    for time in range(100):
        clock.place(float(time), 1e-3 * time)
    assert clock.place(HOUR, 0.1) == Placement(3500)


@pytest.mark.parametrize("factor", [2.0, 3.0, 1.25])
def test_a_source_that_is_too_fast_is_thinned_to_the_period(factor: float) -> None:
    found = placed([i / factor for i in range(600)])
    accepted = sum(place.accepted for place in found)
    assert abs(accepted - 600 / factor) <= 600 / factor * 0.06 + 3
    assert sum(place.missing for place in found) == 0
    assert {place.trouble for place in found} == {None, "too fast"}


def test_a_source_that_is_hardly_too_fast_is_not_thinned() -> None:
    assert troubles([i / 1.04 for i in range(600)]) == [None] * 600


def test_a_source_that_is_too_slow_has_gaps() -> None:
    assert missing([2.0 * i for i in range(50)]) == [0] + [1] * 49


def test_silence_of_a_live_source_owes_a_gap_record_for_each_period() -> None:
    clock = SampleClock(0.1, True, 0.0)
    for i in range(11):
        clock.place(0.1 * i, 0.1 * i)
    assert clock.silent(1.0 + PATIENCE_SECONDS - 0.01) == 0
    wait = clock.timeout(1.0)
    assert wait == pytest.approx(PATIENCE_SECONDS)
    assert clock.silent(1.0 + PATIENCE_SECONDS + 0.01) == 5
    assert clock.silent(1.0 + PATIENCE_SECONDS + 0.02) == 0
    assert clock.silent(1.0 + PATIENCE_SECONDS + 0.11) == 1
    # Six samples were answered for: what comes for them now is late, the next one is not.
    assert clock.place(1.3, 1.62) == Placement(accepted=False, trouble="late")
    assert clock.place(1.7, 1.70) == Placement()


def test_a_live_source_that_never_says_anything_is_answered_for() -> None:
    clock = SampleClock(0.1, True, 100.0)
    assert clock.timeout(100.0) == pytest.approx(FIRST_PATIENCE)
    assert clock.silent(100.0 + FIRST_PATIENCE - 0.01) == 0
    assert clock.silent(100.0 + FIRST_PATIENCE + 0.01) == 1
    assert clock.silent(100.0 + FIRST_PATIENCE + 0.11) == 1
    assert clock.place(7.0, 100.0 + FIRST_PATIENCE + 0.15) == Placement()


def test_a_file_is_never_silent() -> None:
    clock = SampleClock(1.0, False, 0.0)
    assert clock.timeout(0.0) is None and clock.silent(1e6) == 0


steps = st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.0, 1.0, 1.2, 2.0, 7.0, -1.0, -50.0, HOUR])


@given(st.lists(st.tuples(steps, st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0])), max_size=80))
def test_every_period_of_the_source_has_one_index(
    moves: list[tuple[float, float]],
) -> None:
    """By the source's own clock, between two of its steps, give or take one for jitter."""
    clock = SampleClock(1.0, True, 0.0)
    time = now = 0.0
    answered, last = 0, None  # samples since the accepted reading `last`
    for ahead, wait in moves:
        time, now = time + ahead, now + wait
        answered += clock.silent(now)
        place = clock.place(time, now)
        assert place.missing >= 0
        assert place.accepted or (place.missing == 0 and place.trouble)
        if place.accepted:
            if last is not None and place.trouble is None:
                assert answered + place.missing + 1 >= round(time - last) - 1
                assert place.missing == 0 or answered + place.missing + 1 <= round(time - last) + 1
            answered, last = 0, time
    wrong = {"duplicate", "out of order", "late", "too fast", "clock stepped"}
    assert set(clock.troubles) <= wrong


@given(st.integers(1, 50), st.floats(0.001, 1e6))
def test_a_regular_source_is_never_in_trouble(count: int, period: float) -> None:
    clock = SampleClock(period, True, 0.0)
    for i in itertools.islice(itertools.count(), count):
        assert clock.silent(i * period) == 0 or period > FIRST_PATIENCE
        assert clock.place(1000.0 + i * period, i * period).trouble is None
