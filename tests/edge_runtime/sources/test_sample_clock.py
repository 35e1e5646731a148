"""The sample clock: every way in which readings come wrongly, one by one and in any mixture."""

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.sources.sample_clock import (
    FIRST_PATIENCE,
    GRACE_SECONDS,
    LONGEST_WAIT,
    MOST_GAPS,
    MOST_WAITING,
    SampleClock,
    TimeSlot,
)
from edge_runtime.sources.source import Reading

HOUR, YEAR = 3600.0, 365 * 86400.0


def reading(time: float | None, value: float = 0.0) -> Reading:
    return Reading(time, np.array([value], np.float32))


class Played:
    """What a clock made of the readings at `times`, whose values are their positions.

    arrivals: when they come, by the monotonic clock; None plays a recording.
    """

    def __init__(
        self,
        times: Iterable[float | None],
        arrivals: Iterable[float] | None = None,
        period: float | None = 1.0,
    ) -> None:
        self.clock = SampleClock(period, arrivals is not None, 0.0)
        self.slots: list[TimeSlot] = []
        self.at: list[float] = []  # when each slot was answered
        self.most_waiting = 0
        now = 0.0
        for i, (time, arrival) in enumerate(
            zip(times, arrivals or itertools.repeat(0.0), strict=False)
        ):
            now = self._wait(now, arrival)
            self._take(self.clock.place(reading(time, float(i)), now), now)
            self.most_waiting = max(self.most_waiting, len(self.clock._waiting))
        self._take(self.clock.finish(now), now)
        self.events = dict(self.clock.events)

    def _wait(self, now: float, until: float) -> float:
        while (wait := self.clock.timeout(now)) is not None and now + wait < until:
            # As a real clock, which is a little beyond the deadline when the wait is over.
            now = math.nextafter(now + wait, math.inf)
            self._take(self.clock.overdue(now), now)
        return max(now, until)

    def _take(self, slots: list[TimeSlot], now: float) -> None:
        self.slots += slots
        self.at += [now] * len(slots)

    @property
    def rows(self) -> list[int | None]:
        """The position of each slot's reading, None for a gap."""
        return [None if s.values is None else int(s.values[0]) for s in self.slots]

    @property
    def gaps(self) -> int:
        return sum(slot.slots for slot in self.slots if slot.values is None)

    @property
    def irregular(self) -> int:
        return sum(slot.irregular for slot in self.slots)


def steady(count: int, start: float = 0.0, step: float = 1.0) -> list[float]:
    return [start + step * i for i in range(count)]


def whole(count: int) -> list[int]:
    return list(range(count))


# Recordings: only the source's times.


def test_missing_samples_are_where_the_times_say() -> None:
    assert Played([0.0, 1.0, 4.0, 5.0, 6.0, 7.0]).rows == [0, 1, None, None, 2, 3, 4, 5]
    assert Played([0.0, 1.0, 2.0, 4.0]).rows == [0, 1, 2, None, 3]  # the end decides
    assert [s.time for s in Played([0.0, 1.0, 3.0]).slots] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("late", [0.6, 0.7])
def test_one_late_stamp_in_fifty_changes_nothing_but_a_counter(live: bool, late: float) -> None:
    times = [i + late * (i % 50 == 40) for i in range(1000)]
    played = Played(times, times if live else None)
    assert played.rows == whole(1000) and played.irregular == 0
    assert played.events == {"late": 20}


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.1, 0.3])
def test_random_loss_is_gaps_in_the_right_places(live: bool, share: float) -> None:
    rng = random.Random(3)
    kept = [i for i in range(2000) if i < 5 or i > 1990 or rng.random() >= share]
    times = [float(i) for i in kept]
    played = Played(times, times if live else None)
    found = [None if row is None else kept[row] for row in played.rows]
    assert found == [i if i in set(kept) else None for i in range(2000)]
    assert played.irregular == 0 and played.events == {"missing": 2000 - len(kept)}


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("deviation", [0.05, 0.1, 0.2])
def test_small_gaussian_jitter_loses_nothing(live: bool, deviation: float) -> None:
    rng = random.Random(1)
    times = sorted(i + rng.gauss(0, deviation) for i in range(3000))
    played = Played(times, times if live else None)
    assert played.rows == whole(3000) and played.irregular == 0


@pytest.mark.parametrize("kind", ["uniform", "one-sided", "gaussian .5", "gaussian 1"])
def test_large_jitter_of_a_recording_loses_next_to_nothing(kind: str) -> None:
    rng = random.Random(2)
    draw = {
        "uniform": lambda: rng.uniform(-1, 1),
        "one-sided": lambda: rng.uniform(0, 1),
        "gaussian .5": lambda: rng.gauss(0, 0.5),
        "gaussian 1": lambda: rng.gauss(0, 1),
    }[kind]
    played = Played([i + draw() for i in range(5000)])
    assert (
        played.gaps <= (150 if kind == "gaussian 1" else 50)
        and abs(sum(s.slots for s in played.slots) - 5000) <= 15
    )


def test_rows_without_a_time_count_as_rows() -> None:
    rows = Played([0.0, None, None, 3.0, None, 7.0, 8.0, 9.0, 10.0]).rows
    assert rows == [0, 1, 2, 3, 4, None, None, 5, 6, 7, 8]
    assert Played([None] * 5).rows == whole(5)


def test_without_a_period_every_reading_is_a_slot() -> None:
    assert Played([0.0, 1e9, 5.0, 5.0], period=None).rows == whole(4)


def test_a_duplicate_is_left_out() -> None:
    played = Played([0.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert played.rows == [0, 1, 3, 4, 5, 6]
    assert played.events == {"duplicate": 1}
    assert [slot.irregular for slot in played.slots] == [False, False, True] + [False] * 3


def test_readings_that_overtook_each_other_are_put_in_order() -> None:
    played = Played([0.0, 1.0, 3.0, 2.0, 4.0, 5.0])
    assert played.rows == [0, 1, 3, 2, 4, 5] and played.events == {"out of order": 1}


def test_a_straggler_is_left_out() -> None:
    played = Played([*steady(12), 6.0, *steady(10, 12)])
    assert played.rows == [*range(12), *range(13, 23)] and played.irregular == 1


@pytest.mark.parametrize("wrong", [YEAR, -YEAR, HOUR, -HOUR, 7.3, -7.3])
@pytest.mark.parametrize("live", [False, True])
def test_one_wrong_stamp_costs_nothing(wrong: float, live: bool) -> None:
    times = steady(40, 1e6)
    times[20] += wrong
    played = Played(times, steady(40) if live else None)
    assert played.rows == whole(40)
    assert played.irregular == 1 and played.events["paced by arrival"] == 1


@pytest.mark.parametrize("live", [False, True])
def test_a_clock_that_stands_still_is_paced_by_arrival(live: bool) -> None:
    times = [*steady(50), *[50.0] * 300, *steady(50, 350)]
    played = Played(times, steady(400) if live else None)
    assert played.rows == whole(400)
    assert 290 <= played.irregular <= 302


@pytest.mark.parametrize("resolution", [2.0, 10.0, 100.0])
@pytest.mark.parametrize("live", [False, True])
def test_coarse_stamps_lose_nothing(resolution: float, live: bool) -> None:
    times = [resolution * (i // resolution) for i in range(1000)]
    played = Played([0.1 * t for t in times], steady(1000, step=0.1) if live else None, 0.1)
    assert played.rows == whole(1000)


@pytest.mark.parametrize("last", range(140, 160))
def test_coarse_stamps_that_end_anywhere_have_no_outage_at_the_end(last: int) -> None:
    times = [7.0 * (i // 7) for i in range(last)]
    assert Played(times).rows == whole(last)


@pytest.mark.parametrize("step", [YEAR, 56 * YEAR])
def test_a_recordings_clock_that_began_in_1970_is_followed(step: float) -> None:
    played = Played([*steady(50), *steady(50, 50 + step)])
    assert played.rows == whole(100) and played.events == {"clock stepped": 1}


@pytest.mark.parametrize("step", [HOUR + 50, -HOUR, 90 * 86400.0, -YEAR])
def test_a_step_of_a_recordings_clock_is_followed(step: float) -> None:
    """Forward it cannot be told from an outage; one record stands for the most of it."""
    played = Played([*steady(50), *steady(50, 50 + step)])
    assert [row for row in played.rows if row is not None] == whole(100)
    assert len(played.slots) <= 101 + MOST_GAPS
    assert played.gaps == max(step, 0)
    assert ("clock stepped" in played.events) == (step < 0)


def test_the_hours_of_summer_time_are_neither_missing_nor_double() -> None:
    times = [*steady(500), *steady(500, 500 + 360), *steady(500, 1000)]
    played = Played([10 * t for t in times], period=10.0)
    assert played.rows == whole(1500)
    assert played.events["clock stepped"] == 2


@pytest.mark.parametrize("factor", [2.0, 3.0, 10.0, 1.25])
@pytest.mark.parametrize("live", [False, True])
def test_a_source_that_is_too_fast_is_thinned_to_the_period(factor: float, live: bool) -> None:
    times = [i / factor for i in range(3000)]
    played = Played(times, times if live else None)
    assert abs(len(played.slots) - 3000 / factor) <= 0.06 * 3000 / factor + 4
    assert played.gaps == 0 and played.events["early"] > 100


@pytest.mark.parametrize("live", [False, True])
def test_a_source_that_is_half_as_fast_has_a_gap_for_every_second_slot(live: bool) -> None:
    played = Played(steady(50, step=2.0), steady(50, step=2.0) if live else None)
    assert played.rows[:-1] == [row for i in range(49) for row in (i, None)]


@pytest.mark.long
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("ppm", [500, -500])
def test_drift_over_many_samples_changes_nothing(live: bool, ppm: int) -> None:
    count = 100_000
    times = steady(count, 1e9, 1 + ppm * 1e-6)
    played = Played(times, steady(count, 0.0, 1 + ppm * 1e-6) if live else None)
    assert len(played.slots) == count and played.irregular == 0 and played.events == {}


odd = [math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1.7e308, None, 0.0, -0.0]


@pytest.mark.parametrize("period", [1e-3, 1.0, 600.0])
@pytest.mark.parametrize("live", [False, True])
def test_no_time_raises_and_every_reading_is_answered(period: float, live: bool) -> None:
    times = [1e9 + period * i if i % 3 else odd[i // 3 % len(odd)] for i in range(300)]
    played = Played(times, steady(300, step=period) if live else None, period)
    answered = [row for row in played.rows if row is not None]
    assert answered == sorted(answered) and len(answered) >= 290
    assert all(s.time is None or isinstance(s.time, float) for s in played.slots)


# Live sources: time goes on by the monotonic clock.


def test_silence_of_a_live_source_is_a_gap_for_each_period() -> None:
    clock = SampleClock(0.1, True, 0.0)
    for i in range(11):
        clock.place(reading(0.1 * i), 0.1 * i)
    due = 1.1 + GRACE_SECONDS
    assert clock.timeout(1.0) == pytest.approx(due - 1.0)
    assert clock.overdue(due - 0.01) == []
    assert [slot.values for slot in clock.overdue(due + 0.01)] == [None]
    assert clock.overdue(due + 0.02) == []
    assert len(clock.overdue(due + 0.11)) == 1
    # Two slots were answered for: what comes for them now is late, the next one is not.
    assert clock.place(reading(1.2), due + 0.12) == []
    assert [s.time for s in clock.place(reading(1.3), due + 0.13)] == [1.3]
    assert clock.events == {"missing": 2, "late": 1}


def test_a_live_source_that_never_says_anything_is_answered_for() -> None:
    clock = SampleClock(1.0, True, 100.0)
    first = FIRST_PATIENCE + 1.5
    assert clock.timeout(100.0) == pytest.approx(first)
    assert len(clock.overdue(100.0 + first)) == 1
    assert len(clock.overdue(100.0 + first + 1)) == 1
    assert [slot.time for slot in clock.place(reading(7.0), 108.0)] == [7.0]


def test_a_host_that_slept_for_a_day_writes_one_record_for_most_of_it() -> None:
    clock = SampleClock(1.0, True, 0.0)
    clock.place(reading(0.0), 0.0)
    slots = clock.overdue(86_400.0)
    assert len(slots) == MOST_GAPS + 1 and sum(slot.slots for slot in slots) >= 86_390


def test_a_backlog_after_a_stall_is_answered_without_gaps() -> None:
    clock = SampleClock(1.0, True, 0.0)
    for i in range(10):
        clock.place(reading(float(i)), float(i))
    slots = [clock.place(reading(float(i)), 100.0 + i / 1000) for i in range(10, 90)]
    assert [slot.time for found in slots for slot in found] == steady(80, 10.0)
    assert clock.events == {}


@pytest.mark.parametrize("clump", [2, 3])
def test_readings_that_come_in_clumps_lose_nothing_once_they_are_known(clump: int) -> None:
    arrivals = [float(clump * (i // clump + 1)) for i in range(600)]
    for times in (steady(600), arrivals):  # stamped when measured, or when sent
        played = Played(times, arrivals)
        assert played.rows[-500:] == list(range(100, 600))


@pytest.mark.parametrize("step", [HOUR, -HOUR, YEAR, -YEAR, 12.0, -12.0])
def test_a_live_clock_that_is_set_makes_no_gap(step: float) -> None:
    played = Played([*steady(30, 1e9), *steady(30, 1e9 + 30 + step)], steady(60))
    assert played.rows == whole(60)
    assert played.events["clock stepped"] == 1 and played.irregular == 3


def test_a_clock_without_battery_is_set_after_the_start_and_again_later() -> None:
    times = [*steady(5), *steady(40, 1.8e9), *steady(40, 1.8e9 + 40 - HOUR), *steady(9, 1.9e9)]
    played = Played(times, steady(94))
    assert played.rows == whole(94) and played.events["clock stepped"] == 3


@pytest.mark.parametrize("step", [HOUR, 20.0])
def test_a_clock_that_is_set_just_after_the_host_stood_still_makes_no_gap(step: float) -> None:
    """All that came meanwhile is read at once, as a recording is."""
    held_up = [30 if 3 <= i < 30 else 39 if 30 <= i < 39 else i for i in range(120)]
    times = [0.02 * i + step * (i >= 44) for i in range(120)]
    played = Played(times, [0.02 * i for i in held_up], period=0.02)
    assert 118 <= sum(slot.slots for slot in played.slots) <= 122
    assert played.events["clock stepped"] == 1


@pytest.mark.parametrize("live", [False, True])
def test_a_clock_that_is_set_with_the_last_readings_makes_no_outage(live: bool) -> None:
    times = [*steady(70), *steady(2, 1.8e9)]
    played = Played(times, steady(72, step=1e-3) if live else None)
    assert played.rows == whole(72) and played.gaps == 0


def test_a_recording_that_is_piped_in_keeps_its_gaps() -> None:
    times = [*steady(100), *steady(10, HOUR - 100)]
    played = Played(times, steady(110, step=1e-3))
    assert played.gaps == HOUR - 200 and "clock stepped" not in played.events


def test_a_late_clump_serves_what_is_open_and_no_slot_twice() -> None:
    """The network was away for 6 s; then all that was measured meanwhile comes at once."""
    arrivals = [float(i) if not 20 <= i < 26 else 26.0 for i in range(60)]
    played = Played(steady(60), arrivals)
    assert sum(slot.slots for slot in played.slots) == 60
    assert played.rows[-30:] == list(range(30, 60))
    assert played.events["late"] >= 3


def test_a_flood_of_rows_without_a_time_is_paced_by_arrival() -> None:
    """Rubbish between readings, say: it must not make more records than there are slots."""
    times = [float(i // 50) if i % 50 == 0 else None for i in range(2000)]
    played = Played(times, [i / 50 for i in range(2000)])
    assert abs(sum(slot.slots for slot in played.slots) - 40) <= 3


moves = st.sampled_from(["jitter", "loss", "frozen", "step", "back", "odd", "good", "good"])


def hostile(plan: Sequence[tuple[str, int, float]]) -> Iterator[tuple[float | None, float]]:
    """Times and arrivals: a steady stream with what `plan` does to it, stretch by stretch."""
    offset, now = 1e6, 0.0
    yield offset, now
    for kind, length, amount in plan:
        start = now
        for _ in range(length):
            now += 1.0
            if kind == "loss" and amount * 97 * now % 1 < 0.3:
                continue
            stamp: float | None = now + offset
            if kind == "frozen":
                stamp = start + offset
            if kind == "odd":
                stamp = amount
            if kind == "jitter":
                stamp = now + offset + math.sin(now * 7)
            yield stamp, now
        if kind == "step":
            offset += 1e4 * amount
        if kind == "back":
            offset -= 1e4 * amount


@given(
    st.lists(
        st.tuples(moves, st.integers(1, 40), st.one_of(st.floats(), st.floats(0, 100))),
        max_size=8,
    )
)
def test_readings_that_arrive_are_answered_whatever_their_times(
    plan: list[tuple[str, int, float]],
) -> None:
    """While readings arrive, a slot is decided at least every two periods, and none twice."""
    events = list(hostile(plan))
    played = Played([time for time, _ in events], [now for _, now in events])
    check_answers(played, [now for _, now in events])


def check_answers(played: Played, arrivals: list[float]) -> None:
    rows = [row for row in played.rows if row is not None]
    assert len(rows) == len(set(rows)), "no reading twice"
    assert all(row > rows[i] - 4 for i, row in enumerate(rows[1:])), "in order, but for jitter"
    assert played.most_waiting < MOST_WAITING
    if not arrivals:
        return
    # One record a period by the monotonic clock, whatever the times: none too many or too few.
    elapsed = arrivals[-1] - arrivals[0]
    assert abs(sum(slot.slots for slot in played.slots) - elapsed - 1) <= 6
    for before, after in itertools.pairwise(played.at):
        came = [arrival for arrival in arrivals if before < arrival <= after]
        gap = max(b - a for a, b in itertools.pairwise([before, *came, after]))
        assert after - before <= LONGEST_WAIT + 1e-6 or gap > 1.0 + 1e-6


def test_the_check_bites() -> None:
    played = Played(steady(20), steady(20))
    check_answers(played, steady(20))
    played.at = [at + 5.0 * (i > 10) for i, at in enumerate(played.at)]
    with pytest.raises(AssertionError):
        check_answers(played, steady(20))
    with pytest.raises(AssertionError):
        check_answers(Played(steady(40), steady(40)), steady(20))
