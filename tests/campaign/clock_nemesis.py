"""A clock nemesis: the whole supervisor under clocks, wires and hosts that lie.

The supervisor, the sample clock, the parser, the detector and its tiers are the real ones, and the
lines go through a real pipe or file; the time is injected, so that hours pass in seconds, and the
detector runs in this process. Whatever the times are, while readings arrive a record comes at
least every two periods, every slot has exactly one, and nothing falls back because of them.
"""

import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_runtime.detector.detector import StepDetector
from edge_runtime.errors import Complaints
from edge_runtime.native.engine import NativeFallback, open_detector
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.sources.line_source import LineSource
from edge_runtime.sources.lines import FileLines, StreamLines
from edge_runtime.sources.sample_clock import GRACE_SECONDS, LONGEST_WAIT, STEP_SECONDS
from edge_runtime.sources.source import Reading
from edge_runtime.supervision import wire
from edge_runtime.supervision.injection import Injections
from edge_runtime.supervision.liveness import Notifier
from edge_runtime.supervision.summary import Console
from edge_runtime.supervision.supervisor import RunEnvironment, RunTiming, Supervisor
from tests.apparatus.lying_clocks import LIES, Stream
from tests.campaign.fault import NotHeldError, Part, Row, expect
from tests.campaign.lab import Lab

RUNS = 300
"""Of each kind, live; a third as many as recordings."""
READINGS = 120
"""Of each stream, after those of the warm-up."""
SLACK = 0.02
"""Periods that a record may be later than promised, for the rounding of times."""
SPARE_SLOTS = 8
"""By so many the slots may differ from the periods that went by, at both ends, and by the patience
with a silent source. A stream of wrong rate is thinned or filled, and adds up as well."""
LEAST = 0.99
"""Smallest share of a run's records in tier 1, without warm-up and outages."""


class InjectedTime:
    """A clock that a stream's arrivals move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.now += seconds


class PipedSource:
    """A stream's lines through a real pipe, each written when it arrives by the injected time."""

    live = True

    def __init__(
        self, lines: Sequence[bytes], stream: Stream, lab: Lab, clock: InjectedTime
    ) -> None:
        reads, self._writes = os.pipe()
        os.write(self._writes, _header(lab))
        text = StreamLines(reads, "nemesis", lambda: os.close(reads))
        self._source = LineSource(text, "nemesis", lab.channels, Complaints())
        self._coming = iter(zip(lines, (arrival for _, arrival in stream), strict=True))
        self._next = next(self._coming, None)
        self._clock = clock

    def read(self, timeout: float | None) -> Reading | None:
        """As of a Source; waiting moves the clock."""
        if self._next is None:
            raise EOFError
        line, arrival = self._next
        left = arrival - self._clock.now
        if timeout is not None and left > timeout:
            self._clock.now += timeout + 1e-9
            return None
        self._clock.now = max(self._clock.now, arrival)
        os.write(self._writes, line)
        self._next = next(self._coming, None)
        return self._source.read(None)

    def close(self) -> None:
        """Close both ends."""
        self._source.close()
        os.close(self._writes)


class DirectProcess:
    """The detector in this process, behind the methods of a `WorkerProcess`."""

    pid = None
    stage = "read"
    change = None

    def __init__(self, detector: StepDetector, digest: str) -> None:
        self._detector, self._digest, self.bundle = detector, digest, digest
        self._records: list[Record] = []

    def fall_back(self) -> bool:
        """Return False: there is no other kernel to run."""
        return False

    def start(self) -> None:
        """Drop the records of the run before."""
        self._records = []

    def poll_ready(self, timeout: float = 0.0) -> wire.Hello:
        """Answer at once: the detector is already loaded."""
        return wire.Hello(self._detector.kernel_id, 0.0, self._digest, "")

    def resume(self) -> None:
        """Do nothing: the detector was not interrupted."""

    def tell(self, sample: Sample) -> None:
        """Answer at once; `answer` returns the record."""
        self._records.append(self._detector.step(sample))

    def answer(self, sample: Sample, timeout: float) -> Record:
        """Return the record of the last sample."""
        return self._records.pop()

    def stop(self) -> None:
        """Nothing is running."""

    kill = stop


class ListedSink:
    """Keeps records, with the injected time at which each came, and checks their JSON."""

    dropped = 0

    def __init__(self, clock: InjectedTime) -> None:
        self.records: list[Record] = []
        self.at: list[float] = []
        self._clock = clock

    def write(self, record: Record) -> None:
        """Take a record."""
        json.loads(record.to_json(), parse_constant=_refuse)
        self.records.append(record)
        self.at.append(self._clock.now)

    def close(self) -> None:
        """Nothing is held."""


def _refuse(word: str) -> float:
    raise NotHeldError(f"{word} is not JSON")


@dataclass(frozen=True)
class Outcome:
    """The result of one stream. at: when each record came; timing: the summary's counts."""

    stream: Stream
    records: list[Record]
    at: list[float]
    timing: dict[str, int]


Run = Callable[[Stream, bool], Outcome]


def runner(lab: Lab) -> Run:
    """Return a function that answers streams with the lab's bundle, live or as recordings."""
    bundle = lab.bundle

    def run(stream: Stream, live: bool) -> Outcome:
        clock, lines = InjectedTime(), _lines(lab, stream)
        source = (
            PipedSource(lines, stream, lab, clock)
            if live
            else LineSource(
                FileLines(io.StringIO((_header(lab) + b"".join(lines)).decode()), "nemesis"),
                "nemesis", lab.channels, Complaints(),
            )
        )  # fmt: skip
        sink = ListedSink(clock)
        supervisor = Supervisor(
            source, Complaints(), sink,
            DirectProcess(open_detector(bundle, "core-c"), bundle.digest),  # type: ignore[arg-type]
            NativeFallback(bundle), Injections([], []),
            RunTiming(len(lab.channels), bundle.manifest.tiers.warmup, lab.period, 1.0),
            RunEnvironment(
                clock, clock.sleep, Console(io.StringIO(), clock), (Notifier({}, clock),)
            ),
        )  # fmt: skip
        supervisor.run()
        return Outcome(stream, sink.records, sink.at, dict(supervisor.summary.timing))

    return run


def _header(lab: Lab) -> bytes:
    return ",".join(("time", *lab.channels)).encode() + b"\n"


def _lines(lab: Lab, stream: Stream) -> list[bytes]:
    """Return a CSV line for each reading, with the clean rows of the machine as values."""
    rows = itertools.cycle([",".join(map(repr, row)) for row in lab.rows.tolist()])
    return [
        f"{'' if time is None else repr(time)},{row}\n".encode()
        for (time, _), row in zip(stream, rows, strict=False)
    ]


def check(outcome: Outcome, lab: Lab, live: bool) -> None:
    """Raise NotHeldError for a broken promise."""
    records = outcome.records
    indices = [record.index for record in records]
    expect(indices == list(range(len(records))), "indices are not 0 … n")
    answered = [record for record in records if Flag.GAP not in record.flags]
    named = sum(outcome.timing.get(n, 0) for n in ("early", "late", "duplicate", "out of order"))
    left_out = len(outcome.stream) - len(answered)
    expect(0 <= left_out <= named, f"{left_out} readings without a record, {named} named")
    reset = next((r.index for r in records if Flag.RESET in r.flags), None)
    expect(reset is None, f"RESET at record {reset}")
    found = share_in_tier_1(records, lab)
    expect(found >= LEAST, f"{found:.1%} in tier 1")
    if live:
        _check_pace(outcome, lab.period)


def share_in_tier_1(records: Sequence[Record], lab: Lab) -> float:
    """Return the share of tier 1 in the records after warm-up.

    An outage is left out: more consecutive missing rows than the state can bridge, and the
    re-synchronisation after it.
    """
    tiers, watched = lab.bundle.manifest.tiers, set(lab.channels) - set(lab.exogenous)
    judged, missing, back = [], 0, 0
    for record in records:
        lost = 2 * len(watched & set(record.masked)) > len(watched)
        missing = missing + 1 if lost else 0
        back = tiers.resync_all + 2 if missing > tiers.bridge else max(back - (not lost), 0)
        if Flag.WARMUP not in record.flags and not back:
            judged.append(record)
    return float(np.mean([record.tier == 1 for record in judged] or [True]))


def _check_pace(outcome: Outcome, period: float) -> None:
    arrivals = [arrival for _, arrival in outcome.stream]
    slots = sum(record.slots for record in outcome.records)
    passed = (arrivals[-1] - arrivals[0]) / period + 1
    # A clock step below STEP_SECONDS cannot be distinguished from delayed messages.
    patience = STEP_SECONDS if outcome.timing.get("clock stepped") else GRACE_SECONDS
    spare = SPARE_SLOTS + patience / period
    expect(abs(slots - passed) <= spare, f"{slots} slots in {passed:.0f} periods")
    longest = longest_silence(outcome, period)
    expect(longest <= LONGEST_WAIT + SLACK, f"no record for {longest:.2f} periods")


def longest_silence(outcome: Outcome, period: float) -> float:
    """Return the longest time between two records, in periods, while readings keep arriving."""
    arrivals = np.array([arrival for _, arrival in outcome.stream])
    longest = 0.0
    for before, after in itertools.pairwise(outcome.at):
        came = arrivals[(arrivals > before) & (arrivals <= after)]
        pause = max(np.diff([before, *came, after]), default=0.0)
        if pause <= (1 + SLACK) * period:
            longest = max(longest, (after - before) / period)
    return longest


@dataclass(frozen=True)
class Tried:
    """One run of the campaign. broken: the promise that did not hold, empty when all did."""

    told: str
    outcome: Outcome
    broken: str
    in_tier_1: float
    silence: float


def _tried(run: Run, lab: Lab, stream: Stream, told: str, live: bool) -> Tried:
    outcome, broken = run(stream, live), ""
    try:
        check(outcome, lab, live)
    except NotHeldError as seen:
        broken = str(seen)
    silence = longest_silence(outcome, lab.period) if live else 0.0
    return Tried(told, outcome, broken, share_in_tier_1(outcome.records, lab), silence)


def _all_tried(lab: Lab, name: str, seed: int, runs: int) -> list[Tried]:
    number, run, tried = list(LIES).index(name), runner(lab), list[Tried]()
    readings = READINGS + lab.bundle.manifest.tiers.warmup
    for nth in range(runs):
        stream = LIES[name](np.random.default_rng([seed, number, nth]), readings, lab.period)
        tried.append(_tried(run, lab, stream, f"run {nth}", True))
        if nth % 3 == 0:
            tried.append(_tried(run, lab, stream, f"run {nth}, recorded", False))
    return tried


def part(lab: Lab, seed: int, scale: float) -> Iterator[Row]:
    """Yield a row for each kind of bad clock."""
    runs = max(int(scale * RUNS), 1)
    for name in LIES:
        tried = _all_tried(lab, name, seed, runs)
        bad = [f"{each.told}: {each.broken}" for each in tried if each.broken]
        records = [record for each in tried for record in each.outcome.records]
        gaps = sum(Flag.GAP in record.flags for record in records)
        least = min(tried, key=lambda each: each.in_tier_1)
        longest = max(each.silence for each in tried)
        yield Row(
            name,
            f"{runs} live runs, a third of them as recordings too",
            "a record a slot, at least every 2 periods while readings come; tier 1; no reset",
            "; ".join(bad[:3]) or f"{len(records):,} records, {gaps:,} of them gaps",
            f"{least.in_tier_1:.1%} in tier 1 ({least.told}); {longest:.2f} periods of silence",
            held=not bad,
        )


PART = Part("A clock nemesis", part)
