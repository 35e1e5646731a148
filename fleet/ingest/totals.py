"""The totals of one asset: what its records said, kept on disk between two commands.

One sealed file has the totals and the positions in all inputs, and is replaced as a whole. So a
command that is killed loses nothing and counts nothing twice. Its size is bounded.

Scores are counted as score over threshold, in bins of equal width in its logarithm, for each model,
threshold and week. Only scores of a settled model without alarm, gap or lasting change count: they
are what the machine does when it is healthy (`fleet.ingest.drift`).
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.alarm import MOST_BLAMED
from edge_runtime.detector.alarm import PAUSE
from edge_runtime.plain import LARGEST_INTEGER, read_sealed, write_sealed
from fleet.ingest.batches import Batch, without_run
from fleet.ingest.reading import Position, digest_of
from fleet.ingest.runs import NONE_CLOSED, ClosedRuns, Runs, RunSeen

TOTALS = "totals.json"
LARGEST_TOTALS = 1 << 25
"""Bytes, of an asset with thousands of alarms and files."""
LOW, HIGH, PER_DECADE = 1e-3, 1e2, 16
"""Bins of score over threshold: one below `LOW`, so many for a factor of ten, one from `HIGH`."""
EDGES = np.geomspace(LOW, HIGH, round(np.log10(HIGH / LOW)) * PER_DECADE + 1)
WEEK = 7 * 86400.0
MOST_WEEKS, MOST_MODELS, MOST_ALARMS, MOST_NAMES, MOST_POSITIONS = 26, 32, 2000, 256, 10_000
OTHER = "other"
"""Counts what is beyond `MOST_MODELS` and `MOST_NAMES`. More files than `MOST_POSITIONS` are read
again each time, and their records are repeated ones."""
_UNHEALTHY = ("GAP", "CHANGED", "UNKNOWN_MODE", "WARMUP", "RESYNC", "FREE_RUN", "RESET")


@dataclass(frozen=True)
class ModelTotals:
    """Records of one model, by tier, flag and channel. alarm: records in alarm."""

    model: str
    records: int = 0
    valid: int = 0
    alarm: int = 0
    tiers: Mapping[str, int] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    masked: Mapping[str, int] = field(default_factory=dict)
    imputed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class WeekScores:
    """Healthy scores of a week over the threshold. week: since 1970. counts: [bins] of `EDGES`."""

    model: str
    threshold: float
    week: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class SeenAlarm:
    """One alarm of a run: records in alarm with at most `PAUSE` others in a row between them.

    run: its key. first, last: indices. start, end: their times, None if they have none. kind: named
    last, or empty. worst: the largest score over the threshold. muted, recurring: by any record.
    """

    run: str
    first: int
    last: int
    start: float | None
    end: float | None
    model: str
    blamed: tuple[str, ...]
    kind: str
    worst: float
    muted: bool
    recurring: bool


@dataclass(frozen=True)
class LatestRecord:
    """The newest record. time: in seconds, None if it has none. flags: by name."""

    time: float | None
    model: str
    tier: int
    alarm: bool
    flags: tuple[str, ...]


@dataclass(frozen=True)
class AssetTotals:
    """All totals of an asset. latest: None before the first record. forgotten: alarms before
    the last `MOST_ALARMS` ones.

    records: counted; repeated: read again, and not counted again. bad: lines that are no records.
    """

    asset: str
    positions: tuple[Position, ...] = ()
    runs: tuple[RunSeen, ...] = ()
    closed: ClosedRuns = NONE_CLOSED
    models: tuple[ModelTotals, ...] = ()
    weeks: tuple[WeekScores, ...] = ()
    alarms: tuple[SeenAlarm, ...] = ()
    latest: LatestRecord | None = None
    forgotten: int = 0
    records: int = 0
    repeated: int = 0
    bad: int = 0


def read_totals(folder: Path, asset: str) -> AssetTotals:
    """Return the totals kept in an asset's folder; empty ones without a file. Raises GruardError"""
    return read_sealed(folder / TOTALS, AssetTotals, LARGEST_TOTALS) or AssetTotals(asset)


def write_totals(folder: Path, totals: AssetTotals) -> None:
    """Replace the totals in an asset's folder, durably. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed(folder / TOTALS, totals)


class Tally:
    """Adds batches of records to the totals of an asset."""

    def __init__(self, known: AssetTotals) -> None:
        self._known = known
        self._runs = Runs(known.runs, known.closed)
        self._models = {each.model: each for each in known.models}
        self._weeks = {
            (each.model, each.threshold, each.week): np.array(each.counts, np.int64)
            for each in known.weeks
        }
        self._alarms = _Alarms(known.alarms)
        self._latest = known.latest
        self._records, self._repeated = known.records, known.repeated

    def add(self, batch: Batch) -> None:
        """Count the records of `batch` that were not counted before."""
        if not len(batch):
            return
        run, names = batch.coded("run")
        turns = (np.diff(batch.column("index")) <= 0) | (np.diff(run) != 0)
        edges = [0, *(np.flatnonzero(turns) + 1).tolist(), len(batch)]
        unseen = np.zeros(len(batch), bool)
        for start, stop in pairwise(edges):
            unseen[start:stop] = self._add_stretch(batch, start, stop, names[run[start]])
        new = int(unseen.sum())
        self._records += new
        self._repeated += len(batch) - new
        if new:
            fresh = batch if new == len(batch) else batch.part(unseen)
            self._latest = _later(self._latest, fresh)
            self._count_models(fresh)
            self._count_scores(fresh)

    def totals(self, positions: Sequence[Position], bad: int) -> AssetTotals:
        """Return the totals; positions: in all inputs. bad: further lines that are no records."""
        alarms, forgotten = self._alarms.newest()
        return replace(
            self._known,
            positions=tuple(positions)[-MOST_POSITIONS:],
            runs=self._runs.known,
            closed=self._runs.closed,
            models=tuple(self._models.values()),
            weeks=_newest_weeks(self._weeks),
            alarms=alarms,
            latest=self._latest,
            forgotten=self._known.forgotten + forgotten,
            records=self._records,
            repeated=self._repeated,
            bad=self._known.bad + bad,
        )

    def _add_stretch(self, batch: Batch, start: int, stop: int, name: str) -> npt.NDArray[np.bool_]:
        """Count records with growing indices in their run; return which are new."""
        index = batch.column("index")[start:stop]
        time = batch.column("time")[start:stop]
        digest = digest_of(without_run(batch.lines[start]))
        first = float(time[0]) if np.isfinite(time[0]) else None
        run = self._runs.find(name, int(index[0]), first, digest)
        if run is None:
            return np.zeros(stop - start, bool)
        unseen = run.unseen(index)
        if unseen.any():
            slots = batch.column("slots")[start:stop]
            further = int((slots - 1)[unseen].sum())
            run = self._runs.keep(run.with_records(index[unseen], time[unseen], further))
            self._alarms.add(batch, start + np.flatnonzero(unseen), run)
        return unseen

    def _count_models(self, batch: Batch) -> None:
        codes, models = batch.coded("model")
        for code, model in enumerate(models):
            name = model if model in self._models or len(self._models) < MOST_MODELS else OTHER
            part = batch if len(models) == 1 else batch.part(codes == code)
            known = self._models.get(name, ModelTotals(name))
            self._models[name] = _with_records(known, part)

    def _count_scores(self, batch: Batch) -> None:
        score, threshold, time = map(batch.column, ("score", "threshold", "time"))
        wanted = batch.column("valid") & (batch.column("tier") == 1) & ~batch.column("alarm")
        wanted &= np.isfinite(score) & (threshold > 0) & ~batch.naming("flags", _UNHEALTHY)
        if not wanted.any():
            return
        codes, models = batch.coded("model")
        week = np.where(np.isfinite(time), time, 0.0) // WEEK
        bins = np.searchsorted(EDGES, score[wanted] / threshold[wanted], side="right")
        groups, of = np.unique(
            np.stack([codes[wanted], threshold[wanted], week[wanted]], axis=1),
            axis=0, return_inverse=True,
        )  # fmt: skip
        for number, (code, limit, when) in enumerate(groups.tolist()):
            key = models[int(code)], limit, int(when)
            counts = np.bincount(bins[of == number], minlength=len(EDGES) + 1)
            self._weeks[key] = self._weeks.get(key, 0) + counts
        if len(self._weeks) > 4 * MOST_WEEKS:
            kept = _newest_weeks(self._weeks)
            self._weeks = {(k.model, k.threshold, k.week): np.array(k.counts) for k in kept}


def _later(known: LatestRecord | None, batch: Batch) -> LatestRecord:
    """Return the newest of a known record and those of `batch`; without times the last one."""
    time = batch.column("time")
    dated = bool(np.isfinite(time).any())
    row = int(np.nanargmax(time)) if dated else len(batch) - 1
    when = float(time[row]) if dated else None
    if known is not None and known.time is not None and (when is None or when < known.time):
        return known
    fields = batch.table.slice(row, 1).to_pylist()[0]
    return LatestRecord(
        time=when,
        model=fields["model"],
        tier=fields["tier"],
        alarm=fields["alarm"],
        flags=tuple(fields["flags"]),
    )


def _with_records(known: ModelTotals, batch: Batch) -> ModelTotals:
    tiers = np.bincount(batch.column("tier"), minlength=4)
    return ModelTotals(
        model=known.model,
        records=known.records + len(batch),
        valid=known.valid + int(batch.column("valid").sum()),
        alarm=known.alarm + int(batch.column("alarm").sum()),
        tiers=_sum(known.tiers, {str(tier): int(tiers[tier]) for tier in (1, 2, 3)}),
        flags=_sum(known.flags, batch.counts("flags")),
        masked=_sum(known.masked, batch.counts("masked")),
        imputed=_sum(known.imputed, batch.counts("imputed")),
    )


def _sum(known: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    summed = dict(known)
    for name, count in more.items():
        name = name if name in summed or len(summed) < MOST_NAMES else OTHER
        summed[name] = summed.get(name, 0) + count
    return summed


def _newest_weeks(
    weeks: Mapping[tuple[str, float, int], npt.NDArray[np.int64]],
) -> tuple[WeekScores, ...]:
    newest = sorted(weeks, key=lambda key: key[2])[-MOST_WEEKS:]
    return tuple(WeekScores(*key, tuple(weeks[key].tolist())) for key in newest)


class _Alarms:
    """The alarms of all runs, joined as they become known, in any order."""

    def __init__(self, known: Sequence[SeenAlarm]) -> None:
        self._of_run: dict[str, list[SeenAlarm]] = {}
        self._forgotten = 0
        for alarm in sorted(known, key=lambda each: each.first):
            self._of_run.setdefault(alarm.run, []).append(alarm)

    def add(self, batch: Batch, rows: npt.NDArray[np.int64], run: RunSeen) -> None:
        """Add what the records at `rows` [n] of a batch, in `run`, say of alarms."""
        rows = rows[batch.column("alarm")[rows]]
        if not len(rows):
            return
        index = batch.column("index")[rows]
        pauses = np.flatnonzero(np.diff(index) > PAUSE + 1)
        # Where no record was read between two of an alarm, none says that it ended.
        pairs = ((at, int(index[at]) + 1, int(index[at + 1])) for at in pauses.tolist())
        ends = [at for at, low, high in pairs if run.has_any(low, high)]
        edges = [0, *(at + 1 for at in ends), len(rows)]
        for start, stop in pairwise(edges):
            self._join(_alarm_of(batch, rows[start:stop], run.key), run)
        if sum(map(len, self._of_run.values())) > 2 * MOST_ALARMS:
            kept, self._forgotten = self.newest()
            self._of_run = _Alarms(kept)._of_run

    def newest(self) -> tuple[tuple[SeenAlarm, ...], int]:
        """Return the last alarms in the order of their times, and how many are left out."""
        every = [alarm for alarms in self._of_run.values() for alarm in alarms]
        every.sort(key=lambda alarm: (alarm.start or 0.0, alarm.first))
        kept = every[-MOST_ALARMS:]
        return tuple(kept), self._forgotten + len(every) - len(kept)

    def _join(self, alarm: SeenAlarm, run: RunSeen) -> None:
        """Put an alarm between those of its run, which are in order, as one with its neighbours."""
        alarms = self._of_run.setdefault(run.key, [])
        place = bisect.bisect_left(alarms, alarm.first, key=lambda each: each.first)
        while place and _is_one(alarms[place - 1], alarm, run):
            place -= 1
            alarm = _merged(alarms.pop(place), alarm)
        while place < len(alarms) and _is_one(alarm, alarms[place], run):
            alarm = _merged(alarm, alarms.pop(place))
        alarms.insert(place, alarm)


def _is_one(before: SeenAlarm, after: SeenAlarm, run: RunSeen) -> bool:
    close = after.first - before.last <= PAUSE + 1
    return close or not run.has_any(before.last + 1, after.first)


def _merged(first: SeenAlarm, then: SeenAlarm) -> SeenAlarm:
    last = first if first.last >= then.last else then
    return SeenAlarm(
        run=first.run,
        first=first.first,
        last=last.last,
        start=first.start,
        end=last.end,
        model=first.model,
        blamed=tuple(dict.fromkeys((*first.blamed, *then.blamed)))[:MOST_BLAMED],
        kind=last.kind or first.kind or then.kind,
        worst=max(first.worst, then.worst),
        muted=first.muted or then.muted,
        recurring=first.recurring or then.recurring,
    )


def _alarm_of(batch: Batch, rows: npt.NDArray[np.int64], run: str) -> SeenAlarm:
    """Return the alarm of records in alarm, at `rows` [n] of a batch."""
    table = batch.table.select(["flags", "kind", "blamed", "model"]).take(rows)
    ends = [int(rows[0]), int(rows[-1])]
    index, time = batch.column("index")[ends].tolist(), batch.column("time")[ends]
    start, end = (float(each) if np.isfinite(each) else None for each in time)
    with np.errstate(divide="ignore", invalid="ignore"):
        heights = batch.column("score")[rows] / batch.column("threshold")[rows]
    flags = {name for names in table["flags"].to_pylist() for name in names}
    kinds = [kind for kind in table["kind"].to_pylist() if kind]
    blamed = dict.fromkeys(name for names in table["blamed"].to_pylist() for name in names)
    return SeenAlarm(
        run=run,
        first=index[0],
        last=index[1],
        start=start,
        end=end,
        model=table["model"][0].as_py(),
        blamed=tuple(blamed)[:MOST_BLAMED],
        kind=kinds[-1] if kinds else "",
        worst=float(np.max(heights[np.abs(heights) <= LARGEST_INTEGER], initial=0.0)),
        muted="MUTED" in flags,
        recurring="RECURRING" in flags,
    )
