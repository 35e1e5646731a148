"""Faults in the times of the readings, and in their text."""

from collections.abc import Callable

import numpy as np

from benchmarks.runtime import kilobytes
from tests.campaign.fault import Fault, Happened, Json, expect
from tests.campaign.lab import Lab, Run

START = 200
HOUR = 3600.0


def _times(lab: Lab, count: int, first: int = 0) -> list[float]:
    return [lab.period * (first + i) for i in range(count)]


def _before(run: Run) -> None:
    """Readings up to START, at their times."""
    run.feed(run.lab.rows[:START])


def _gaps(records: list[Json]) -> int:
    return sum("GAP" in record["flags"] for record in records)


def _timing(records: list[Json]) -> int:
    return sum("TIMING" in record["flags"] for record in records)


def _missing(lab: Lab) -> Happened:
    with lab.run() as run:
        _before(run)
        rest = lab.rows[START + 7 : START + 50]
        run.feed(rest, _times(lab, len(rest), START + 7))
        run.await_records(START + 50)
    expect(_gaps(run.records) == 7, f"{_gaps(run.records)} gap records")
    return "7 gap records"


def _duplicate(lab: Lab) -> Happened:
    with lab.run() as run:
        _before(run)
        run.feed(np.repeat(lab.rows[START : START + 50], 2, axis=0),
                 list(np.repeat(_times(lab, 50, START), 2)))  # fmt: skip
        run.await_records(START + 50)
    expect(len(run.records) == START + 50, f"{len(run.records)} records of {START + 50}")
    return f"50 left out, {_timing(run.records)} records flagged TIMING"


def _out_of_order(lab: Lab) -> Happened:
    order = [i + (1 if i % 10 == 4 else -1 if i % 10 == 5 else 0) for i in range(50)]
    with lab.run() as run:
        _before(run)
        run.feed(lab.rows[START:][order], [_times(lab, 50, START)[i] for i in order])
        run.await_records(START + 50)
    times = [record["time"] for record in run.records]
    expect(times == sorted(times), "the records are not in order of time")
    expect(_gaps(run.records) == 0, f"{_gaps(run.records)} gap records")
    return f"put in order, no gap record, {_timing(run.records)} flagged TIMING"


def _late(lab: Lab) -> Happened:
    """Silence until gap records come, then the delayed readings all at once."""
    owed = 5
    with lab.run() as run:
        _before(run)
        run.await_records(START + owed)
        run.feed(lab.rows[START : START + owed], _times(lab, owed, START))
        known = len(run.records)
        rest = lab.rows[START + known : START + known + 20]
        run.feed(rest, _times(lab, len(rest), known + 50))
        run.await_records(known + 20)
    expect(_gaps(run.records) >= owed, f"{_gaps(run.records)} gap records")
    return f"{_gaps(run.records)} gap records, late readings left out"


def _silent(lab: Lab) -> Happened:
    with lab.run() as run:
        _before(run)
        run.await_records(START + 25)
    gaps = _gaps(run.records)
    expect(gaps >= 25, f"{gaps} gap records")
    return "gap records went on coming, one for each period"


def _stepped(hours: float) -> Callable[[Lab], Happened]:
    def strike(lab: Lab) -> Happened:
        with lab.run() as run:
            # In real time, so that gruard does not take the source for a recording.
            run.feed(lab.rows[:40], pace=lab.period)
            rest = lab.rows[40:120]
            run.feed(rest, [t + hours * HOUR for t in _times(lab, len(rest), 40)])
            run.await_records(115)
        expect(_gaps(run.records) <= 5, f"{_gaps(run.records)} gap records")
        expect(run.said("clock stepped") > 0, "not logged")
        return f"followed, told, {_gaps(run.records)} gap records"

    return strike


def _rate(factor: float) -> Callable[[Lab], Happened]:
    def strike(lab: Lab) -> Happened:
        count = 200
        times = [lab.period * (START + i / factor) for i in range(count)]
        samples = START + int(count / factor)
        with lab.run() as run:
            _before(run)
            run.feed(lab.rows[START : START + count], times)
            run.await_records(samples - 5)
        expect(abs(len(run.records) - samples) <= 10, f"{len(run.records)} records, {samples} due")
        gaps, flagged = _gaps(run.records), _timing(run.records)
        expect(gaps + flagged > 50, f"{gaps} gap records, {flagged} flagged TIMING")
        return f"one record each period; {gaps} gap records, {flagged} flagged TIMING"

    return strike


def _line(text: str | bytes) -> Callable[[Lab], Happened]:
    """Fifty good rows with a bad line after each."""

    def strike(lab: Lab) -> Happened:
        with lab.run() as run:
            _before(run)
            for row in lab.rows[START : START + 50]:
                run.feed(row[np.newaxis])
                known = len(run.records)
                run.send(text)
                run.await_records(known + 1)
        bad = run.records[START + 1 :: 2]
        expect(all(set(r["masked"]) == set(lab.channels) for r in bad), "a bad line was believed")
        told = sum("has" in line or "is not" in line for line in run.log)
        expect(told == 1, f"quoted {told} times")
        return "each a record of nothing, quoted once in the log"

    return strike


def _cells(lab: Lab) -> Happened:
    row = ",".join(["not a time", "0x12", *("oops" for _ in lab.channels[1:])])
    with lab.run() as run:
        _before(run)
        for _ in range(20):
            known = len(run.records)
            run.send(row)
            run.await_records(known + 1)
    bad = run.records[START:]
    expect(all(set(r["masked"]) == set(lab.channels) for r in bad), "a bad cell was believed")
    return "all readings missing, counted"


def _endless(lab: Lab) -> Happened:
    with lab.run() as run:
        _before(run)
        known = len(run.records)
        run.send(b"9" * (3 << 20))
        run.await_records(known + 3)
        peak = kilobytes(run.process.pid, "status", "VmHWM") / 1024
    expect(peak < 200, f"{peak:.0f} MB")
    return f"cut into rows of nothing; the supervisor's peak is {peak:.0f} MB"


FAULTS = (
    Fault("missing samples", "7 samples left out", "7 gap records", _missing),
    Fault("duplicates", "every reading twice", "one record a sample, flagged", _duplicate),
    Fault("out of order", "5 pairs exchanged", "a record each, in order of time", _out_of_order),
    Fault("late", "5 readings held up past their gap records", "left out, no index twice", _late),
    Fault("silence", "the source stops", "gap records, one a period", _silent),
    Fault("clock put forward", "+1 h", "followed, at most 5 gap records", _stepped(1)),
    Fault("clock put back", "-1 h", "followed, at most 5 gap records", _stepped(-1)),
    Fault("rate doubled", "twice as many readings", "one record a period, flagged", _rate(2)),
    Fault("rate halved", "half as many readings", "one record a period, gaps", _rate(0.5)),
    Fault("ragged line", "a cell too few", "a record of nothing", _line("1,2")),
    Fault("binary garbage", "bytes that are no text", "a record of nothing",
          _line(b"\xff\x00\x1b[2J\xfe")),
    Fault("unreadable cells", "words for numbers", "missing readings", _cells),
    Fault("no line break", "3 MB without one", "cut, memory bounded", _endless),
)  # fmt: skip
