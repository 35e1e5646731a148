"""Hostile streams through the whole run: parser, clock, step and sink, as a recording and live.

For any input the records are strict JSON without gaps in their indices, their number is bounded by
the input, memory is bounded, and the time grows linearly with the input.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.apparatus.hostile_streams import KINDS, Machine, mixed, stream
from tests.campaign.command import Ended, check_manners, records_of, run_command, summary_of
from tests.campaign.fault import NotHeldError, Part, Row, check_promises, expect
from tests.campaign.lab import Lab

STREAMS = 200
"""Mixed streams of the full campaign, half of them live."""
LINES = 1500
MOST_MEMORY = 160 << 20
"""Bytes of the largest process, of which interpreter, numpy and model take a third."""
MOST_RECORDS = 20, 2000
"""Records for each line, and for a whole stream: gap records are bounded, too."""
STEEPEST = 8.0
"""Largest ratio of the CPU times for four times the input; a quadratic parser needs 16."""
LEAST = 0.2
"""Smallest CPU time that counts, in seconds; smaller times are noise."""
SMALL = 1500
"""Lines of the smaller stream, enough to measure."""


@dataclass(frozen=True)
class Case:
    """A stream and its result. told: how to make the stream again."""

    told: str
    ended: Ended
    lines: int
    records: int
    broken: str

    def __str__(self) -> str:
        memory = f"{self.ended.peak / 1e6:.0f} MB"
        held = self.broken or f"{self.records} records for {self.lines} lines, {memory}"
        return f"{self.told}: {held}"


def machine_of(lab: Lab) -> Machine:
    """The lab's machine."""
    return Machine(lab.channels, lab.period, lab.rows)


def answer(lab: Lab, data: bytes, live: bool) -> Ended:
    """Run the lab's bundle over a stream, from a file or from a pipe."""
    words = ["run", str(lab.path), "--allow-failed", "--kernel", "core-c", "--json"]
    if live:
        return run_command([*words, "--source", "-"], stdin=data)
    with tempfile.NamedTemporaryFile(dir=lab.scratch, suffix=".csv") as file:
        file.write(data)
        file.flush()
        return run_command([*words, "--source", file.name])


def judge(ended: Ended, lines: int, exogenous: Sequence[str] = ()) -> int:
    """Return the number of records. Raises NotHeldError for a broken promise."""
    check_manners(ended)
    expect(ended.peak <= MOST_MEMORY, f"{ended.peak / 1e6:.0f} MB of memory")
    records = records_of(ended.stdout)
    check_promises(records, exogenous)
    by_line, at_all = MOST_RECORDS
    expect(len(records) <= by_line * lines + at_all, f"{len(records)} records for {lines} lines")
    if ended.code == 2:
        expect(ended.stderr.count("gruard: ") >= 1, "refused without an error message")
        return len(records)
    summary = summary_of(ended)
    expect(summary is not None, "no summary")
    assert summary is not None
    expect(summary["records"] == len(records), f"{summary['records']} records by the summary")
    return len(records)


def case(lab: Lab, told: str, data: bytes, live: bool) -> Case:
    """Run and judge one stream."""
    ended, lines = answer(lab, data, live), data.count(b"\n")
    count = ended.stdout.count(b"\n")
    try:
        judge(ended, lines, lab.exogenous)
    except NotHeldError as seen:
        return Case(told, ended, lines, count, str(seen))
    return Case(told, ended, lines, count, "")


def _mixed_row(lab: Lab, name: str, live: bool, seeds: Sequence[int]) -> Row:
    machine = machine_of(lab)

    def one(seed: int) -> Case:
        return case(lab, f"seed {seed}", mixed(machine, seed, LINES, text=not live), live)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        cases = list(pool.map(one, seeds))
    bad = [each for each in cases if each.broken]
    worst = max(cases, key=lambda each: (bool(each.broken), each.records / max(each.lines, 1)))
    total = sum(each.records for each in cases)
    peak = max(each.ended.peak for each in cases)
    answered = sum(each.records > 0 for each in cases)
    seen = (
        f"{answered} answered: {total:,} records, none missing, all strict JSON; "
        f"at most {peak / 1e6:.0f} MB"
    )
    return Row(
        name,
        f"{len(seeds)} streams of {LINES} lines: {', '.join(KINDS)}",
        "ends; one record a slot, strict JSON; records and memory bounded",
        "; ".join(map(str, bad)) or seen,
        str(worst),
        held=not bad and 2 * answered > len(cases),  # a refused stream tests only the parser
    )


def _growth_row(lab: Lab, kind: str, seed: int, idle: float) -> Row:
    """CPU time for a stream of one kind, and for one four times as long."""
    machine = machine_of(lab)

    def measured(count: int, live: bool) -> Case:
        return case(lab, f"{kind}, {count} lines", stream(machine, kind, count, seed), live)

    small, live = measured(SMALL, live=False), False
    if small.ended.code == 2:  # a recording with such times is refused after its first rows
        small, live = measured(SMALL, live=True), True
    large = measured(4 * SMALL, live)
    broken = small.broken or large.broken
    costs = [max(each.ended.cpu - idle, LEAST) for each in (small, large)]
    growth = costs[1] / costs[0]
    per_byte = costs[1] / len(stream(machine, kind, 4 * SMALL, seed))
    return Row(
        f"four times the input: {kind}",
        f"{SMALL} and {4 * SMALL} lines, {'live' if live else 'recorded'}",
        f"at most {STEEPEST:.0f} times the CPU time; bounded as above",
        broken or f"{costs[0]:.2f} s and {costs[1]:.2f} s, {1e6 * per_byte:.1f} µs a byte",
        f"{growth:.1f} times",
        held=not broken and growth <= STEEPEST,
    )


def run(lab: Lab, seed: int, scale: float) -> Iterator[Row]:
    """Mixed streams, recorded and live; in the full campaign also each kind at two lengths."""
    seeds = range(seed, seed + max(1, round(STREAMS * scale / 2)))
    yield _mixed_row(lab, "hostile recordings", False, seeds)
    yield _mixed_row(lab, "hostile live streams", True, seeds)
    if scale < 1:
        return
    idle = answer(lab, stream(machine_of(lab), "clean", 10, seed), live=False).cpu
    for kind in KINDS:
        yield _growth_row(lab, kind, seed, idle)


PART = Part("Hostile streams", run)
