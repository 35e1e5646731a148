"""The task of a Dask worker: the new records of one asset into its totals, and rows from these."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from edge_runtime.calibration import SECONDS_PER_DAY
from edge_runtime.errors import GruardError, reason
from edge_runtime.marks import AlarmMark, read_marks
from fleet.ingest.batches import parse, why_no_record
from fleet.ingest.drift import Drift, Reference, drift_of, reference_of
from fleet.ingest.inputs import first_time
from fleet.ingest.reading import IncompleteError, Position, key_of, read_portions
from fleet.ingest.rows import AlarmRow, AssetRecords, CountRow, ScoreRow
from fleet.ingest.runs import RunSeen
from fleet.ingest.together import EPOCH
from fleet.ingest.totals import (
    AssetTotals,
    ModelTotals,
    SeenAlarm,
    Tally,
    read_totals,
    write_totals,
)
from fleet.job import one_line
from fleet.results import asset_folder
from fleet.task import refuse_foreign

SHORTEST_HOLE, HOLE_PERIODS = 60.0, 10.0
"""A break between two runs counts as a hole from so many seconds, and so many periods, on."""
SAME_TIME = 1.0
"""Seconds between an alarm's first record and its mark's, at most."""


@dataclass(frozen=True)
class IngestJob:
    """What a worker needs to read the records of one asset. Paths are those of all machines.

    paths: files and journals. marks: folders with marks. bundles: where its model may be. fleet:
    the folder of the results. gruard: version of the driver.
    """

    asset: str
    paths: tuple[str, ...]
    marks: tuple[str, ...]
    groups: tuple[str, ...]
    bundles: tuple[str, ...]
    fleet: str
    gruard: str


@dataclass(frozen=True)
class AssetFindings:
    """The rows of one asset. `records` is not judged yet: the driver knows the other assets."""

    records: AssetRecords
    alarms: tuple[AlarmRow, ...] = ()
    scores: tuple[ScoreRow, ...] = ()
    counts: tuple[CountRow, ...] = ()

    @property
    def good(self) -> bool:
        """Whether all of its inputs could be read."""
        return self.records.good

    @property
    def reused(self) -> bool:
        """Whether there was no new record."""
        return self.records.reused


@dataclass(frozen=True)
class _Reading:
    """What became of the inputs. problem: the first one; failed: whether an input is unreadable."""

    totals: AssetTotals
    problem: str
    failed: bool


def ingest_asset(job: IngestJob) -> AssetFindings:
    """Add what is new in the inputs of an asset to its totals on disk, and return its rows.

    Raises GruardError when this worker cannot work for the fleet at all.
    """
    refuse_foreign(job.gruard, job.fleet)
    folder = asset_folder(Path(job.fleet), job.asset)
    try:
        known = read_totals(folder, job.asset)
        read = _read(job, known)
        if read.totals != known:
            write_totals(folder, read.totals)
        return _findings(job, folder, read, read.totals.records - known.records)
    except GruardError as error:
        sentence = f"{error}; if it is damaged, remove it, and all that is left is read again"
    except OSError as error:
        sentence = f"{error.filename or folder}: {reason(error)}; check the disk"
    return unread(job.asset, job.groups, sentence)


def unread(asset: str, groups: tuple[str, ...], problem: str) -> AssetFindings:
    """Return the findings of an asset of which nothing could be read."""
    return AssetFindings(AssetRecords(asset, problem=one_line(problem), groups=groups, failed=True))


def _read(job: IngestJob, known: AssetTotals) -> _Reading:
    """Read all inputs in the order of their first records."""
    tally, positions = Tally(known), {each.input: each for each in known.positions}
    paths = [Path(path) for path in dict.fromkeys(job.paths)]
    if any(key_of(path) not in positions for path in paths):
        paths.sort(key=first_time)
    kept, bad = dict[str, Position](), 0
    problem, failed = "", False
    for path in paths:
        key = key_of(path)
        if key in positions:
            kept[key] = positions[key]
        try:
            for portion in read_portions(path, positions.get(key)):
                batch, places = parse(portion.lines)
                tally.add(batch)
                wrong = [place for place in places if portion.lines[place].strip()]
                if wrong:
                    where = f"{path} line {portion.number + wrong[0]:,}"
                    problem = problem or f"{where}: {why_no_record(portion.lines[wrong[0]])}"
                bad += len(wrong)
                if portion.end is not None:
                    kept[key] = portion.end
        except IncompleteError as error:
            problem = problem or str(error)
        except (GruardError, OSError) as error:
            told = str(error) if isinstance(error, GruardError) else f"{path}: {reason(error)}"
            problem, failed = problem if failed else told, True
    return _Reading(tally.totals(tuple(kept.values()), bad), one_line(problem), failed)


def _findings(job: IngestJob, folder: Path, read: _Reading, new: int) -> AssetFindings:
    totals = read.totals
    references = {
        model: reference_of(folder, model, job.bundles)
        for model in dict.fromkeys(each.model for each in totals.weeks)
    }
    marks, damaged = _marks(job.marks)
    alarms = tuple(_alarm_row(job.asset, alarm, marks) for alarm in totals.alarms)
    scores = tuple(_score_rows(totals, references))
    row = AssetRecords(
        asset=job.asset,
        problem=read.problem or damaged,
        failed=read.failed,
        groups=job.groups,
        inputs=len(set(job.paths)),
        records=totals.records,
        new=new,
        repeated=totals.repeated,
        bad=totals.bad,
        alarms=len(alarms) + totals.forgotten,
        marked_false=sum(alarm.mark == "false" for alarm in alarms),
        marked_real=sum(alarm.mark == "real" for alarm in alarms),
        muted=sum(alarm.muted for alarm in alarms),
        recurring=sum(alarm.recurring for alarm in alarms),
    )
    row = _with_runs(row, totals)
    row = _with_model(row, totals, references)
    counts = tuple(each for model in totals.models for each in _count_rows(job.asset, model))
    return AssetFindings(_with_drift(row, scores), alarms, scores, counts)


def _with_runs(row: AssetRecords, totals: AssetTotals) -> AssetRecords:
    """Add times, hours and holes."""
    runs = totals.runs
    begins = [run.begin for run in runs if run.begin is not None]
    ends = [run.end for run in runs if run.end is not None]
    holes, closed = list(_holes(runs)), totals.closed
    watched = closed.watched + sum(run.watched for run in runs)
    return replace(
        row,
        runs=closed.count + len(runs),
        missing=closed.missing + sum(run.missing for run in runs),
        first=min(begins, default=0.0),
        last=max(ends, default=0.0),
        hours=(closed.covered + sum(run.covered for run in runs)) / 3600,
        holes=len(holes),
        longest_hole=max(holes, default=0.0) / 3600,
        days=watched / SECONDS_PER_DAY,
    )


def _holes(runs: Sequence[RunSeen]) -> Iterator[float]:
    """Yield the seconds between the end of a run and the beginning of the next, where they count"""
    spans = sorted(
        (run.begin, run.end, run.period or 0.0)
        for run in runs
        if run.begin is not None and run.end is not None and run.begin > EPOCH
    )
    last = -math.inf
    for (_, end, period), (begin, _, _) in pairwise(spans):
        last = max(last, end)
        if begin - last > max(SHORTEST_HOLE, HOLE_PERIODS * period):
            yield begin - last


def _with_model(
    row: AssetRecords, totals: AssetTotals, references: Mapping[str, Reference | None]
) -> AssetRecords:
    """Add what the records of the present model say."""
    latest = totals.latest
    model = next((each for each in totals.models if latest and each.model == latest.model), None)
    if latest is None or model is None:
        return row
    reference = references.get(model.model)

    def share(counts: Mapping[str, int], name: str) -> float:
        return counts.get(name, 0) / max(model.records, 1)

    silent = [*model.masked.items(), *model.imputed.items()]
    channel = max(silent, key=lambda item: item[1])[0] if silent else ""
    return replace(
        row,
        model=model.model,
        bundle=reference.bundle if reference else "",
        version=reference.version if reference else 0,
        target=reference.target if reference else 0.0,
        valid=model.valid / max(model.records, 1),
        tier1=share(model.tiers, "1"),
        tier2=share(model.tiers, "2"),
        tier3=share(model.tiers, "3"),
        gap=share(model.flags, "GAP"),
        timing=share(model.flags, "TIMING"),
        late=share(model.flags, "LATE"),
        learning=share(model.flags, "LEARNING"),
        new_mode=share(model.flags, "UNKNOWN_MODE"),
        changed="CHANGED" in latest.flags,
        channel=channel,
        masked=share(model.masked, channel),
        closed=share(model.imputed, channel),
    )


def _with_drift(row: AssetRecords, scores: Sequence[ScoreRow]) -> AssetRecords:
    """Add the drift of the newest week of the present model that can be judged."""
    weeks = [each for each in scores if each.model == row.model]
    judged = [each for each in weeks if not each.drift_note]
    if not judged:
        return replace(row, drift_note=weeks[-1].drift_note if weeks else "no healthy scores yet")
    last = judged[-1]
    return replace(
        row,
        drift=last.drift,
        drift_limit=last.drift_limit,
        drifted=last.drift > last.drift_limit,
    )


def _score_rows(
    totals: AssetTotals, references: Mapping[str, Reference | None]
) -> Iterator[ScoreRow]:
    for week in totals.weeks:
        reference = references[week.model]
        if reference is None:
            found = Drift(week.week, 0.0, 0.0, "its bundle is not known; give --bundles")
        else:
            found = drift_of(week, reference)
        yield ScoreRow(
            totals.asset, week.model, week.threshold, week.week, sum(week.counts), week.counts,
            found.index, found.limit, found.problem,
        )  # fmt: skip


def _count_rows(asset: str, model: ModelTotals) -> Iterator[CountRow]:
    named = {
        "tier": model.tiers, "flag": model.flags, "masked": model.masked, "closed": model.imputed,
    }  # fmt: skip
    for what, counts in named.items():
        for name, count in counts.items():
            yield CountRow(asset, model.model, what, name, count, count / max(model.records, 1))


def _alarm_row(asset: str, alarm: SeenAlarm, marks: Sequence[AlarmMark]) -> AlarmRow:
    mark = next((each for each in reversed(marks) if _is_of(each, alarm)), None)
    return AlarmRow(
        asset=asset,
        run=alarm.run,
        first=alarm.first,
        last=alarm.last,
        start=alarm.start or 0.0,
        end=alarm.end or 0.0,
        model=alarm.model,
        blamed=alarm.blamed,
        kind=alarm.kind,
        worst=alarm.worst,
        muted=alarm.muted,
        recurring=alarm.recurring,
        mark="" if mark is None else "real" if mark.real else "false",
    )


def _is_of(mark: AlarmMark, alarm: SeenAlarm) -> bool:
    if mark.alarm.index != alarm.first:
        return False
    return alarm.start is None or abs(mark.alarm.start - alarm.start) <= SAME_TIME


def _marks(folders: Sequence[str]) -> tuple[list[AlarmMark], str]:
    """Return what the owner said in all `folders`, oldest first, and what is damaged of it."""
    marks, problem = list[AlarmMark](), ""
    for folder in dict.fromkeys(folders):
        try:
            found, damaged = read_marks(Path(folder))
        except GruardError as error:
            problem = problem or str(error)
            continue
        marks += found
        if damaged:
            problem = problem or f"{folder}: {damaged} damaged marks are skipped"
    return sorted(marks, key=lambda mark: mark.told), problem
