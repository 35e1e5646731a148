"""The facts of a watched recording, from the device's records and the recording's labels.

Stretches are half-open [start, stop) in sample indices.
"""

import enum
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convert.metrics import first_hits, intervals
from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.record import Flag, Float32, Record, flag_names

Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Stretch = tuple[int, int]


class RecordState(enum.IntEnum):
    """What answered for a record, from best to worst."""

    GATE = 0
    WARMUP = 1
    UNIT = 2
    FALLBACK = 3
    GAP = 4
    SILENT = 5


WITHOUT_MODEL = (RecordState.FALLBACK, RecordState.GAP, RecordState.SILENT)
_GATE = {None: "tier 1: gate", RecordState.WARMUP: "warm-up over: tier 1, gate"}
_RETURNS = {
    RecordState.FALLBACK: "the model is back",
    RecordState.GAP: "samples arrive again",
    RecordState.SILENT: "records are written again",
}


@dataclass(frozen=True)
class RunRecording:
    """A recording and its records, aligned by sample index.

    records: [n], None where no record was written; doubled: indices that have more than one.
    values: float32 [n, channels] raw units, NaN in gaps. labels: [n], True anomalous, or None.
    seconds: float64 [n] since the first sample, or None. units: one text a channel, may be empty.
    """

    name: str
    channels: tuple[str, ...]
    units: tuple[str, ...]
    records: tuple[Record | None, ...]
    doubled: tuple[int, ...]
    values: Float32
    labels: Bools | None
    seconds: Float64 | None

    @property
    def period(self) -> float | None:
        """Median seconds between samples, None without times."""
        if self.seconds is None or len(self.seconds) < 2:
            return None
        return float(np.median(np.diff(self.seconds)))

    def span(self, start: int, stop: int) -> float:
        """Length of [start, stop) in seconds, or in samples where there are no times."""
        if self.seconds is None:
            return float(stop - start)
        return float(self.seconds[stop - 1] - self.seconds[start]) + (self.period or 0.0)


@dataclass(frozen=True)
class AlarmStretch:
    """One alarm from its first to its last record, with its pauses.

    blamed: channels, the most often blamed first. peak: highest score/threshold, NaN when every
    record of it is a gap. labelled: whether it touches a labelled stretch; None without labels.
    kind: the kind of fault that was named last, or None. recurring: alarms also began at this time
    of day on earlier days.
    """

    start: int
    stop: int
    blamed: tuple[str, ...]
    peak: float
    tiers: tuple[int, ...]
    labelled: bool | None
    kind: str | None = None
    recurring: bool = False


@dataclass(frozen=True)
class LabelledEvent:
    """A labelled stretch. delay: samples until the alarm was on in it, None if it was missed."""

    start: int
    stop: int
    delay: int | None


@dataclass(frozen=True)
class Handover:
    """A change at `index` of what answers for the records."""

    index: int
    state: RecordState
    what: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Everything that the report says. tiers: share of the samples by tier, 0 without a record.

    without_model: the longest stretch of records that are not valid, or missing.
    events, false_alarms and alarmed_normal (share of the unlabelled samples with the alarm on)
    are None without labels; alarmed_normal also when every sample is labelled anomalous.
    """

    samples: int
    missing: tuple[int, ...]
    doubled: tuple[int, ...]
    alarms: tuple[AlarmStretch, ...]
    events: tuple[LabelledEvent, ...] | None
    false_alarms: int | None
    alarmed_normal: float | None
    tiers: dict[int, float]
    warmup: float
    without_model: Stretch
    changes: tuple[Handover, ...]

    @property
    def one_record_each(self) -> bool:
        """Whether every sample has exactly one record."""
        return not self.missing and not self.doubled

    @property
    def median_delay(self) -> float | None:
        """Median samples from the start of a found stretch to its alarm; None if none was found."""
        delays = [event.delay for event in self.events or () if event.delay is not None]
        return statistics.median(delays) if delays else None


def run_facts(watch: RunRecording) -> Facts:
    """Collect all facts of a watch of at least one sample."""
    alarms = alarms_of(watch)
    states = states_of(watch.records)
    tiers = Counter(record.tier if record else 0 for record in watch.records)
    labels, alarmed = watch.labels, alarm_on(watch.records)
    normal = alarmed[~labels] if labels is not None else alarmed[:0]
    invalid = np.array([record is None or not record.valid for record in watch.records])
    return Facts(
        samples=len(watch.records),
        missing=tuple(i for i, record in enumerate(watch.records) if record is None),
        doubled=watch.doubled,
        alarms=alarms,
        events=None if labels is None else events_of(labels, alarmed),
        false_alarms=None if labels is None else sum(not alarm.labelled for alarm in alarms),
        alarmed_normal=float(normal.mean()) if len(normal) else None,
        tiers={tier: count / len(states) for tier, count in sorted(tiers.items())},
        warmup=float((states == RecordState.WARMUP).mean()),
        without_model=max(intervals(invalid), key=lambda s: s[1] - s[0], default=(0, 0)),
        changes=changes_of(watch.records),
    )


def state_of(record: Record | None) -> RecordState:
    """Return what answered for `record`; None is a sample without a record."""
    if record is None:
        return RecordState.SILENT
    if Flag.GAP in record.flags and record.tier == 3:  # otherwise the model bridges the gap
        return RecordState.GAP
    if Flag.WARMUP in record.flags:  # before tier 3: the fallback may answer during warm-up
        return RecordState.WARMUP
    if record.tier == 3:
        return RecordState.FALLBACK
    return RecordState.UNIT if record.tier == 2 else RecordState.GATE


def states_of(records: Iterable[Record | None]) -> npt.NDArray[np.int8]:
    """Return the `RecordState` of every sample, int8 [n]."""
    return np.array([state_of(record) for record in records], dtype=np.int8)


def alarm_on(records: Iterable[Record | None]) -> Bools:
    """Return whether the alarm was on, bool [n]."""
    return np.array([record is not None and record.alarm for record in records], dtype=bool)


def ratios(records: Sequence[Record | None]) -> Float64:
    """Return score/threshold, [n]; NaN where either is missing or the threshold is not above 0."""
    found = np.full(len(records), np.nan)
    for index, record in enumerate(records):
        if record and record.score is not None and record.threshold and record.threshold > 0:
            found[index] = record.score / record.threshold
    return found


def replaced(watch: RunRecording) -> Bools:
    """Return bool [n, channels]: readings that were masked, or replaced by the forecast."""
    column = {name: i for i, name in enumerate(watch.channels)}
    found = np.zeros((len(watch.records), len(watch.channels)), dtype=bool)
    for index, record in enumerate(watch.records):
        if record and (record.masked or record.imputed) and Flag.GAP not in record.flags:
            found[index, [column[name] for name in (*record.masked, *record.imputed)]] = True
    return found


def alarms_of(watch: RunRecording) -> tuple[AlarmStretch, ...]:
    """Return every alarm in time order."""
    score, alarmed, found = ratios(watch.records), alarm_on(watch.records), []
    right = None if watch.labels is None else watch.labels & alarmed
    for start, stop in alarm_stretches(alarmed):
        records = [record for record in watch.records[start:stop] if record and record.alarm]
        blamed = Counter(name for record in records for name in record.blamed)
        scores = score[start:stop][np.isfinite(score[start:stop])]
        found.append(
            AlarmStretch(
                start=start,
                stop=stop,
                blamed=tuple(name for name, _ in blamed.most_common()),
                peak=float(scores.max()) if len(scores) else float("nan"),
                tiers=tuple(sorted({record.tier for record in records})),
                labelled=None if right is None else bool(right[start:stop].any()),
                kind=next((r.kind for r in reversed(records) if r.kind), None),
                recurring=Flag.RECURRING in records[0].flags,
            )
        )
    return tuple(found)


def events_of(labels: Bools, alarmed: Bools) -> tuple[LabelledEvent, ...]:
    """Return every labelled stretch; one that begins during an alarm is found after 0 samples."""
    stretches = intervals(labels)
    delays = first_hits(alarmed, stretches)
    return tuple(LabelledEvent(*s, delay) for s, delay in zip(stretches, delays, strict=True))


def changes_of(records: Sequence[Record | None]) -> tuple[Handover, ...]:
    """Return the first sample, and every sample whose state differs from the one before."""
    changes: list[Handover] = []
    for index, record in enumerate(records):
        state = state_of(record)
        before = changes[-1].state if changes else None
        if state is not before:
            names = tuple(flag_names(record.flags)) if record else ()
            changes.append(Handover(index, state, _what(before, state, record), names))
    return tuple(changes)


def _what(before: RecordState | None, state: RecordState, record: Record | None) -> str:
    if record is None:
        return "no record was written"
    if state is RecordState.GAP:
        return "the source sent no sample"
    if state is RecordState.FALLBACK:
        if Flag.LATE in record.flags:
            return "model too late: the fallback answers"
        return f"no {'model yet' if before is None else 'healthy model'}: the fallback answers"
    if Flag.RESTARTED in record.flags:
        return "the restarted model is back"
    if state is RecordState.WARMUP:
        fresh = before is None or before in WITHOUT_MODEL
        return "the model warms up" if fresh else "the model was reset and warms up"
    if before in _RETURNS:
        return _RETURNS[before]
    if state is RecordState.UNIT:
        return "the recurrent unit runs alone"
    return _GATE.get(before, "tier 1 again: gate")
