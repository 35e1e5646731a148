"""The sample clock: which slot each reading belongs to.

    slot k has the nominal time  phase + k * period  and gets exactly one answer:
    a reading, or nothing (a gap) when no reading came for it.

A pure state machine: it takes readings with the source's times and their arrival times, and returns
slots in order and without gaps in their numbers.

A reading within half a period of the open slot takes it at once. Any other reading waits, because
only the readings after it show whether a sample is missing, this one is a surplus, or its time is
wrong. Let p(j) be the position of the j-th waiting reading, in periods after the open slot, and
o(j) = p(j) - j its offset if all of them take slots in a row. Then

    the first is ahead,  p(0) > 1/2:   min o is the number of empty slots before it;
    the first is behind, p(0) < -1/2:  max o is the number of surplus readings, from it on.

So one wrong time moves nothing, because a later reading contradicts it. For a live source the wait
ends after at most 1.5 periods, and 2 periods after the last answer: its time goes on by the
monotonic clock, whatever the source's times are.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_runtime.record import Float32
from edge_runtime.sources.source import Reading

Event = Literal[
    "late", "early", "missing", "duplicate", "out of order", "clock stepped", "paced by arrival"
]

NEAR = 0.5
"""Periods within which a reading certainly belongs to a slot."""
JITTER = 1.0
"""Periods by which a time may be off before its record is flagged."""
EVIDENCE, ADVANCE = 4, 1.5
"""Readings, and periods by which their times advance, that tell missing samples from jitter."""
MOST_WAITING = 64
"""Most readings that wait while their times are inconclusive; bounds the memory."""
GRACE, GRACE_SECONDS = 1.5, 0.5
"""Periods after which a due live slot is empty, and the least seconds for that while no reading
waits: a busy small host stalls that long."""
LONGEST_WAIT = 2.0
"""Most periods between two answers of a live source while a reading waits."""
FIRST_PATIENCE = 5.0
"""Seconds that a live source may take for its first reading."""
STEP_PERIODS, STEP_SECONDS = 3.0, 2.0
"""A time that is off by more than both is implausible: no jitter or host delays that long."""
STEADY = 3
"""Readings in a row that are off by the same, after which the source's clock was set."""
LEAD = 2.0
"""Most periods until the next reading is expected, since readings may come in clumps."""
PHASE_RATE, PHASE_LIMIT, FIRST_PHASE = 1 / 64, 1e-3, 16
"""Share of a reading's offset by which the phase follows, the limit of that in periods per sample
(twice the drift of a poor quartz), and the first readings, which are averaged instead."""
ARRIVAL_RATE = 1 / 16
"""Share of an arrival's delay by which the expected time of arrival follows."""
PACE_PERIODS = 2.0
"""Periods by which the source's times must advance before they show whether it is real-time."""
PACE_STEP = 1.5
"""Most periods of that per reading, so that one step of a clock does not decide."""
PACE_WINDOW = 64
"""Readings by which it is judged, and the most periods that a pause counts: after a stall a host
reads a real-time source at once too."""
MOST_GAPS, GAPS_A_READING = 32, 4
"""Gaps in a row that are answered one by one, and how many more each reading allows. The rest of a
longer outage is one answer, so jumping times cannot flood the sinks."""
UNDECIDED = 0.75
"""Periods; a lone reading further ahead at the end of its wait has a missing sample before it."""
HOUR = 3600.0
"""Jump of a recording in local time when summer time begins; no sample is missing then."""
LONGEST_OUTAGE = 100 * 86400.0
"""A larger jump is a clock that started in 1970 or 2000 and was then set."""


@dataclass(frozen=True)
class TimeSlot:
    """One answer that is due.

    time: seconds by the source's clock, for a gap the slot's; None when unknown.
    values: the reading's, None for a gap. slots: number of slots that a gap stands for.
    irregular: the times are wrong here; the record is flagged.
    """

    time: float | None
    values: Float32 | None
    slots: int = 1
    irregular: bool = False


@dataclass(frozen=True)
class _Waiting:
    """A reading that came at `arrival`; `time` is None when implausible."""

    reading: Reading
    time: float | None
    arrival: float
    repeated: bool  # same time as the reading before
    copied: bool  # same time and values


class SampleClock:
    """Turns readings into slots. All times are in seconds; `now` is monotonic.

    period: between samples; None when unknown, then every reading is a slot and none is empty.
    live: as of a Source. events: counts of irregular times:

    missing            slots without a reading
    late               readings more than half a period after their slot; they take a later one, or
                       are left out if their slot was answered without them
    early              readings more than half a period before their slot, or surplus ones
    duplicate          readings left out that had the time of the one before
    out of order       readings with an earlier time than one before them
    clock stepped      times at which the source's clock was set, which is followed
    paced by arrival   readings with an unusable time; they took the slot that was due
    """

    def __init__(self, period: float | None, live: bool, now: float) -> None:
        self.events: Counter[Event] = Counter()
        self._period, self._live = period or 0.0, live
        self._known = period is not None
        self._waiting: deque[_Waiting] = deque()
        self._time: float | None = None  # of the open slot, source's clock
        self._due = now + FIRST_PATIENCE  # when the open slot's reading is expected, monotonic
        self._answered = now  # time of the last answer, monotonic
        self._emptied = -math.inf  # time of the last gap, source's clock
        self._phased = 0  # readings that have shaped the phase
        self._newest: float | None = None  # time of the last reading, plausible or not
        self._values: npt.NDArray[np.floating[Any]] = np.zeros(0)  # of the last reading
        self._stray, self._strays = (
            math.nan,
            0,
        )  # last offset, how many in a row had it
        self._irregular = False  # the next answer is flagged
        self._step = 0.0  # most periods a reading was ahead of its slot: a coarse clock
        self._credit = MOST_GAPS
        self._pace = _Pace(live, self._period)

    def place(self, reading: Reading, now: float) -> list[TimeSlot]:
        """Take a reading, and return the slots that are decided by it."""
        if not self._known:
            return [TimeSlot(reading.time, reading.row)]
        self._credit = min(self._credit + GAPS_A_READING, MOST_GAPS)
        self._enqueue(reading, now)
        slots: list[TimeSlot] = []
        while self._waiting and self._decide(slots, now):
            pass
        return slots

    def overdue(self, now: float) -> list[TimeSlot]:
        """Return the slots of a live source that cannot wait longer; call without a reading."""
        slots: list[TimeSlot] = []
        while self._known and self._live and now >= self._deadline():
            if self._waiting:
                self._settle(slots, now, ended=False)
            else:
                self._leave_empty(slots, int((now - self._deadline()) / self._period) + 1, now)
        return slots

    def finish(self, now: float) -> list[TimeSlot]:
        """Return the slots of the readings that still wait at the end of the source."""
        slots: list[TimeSlot] = []
        while self._waiting:
            self._settle(slots, now, ended=True)
        return slots

    def timeout(self, now: float) -> float | None:
        """Return the seconds until a slot is overdue; None if none ever is."""
        if not self._known or not self._live:
            return None
        return max(self._deadline() - now, 0.0)

    def _deadline(self) -> float:
        if not self._waiting:
            return self._due + max(GRACE * self._period, GRACE_SECONDS)
        return min(self._due + GRACE * self._period, self._answered + LONGEST_WAIT * self._period)

    # A new reading: is its time usable?

    def _enqueue(self, reading: Reading, now: float) -> None:
        time = self._usable(reading.time)
        before, self._newest = self._newest, self._newest if time is None else time
        if time is not None:
            if self._time is None:
                self._time, self._due = time, now
            self._pace.see(time, now)
            if not self._is_plausible(time, now):
                time = None
        repeated = before is not None and reading.time == before
        copied = repeated and np.array_equal(reading.values, self._values, equal_nan=True)
        self._values = reading.values
        self._waiting.append(_Waiting(reading, time, now, repeated, copied))
        if time is not None and before is not None and time < before:
            self.events["out of order"] += 1
            self._sort()

    def _usable(self, time: float | None) -> float | None:
        # Beyond this a double cannot count periods.
        usable = time is not None and abs(time) < 1e15 * self._period
        return time if usable else None

    def _is_plausible(self, time: float, now: float) -> bool:
        """Whether `time` agrees with its arrival, for a real-time source."""
        assert self._time is not None
        position = (time - self._time) / self._period
        offset = position - len(self._waiting)
        contradiction = position - (now - self._due) / self._period
        beyond = max(STEP_PERIODS, STEP_SECONDS / self._period)
        wrong = contradiction > beyond or (contradiction < -beyond and offset < 0)
        if not self._pace.real_time or abs(offset) <= JITTER or not wrong or self._is_late(time):
            return True
        if self._is_steady(offset):
            self._follow(offset)
            return True
        return False

    def _is_steady(self, offset: float) -> bool:
        """Whether the last readings were all off by `offset` periods, so the clock was set."""
        same = abs(offset - self._stray) <= NEAR
        self._stray, self._strays = offset, self._strays + 1 if same else 1
        return self._strays >= STEADY

    def _follow(self, offset: float) -> None:
        """Follow the source's clock, which was set by `offset` periods."""
        assert self._time is not None
        self._time += offset * self._period
        self._emptied = -math.inf
        self._waiting = deque(replace(entry, time=None) for entry in self._waiting)
        self._stray, self._strays = math.nan, 0
        self.events["clock stepped"] += 1
        self._irregular = True

    def _sort(self) -> None:
        """Move the last reading before those that overtook it, but not before a wrong time."""
        last = self._waiting.pop()
        overtaking: list[_Waiting] = []
        while self._waiting and _overtook(self._waiting[-1], last, STEP_PERIODS * self._period):
            overtaking.append(self._waiting.pop())
        self._waiting.extend([last, *reversed(overtaking)])

    # The first reading that waits: does it take the open slot?

    def _decide(self, slots: list[TimeSlot], now: float) -> bool:
        """Decide the first waiting reading if that is certain; return False when it has to wait."""
        first = self._position(self._waiting[0])
        if first is None:
            self._take_untimed(slots, now)
            return True
        if abs(first) <= NEAR:
            self._take(slots, now)
            return True
        offsets = self._offsets()
        late = self._is_late(self._waiting[0].time)
        if late and self._is_surplus():
            self._leave_out()
        elif min(offsets) <= NEAR if first > 0 else max(offsets) >= -NEAR:
            self._take(slots, now)  # a later reading shows no missing or surplus sample
        elif len(offsets) >= EVIDENCE and self._advance() >= ADVANCE:
            self._believe(slots, offsets, now)
        elif len(self._waiting) >= MOST_WAITING:
            self._settle(slots, now, ended=False)
        else:
            return False
        return True

    def _believe(self, slots: list[TimeSlot], offsets: list[float], now: float) -> None:
        """Act on agreeing offsets: samples are missing, or surplus, or the clock was set."""
        if offsets[0] > 0:
            self._go_ahead(slots, math.floor(min(offsets) + NEAR), now)
        elif max(offsets) < -STEP_PERIODS and not self._is_backlog():
            self._move(max(offsets))
        else:
            self._leave_out()

    def _go_ahead(self, slots: list[TimeSlot], missing: int, now: float) -> None:
        """Advance to the first waiting reading, over `missing` slots or a clock that was set."""
        if self._is_set_forward(missing * self._period):
            self._move(missing)
        else:
            self._leave_empty(slots, missing, now)

    def _is_set_forward(self, seconds: float) -> bool:
        """Whether times ahead by `seconds` are a clock that was set, not an outage."""
        summer = not self._pace.real_time and abs(seconds - HOUR) < 2 * self._period
        return summer or seconds > LONGEST_OUTAGE

    def _is_backlog(self) -> bool:
        """Whether the waiting readings were measured in an outage and delivered together."""
        elapsed = self._waiting[-1].arrival - self._waiting[0].arrival
        at_once = self._live and elapsed < 0.5 * self._advance() * self._period
        return at_once and self._is_late(self._waiting[0].time)

    def _move(self, periods: float) -> None:
        """As `_follow`, when the waiting readings are by the new clock already."""
        waiting = self._waiting
        self._waiting = deque()
        self._follow(periods)
        self._waiting = waiting

    def _settle(self, slots: list[TimeSlot], now: float, ended: bool) -> None:
        """Decide the first waiting reading, which cannot wait longer, by the likeliest case."""
        first = self._position(self._waiting[0])
        if first is None or abs(first) <= NEAR:
            self._decide(slots, now)
        elif first > 0:
            ahead = min(self._offsets())
            if ahead <= (max(UNDECIDED, self._step) if ended else UNDECIDED):
                self._take(slots, now)
            else:  # a live source's time goes on slot by slot
                slow = self._pace.real_time and not ended
                self._go_ahead(slots, 1 if slow else math.floor(ahead + NEAR), now)
        elif self._is_surplus() or (ended and self._waiting[0].copied):
            self._leave_out()
        else:
            self._take(slots, now)

    def _is_surplus(self) -> bool:
        """Whether the next reading can take the open slot, or there are too many for the time."""
        if len(self._waiting) >= MOST_WAITING and self._advance() > NEAR:
            return True
        following = self._position(self._waiting[1]) if len(self._waiting) > 1 else None
        return following is not None and following >= -NEAR

    def _is_late(self, time: float | None) -> bool:
        """Whether the slot of a reading with `time` was answered without it."""
        return time is not None and time <= self._emptied + NEAR * self._period

    def _position(self, entry: _Waiting) -> float | None:
        """Return periods after the open slot, None without a plausible time."""
        if entry.time is None or self._time is None:
            return None
        return (entry.time - self._time) / self._period

    def _offsets(self) -> list[float]:
        positions = map(self._position, self._waiting)
        return [p - j for j, p in enumerate(positions) if p is not None]

    def _advance(self) -> float:
        """Return the periods by which the times of the waiting readings advance."""
        positions = [p for p in map(self._position, self._waiting) if p is not None]
        return max(positions) - min(positions)

    # Answer the open slot, or leave a reading out.

    def _take_untimed(self, slots: list[TimeSlot], now: float) -> None:
        """Take a reading without a plausible time if a sample is due.

        A source without times may be a recording, so all of its readings are taken.
        """
        timeless = self._time is None
        due = now >= self._due - JITTER * self._period
        if timeless or due or not self._pace.real_time:
            self._take(slots, now)
        else:
            self._leave_out()

    def _take(self, slots: list[TimeSlot], now: float) -> None:
        """Let the first waiting reading take the open slot."""
        entry = self._waiting.popleft()
        position = self._position(entry)
        stamped = entry.reading.time is not None
        odd = stamped and (position is None or abs(position) > JITTER)
        self._count_taken(entry, position, odd)
        slots.append(
            TimeSlot(entry.reading.time, entry.reading.row, irregular=odd or self._irregular)
        )
        self._irregular = False
        if odd and position is not None and position < MOST_WAITING:
            self._step = max(self._step, position)
        if position is not None:
            self._follow_phase(position)
        late = ARRIVAL_RATE * _clip((entry.arrival - self._due) / self._period, JITTER)
        if position is None and self._time is not None:
            late = _clip(late, PHASE_LIMIT)  # fast readings must not hurry the slots
        self._due += late * self._period
        self._next_slot(1, now)

    def _count_taken(self, entry: _Waiting, position: float | None, odd: bool) -> None:
        if self._is_late(entry.time):
            self.events["late"] += 1
        elif odd:
            self.events["paced by arrival"] += 1
        elif position is not None and abs(position) > NEAR:
            self.events["late" if position > 0 else "early"] += 1

    def _follow_phase(self, position: float) -> None:
        assert self._time is not None
        if abs(position) > JITTER:
            if self._is_steady(position):
                self._move(position)
            return
        self._stray, self._strays = math.nan, 0
        self._phased += 1
        if self._phased <= FIRST_PHASE:
            self._time += position / self._phased * self._period
        else:
            self._time += _clip(PHASE_RATE * position, PHASE_LIMIT) * self._period

    def _leave_out(self) -> None:
        """Leave out the first waiting reading, a surplus one."""
        entry = self._waiting.popleft()
        if entry.repeated:
            self.events["duplicate"] += 1
        elif self._is_late(entry.time):
            self.events["late"] += 1
        else:
            self.events["early"] += 1
        self._irregular = True

    def _leave_empty(self, slots: list[TimeSlot], count: int, now: float) -> None:
        """Answer `count` slots as gaps."""
        single = min(count, self._credit)
        rest = count - single
        for number in [1] * single + [rest] * (rest > 0):
            slots.append(TimeSlot(self._time, None, number, self._irregular))
            self._irregular = False
            self._emptied = -math.inf if self._time is None else self._time
            self._next_slot(number, now)
        self._credit -= single
        self.events["missing"] += count

    def _next_slot(self, count: int, now: float) -> None:
        if self._time is not None:
            self._time += count * self._period
        self._due = min(self._due + count * self._period, now + LEAD * self._period)
        self._answered = now


class _Pace:
    """Judges whether a live source is real-time, or a recording piped in."""

    def __init__(self, live: bool, period: float) -> None:
        self.real_time = live
        self._live, self._period = live, period
        self._seen: deque[tuple[float, float]] = deque(maxlen=PACE_WINDOW)
        self._last: tuple[float, float] | None = None

    def see(self, time: float, now: float) -> None:
        """Take the time of a reading."""
        if self._last is not None and self._live:
            most = PACE_STEP * self._period
            advance, elapsed = time - self._last[0], now - self._last[1]
            longest = PACE_WINDOW * self._period
            self._seen.append((_clip(max(advance, 0.0), most), _clip(elapsed, longest)))
            advanced, passed = (sum(column) for column in zip(*self._seen, strict=True))
            if advanced >= PACE_PERIODS * self._period:
                self.real_time = passed > 0.5 * advanced
        self._last = time, now


def _overtook(one: _Waiting, other: _Waiting, limit: float) -> bool:
    """Whether `one` came before `other` with a later time, by less than `limit`."""
    if one.time is None or other.time is None:
        return False
    return 0 < one.time - other.time < limit


def _clip(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)


def slots_of(clock: SampleClock, readings: Iterable[Reading]) -> Iterator[TimeSlot]:
    """Yield the slots of recorded `readings`, which have no arrival times."""
    for reading in readings:
        yield from clock.place(reading, 0.0)
    yield from clock.finish(0.0)
