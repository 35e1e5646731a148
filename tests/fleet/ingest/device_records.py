"""Records as devices write them, and the totals of files of them."""

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from edge_runtime.detector.alarm import AlarmCourse
from edge_runtime.journal.frames import Entry, encode
from edge_runtime.record import Flag, Record
from edge_runtime.sinks.outbox import message
from fleet.ingest.batches import parse
from fleet.ingest.reading import read_portions
from fleet.ingest.totals import AssetTotals, Tally

START, MODEL, CHANNELS = 1.78e9, "484788c4f685", ("flow", "heat")


def stream(
    alarms: Sequence[bool], start: float | None = START, period: float = 1.0, seed: int = 0
) -> list[Record]:
    """One run of a device: a record for each of `alarms`, whether it is in alarm."""
    return [
        Record(
            index=index,
            time=None if start is None else start + index * period,
            tier=1 if index >= 3 else 3,
            flags=Flag(0) if index >= 3 else Flag.WARMUP | Flag.FALLBACK,
            valid=index >= 3,
            score=((index * 7 + seed) % 11) / 10 + 20.0 * alarm,
            threshold=10.0,
            alarm=alarm,
            masked=CHANNELS[:1] if index % 5 == 4 else (),
            imputed=CHANNELS if index % 7 == 6 else (),
            blamed=CHANNELS[1:] if alarm else (),
            model=MODEL,
            kind="level" if alarm else None,
        )
        for index, alarm in enumerate(alarms)
    ]


def text(records: Iterable[Record], run: str = "") -> bytes:
    """JSON lines, as a sink for files writes them, or with `run` as a journal does."""
    lines = [message(run, each) if run else each.to_json().encode() for each in records]
    return b"".join(line + b"\n" for line in lines)


def write(file: Path, records: Iterable[Record], run: str = "") -> Path:
    """Write a file of records; compressed if its name says so."""
    data = text(records, run)
    file.write_bytes(gzip.compress(data) if file.name.endswith(".gz") else data)
    return file


def write_journal(folder: Path, records: Sequence[Record], run: str, first: int = 1) -> Path:
    """Write a journal of one segment, whose entries are numbered from `first` on."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = [encode(Entry(first + n, message(run, each))) for n, each in enumerate(records)]
    (folder / f"{first:020}.journal").write_bytes(b"".join(frames))
    return folder


def read(paths: Iterable[Path], known: AssetTotals | None = None) -> AssetTotals:
    """The totals after reading `paths` in this order, each from its start."""
    known = known or AssetTotals("pump")
    tally, bad = Tally(known), 0
    for path in paths:
        for portion in read_portions(path, None):
            batch, places = parse(portion.lines)
            tally.add(batch)
            bad += len(places)
    return tally.totals((), bad)


def counted(totals: AssetTotals) -> tuple[object, ...]:
    """What must not depend on the way in which the records came."""
    # Which run was named first, and how often a record was repeated, may differ.
    alarms = [(a.first, a.last, a.start, a.end, a.kind, a.worst) for a in totals.alarms]
    models = [replace(m, flags=dict(sorted(m.flags.items()))) for m in totals.models]
    seen = sum(run.seen for run in totals.runs)
    return totals.records, seen, sorted(alarms), models, totals.weeks


def alarms_by_hand(records: Iterable[Record]) -> int:
    """How many alarms `gruard run` would count."""
    course, count = AlarmCourse(), 0
    for record in records:
        before, course = course.going_on, course.after(record.alarm)
        count += course.going_on and not before
    return count
