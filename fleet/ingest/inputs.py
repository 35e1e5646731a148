"""Which files and journals hold the records of which asset."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_runtime.alarms.log import ALARMS
from edge_runtime.errors import GruardError
from edge_runtime.files import kind_at
from edge_runtime.marks import MARKS
from fleet.assets import name_problem, table_rows
from fleet.ingest.batches import LONGEST_LINE
from fleet.ingest.reading import first_line

JOURNAL = ".journal"
INBOX = "inbox"
"""Folder of `--out` for what was received from a broker; read like any other."""
_LINES = re.compile(r"(.+?)\.jsonl(?:[.-][0-9]+)*(?:\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class AssetInputs:
    """All inputs of one asset. paths: files of JSON lines, and folders of journals.

    marks: folders with what the owner said of its alarms. groups: such as `site North`. bundles:
    where its model may be, the newest first. problem: why it cannot be read; empty if it can.
    """

    asset: str
    paths: tuple[Path, ...] = ()
    marks: tuple[Path, ...] = ()
    groups: tuple[str, ...] = ()
    bundles: tuple[Path, ...] = ()
    problem: str = ""


def find_inputs(
    places: Sequence[Path], out: Path, may_be_empty: bool = False
) -> tuple[AssetInputs, ...]:
    """Return the inputs of each asset in `places` and in the inbox of `out`, by name.

    A place is a file, a journal, or a folder with a file or a folder for each asset. Raises
    GruardError for a place that is none of these, and where nothing is found, unless that may be.
    """
    found: dict[str, AssetInputs] = {}
    for place in places:
        if out.resolve().is_relative_to(place.resolve()):
            raise GruardError(f"--out {out}: lies in {place}; choose a folder outside of it")
        _add(found, _of_place(place))
    if (out / INBOX).is_dir():
        _add(found, _of_folder(out / INBOX))
    if not found and not may_be_empty:
        raise GruardError(
            f"{', '.join(map(str, places))}: no records; give *.jsonl or *.jsonl.gz files, "
            "journals, or a folder with a file or a folder for each asset"
        )
    return tuple(found[name] for name in sorted(found))


def with_groups(inputs: Sequence[AssetInputs], table: Path | None) -> tuple[AssetInputs, ...]:
    """Add the site and the type of each asset from a table. Raises GruardError."""
    if table is None:
        return tuple(inputs)
    groups: dict[str, tuple[str, ...]] = {}
    try:
        rows = list(table_rows(table, ("asset",)))
    except OSError as error:
        raise GruardError(f"{table}: cannot be read ({error.strerror})") from None
    for place, row in rows:
        said = [(each, row.get(each, "").strip()) for each in ("site", "type")]
        name = row["asset"].strip()
        if name in groups:
            raise GruardError(f"{table}: {place}: {name} is there twice; leave one out")
        groups[name] = tuple(f"{column} {cell}" for column, cell in said if cell)
    return tuple(replace(each, groups=groups.get(each.asset, ())) for each in inputs)


def with_bundle_folder(
    inputs: Sequence[AssetInputs], folder: Path | None
) -> tuple[AssetInputs, ...]:
    """Add the bundles of each asset in `folder`, that of `fleet train` or one of bundles.

    Raises GruardError when there is no such folder.
    """
    if folder is None:
        return tuple(inputs)
    if not folder.is_dir():
        raise GruardError(f"--bundles {folder}: is no folder; give that of python -m fleet train")
    return tuple(
        replace(each, bundles=() if each.problem else tuple(_bundles(folder, each.asset)))
        for each in inputs
    )


def first_time(path: Path) -> float:
    """Return the time of the first record of a file, to read files in order; 0 without one."""
    if path.is_dir():
        return 0.0
    try:
        return float(json.loads(first_line(path, LONGEST_LINE))["time"])
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError):
        return 0.0


def _bundles(folder: Path, asset: str) -> list[Path]:
    own = folder / "assets" / asset
    versions = sorted(own.glob("*/*.gruard"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [*versions, *sorted(folder.glob(f"{asset}-*.gruard"), reverse=True)]


def _of_place(place: Path) -> Iterator[AssetInputs]:
    kind = kind_at(place)
    if kind == "a directory":
        if _is_asset(place):
            name = place.resolve().name
            yield _named(name, _records_below(place))
        else:
            yield from _of_folder(place)
    elif kind == "a file" and (name := _asset_of(place)):
        yield _named(name, [place])
    else:
        what = f"is {kind}" if kind and kind != "a file" else "no such file"
        if kind == "a file":
            what = "its name does not end in .jsonl or .jsonl.gz"
        raise GruardError(f"{place}: {what}; give JSON lines, a journal or a folder of them")


def _of_folder(folder: Path) -> Iterator[AssetInputs]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise GruardError(f"{folder}: cannot be read ({error.strerror})") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield _named(entry.name, _records_below(entry))
        elif name := _asset_of(entry):
            yield _named(name, [entry])


def _named(name: str, paths: Sequence[Path]) -> AssetInputs:
    records = tuple(path for path in paths if path.name != MARKS)
    marks = tuple(path.parent for path in paths if path.name == MARKS)
    return AssetInputs(name, records, marks, problem=name_problem(name))


def _records_below(folder: Path) -> list[Path]:
    """Return files of records, journals and marks in a folder and the folders below it."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        here = Path(place)
        if any(name.endswith(JOURNAL) for name in names):
            found.append(here)
        found += [here / name for name in sorted(names) if name == MARKS or _asset_of(here / name)]
    return found


def _is_asset(folder: Path) -> bool:
    """Return whether a folder is that of one device: a journal, or the state of a run."""
    names = {entry.name for entry in folder.iterdir()}
    return bool(names & {MARKS, ALARMS}) or any(name.endswith(JOURNAL) for name in names)


def _asset_of(file: Path) -> str:
    """Return the asset that a file of records is named after; empty for other files."""
    match = _LINES.fullmatch(file.name)
    return match[1] if match and file.name != MARKS and not file.name.startswith(".") else ""


def _add(found: dict[str, AssetInputs], more: Iterator[AssetInputs]) -> None:
    for each in more:
        known = found.get(each.asset)
        found[each.asset] = (
            each
            if known is None
            else replace(
                known, paths=(*known.paths, *each.paths), marks=(*known.marks, *each.marks)
            )
        )
