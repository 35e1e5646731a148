"""Read records and the recording they answer, and write `timeline.png` and `report.html`."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from convert.timeline.page import headline, page
from convert.timeline.picture import draw
from convert.timeline.run_facts import Bools, Facts, Float64, RunRecording, run_facts
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.columns import NOTHING_SAID
from edge_runtime.errors import GruardError
from edge_runtime.files import open_input
from edge_runtime.record import Flag, Record
from edge_runtime.sources.csvfile import Table, read_table
from train.run_folder import write_atomically

_NUMBER = (int, float)
_NONE = type(None)
_FIELDS: dict[str, tuple[type, ...]] = {
    "index": (int,),
    "time": (*_NUMBER, _NONE),
    "tier": (int,),
    "flags": (list,),
    "valid": (bool,),
    "score": (*_NUMBER, _NONE),
    "threshold": (*_NUMBER, _NONE),
    "alarm": (bool,),
    "masked": (list,),
    "imputed": (list,),
    "blamed": (list,),
    "model": (str,),
}
# Optional: records of an older runtime lack these fields.
_DIAGNOSIS: dict[str, tuple[type, ...]] = {
    "kind": (str, _NONE),
    "probability": (*_NUMBER, _NONE),
    "sensor": (bool, _NONE),
}


@dataclass(frozen=True)
class Timeline:
    """The two written files, and their content."""

    picture: Path
    report: Path
    headline: str
    facts: Facts


def write_timeline(records: Path, data: Path, out: Path, bundle: Path | None = None) -> Timeline:
    """Write timeline.png and report.html into the folder `out`, each atomically.

    Raises GruardError when an input is unusable, when records and data belong to different runs,
    or when the folder cannot be written. Both contents are made before the first file is written.
    """
    watch = read_watch_run(records, data, bundle)
    facts = run_facts(watch)
    sentence = headline(watch, facts)
    picture = draw(watch, facts, sentence)
    report = page(watch, facts, sentence, picture).encode()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GruardError(f"{out}: cannot be made a folder ({error.strerror})") from None
    done = Timeline(out / "timeline.png", out / "report.html", sentence, facts)
    write_atomically(done.picture, picture)
    write_atomically(done.report, report)
    return done


def read_watch_run(records: Path, data: Path, bundle: Path | None = None) -> RunRecording:
    """Align records and recording: every index that is not a gap has one row of the data."""
    found = read_records(records)
    # Only channel names and units are used, so a bundle that failed its validation is accepted.
    manifest = read_bundle(bundle, allow_failed=True).manifest if bundle else None
    wanted = manifest.channel_names if manifest else None
    said, period = (manifest.columns, manifest.period) if manifest else (NOTHING_SAID, None)
    table = _answered_rows(found, read_table(data, said, wanted, period=period))
    channels = table.channels
    units = tuple(c.unit for c in manifest.channels) if manifest else ("",) * len(channels)
    _check_names(found, channels, records, data)
    slots, doubled = _by_index(found, table, records)
    present = np.array([r is None or Flag.GAP not in r.flags for r in slots])
    aligned = np.full((len(slots), len(channels)), np.nan, np.float32)
    aligned[present] = table.values
    return RunRecording(
        name=data.name,
        channels=channels,
        units=units,
        records=slots,
        doubled=doubled,
        values=aligned,
        labels=_labels(table, present),
        seconds=_seconds(table, present),
    )


def read_records(path: Path) -> list[Record]:
    """Read the records in a file of JSON lines, in its order.

    Unknown fields are ignored; GruardError names a line that is no record.
    """
    try:
        with open_input(path, "give the file of gruard's --sink") as stream:
            text = stream.read().decode()
    except OSError as error:
        raise GruardError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise GruardError(f"{path}: is not UTF-8 text; give the file of gruard's --sink") from None
    # Not splitlines: it also splits at characters that JSON text may contain.
    lines = enumerate(text.split("\n"), start=1)
    found = [_record(line, f"{path} line {number}") for number, line in lines if line.strip()]
    if not found:
        raise GruardError(f"{path}: holds no record; give the file written by gruard's --sink")
    return found


def _record(line: str, where: str) -> Record:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise GruardError(f"{where}: is not a JSON object; give the file of gruard's --sink")
    missing = [name for name in _FIELDS if name not in data]
    if missing:
        raise GruardError(f"{where}: fields missing: {', '.join(missing)}")
    expected = _FIELDS | _DIAGNOSIS
    fields: dict[str, Any] = {name: data.get(name) for name in expected}
    for name, kinds in expected.items():
        if type(fields[name]) not in kinds:
            raise GruardError(f"{where}: {name}: {fields[name]!r} is not what a record holds")
    for name in ("masked", "imputed", "blamed"):
        fields[name] = tuple(map(str, fields[name]))
    fields["flags"] = _flags(fields["flags"], where)
    if fields["index"] < 0 or fields["tier"] not in (1, 2, 3):
        raise GruardError(f"{where}: index {fields['index']}, tier {fields['tier']} is no record's")
    return Record(**fields)


def _flags(names: Iterable[Any], where: str) -> Flag:
    flags = Flag(0)
    for name in names:
        if name not in Flag.__members__:
            raise GruardError(f"{where}: flag {name!r} is unknown; update this checkout")
        flags |= Flag[name]
    return flags


def _check_names(
    found: Iterable[Record], channels: tuple[str, ...], path: Path, data: Path
) -> None:
    named = {name for r in found for name in (*r.masked, *r.imputed, *r.blamed)}
    if strangers := sorted(named.difference(channels)):
        raise GruardError(
            f"{path}: names channels that {data} has not: {', '.join(strangers)}; "
            "give the CSV file that was watched"
        )


def _answered_rows(found: list[Record], table: Table) -> Table:
    """Return `table` without the rows that the sample clock left out, found by their times."""
    if table.times is None or not any(Flag.TIMING in record.flags for record in found):
        return table
    gaps = len({record.index for record in found if Flag.GAP in record.flags})
    if max(record.index for record in found) + 1 - gaps >= len(table.times):
        return table
    answered = Counter(record.time for record in found if Flag.GAP not in record.flags)
    kept = []
    for row, time in enumerate(table.times.tolist()):
        if answered[time] > 0:
            answered[time] -= 1
            kept.append(row)
    labels = None if table.labels is None else table.labels[kept]
    return replace(table, times=table.times[kept], values=table.values[kept], labels=labels)


def _by_index(
    found: list[Record], table: Table, path: Path
) -> tuple[tuple[Record | None, ...], tuple[int, ...]]:
    """Return the first record of every index up to the last, and the indices with more than one.

    An index without a record counts as a sample, because every gap has its own record.
    """
    first: dict[int, Record] = {}
    doubled = set()
    for record in found:
        if first.setdefault(record.index, record) is not record:
            doubled.add(record.index)
    gaps = sum(Flag.GAP in record.flags for record in first.values())
    length, rows = max(first) + 1, len(table.values)
    if length - gaps != rows:
        raise GruardError(
            f"{path}: its records answer {length - gaps} samples (and {gaps} gaps), but "
            f"{table.path} has {rows} rows; give the CSV file that was watched, and all records"
        )
    return tuple(first.get(index) for index in range(length)), tuple(sorted(doubled))


def _labels(table: Table, present: Bools) -> Bools | None:
    """Return labels by index; a gap has the label of the row before it."""
    if table.labels is None:
        return None
    rows = np.maximum(np.cumsum(present) - 1, 0)
    return table.labels[rows] == 1


def _seconds(table: Table, present: Bools) -> Float64 | None:
    """Return seconds since the first row, interpolated in gaps; None if times do not increase."""
    if table.times is None or (np.diff(table.times) <= 0).any():
        return None
    return np.interp(np.arange(len(present)), np.flatnonzero(present), table.times - table.times[0])
