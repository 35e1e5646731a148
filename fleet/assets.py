"""The list of assets: a folder with a recording or folder each, or a table in CSV or Parquet."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_runtime.commands.ranges import FALSE_ALARMS_PER_DAY
from edge_runtime.errors import GruardError
from edge_runtime.learning.settings import find_settings
from edge_runtime.updates.published import ASSET
from fleet.results import AUTO, LINEAR, AssetResult, asset_folder, newest, next_version

SUFFIXES = (".csv", ".csv.gz", ".parquet")
REQUIRED = ("asset", "data")
MODELS = (AUTO, LINEAR)
FEWEST_ASSETS = 5  # of a type that has a model


@dataclass(frozen=True, slots=True)
class Asset:
    """One machine to learn or to score, or whose bundle is proven.

    data: a recording, or a folder of them; None where the newest result is enough. settings: the
    file of its channels, None to look next to the data. target: false alarms a day. model: auto,
    or linear, which never gets a network. type: the same for assets of one design, empty for none.
    bundle: to score with, None to learn. problem: why neither is possible; empty if it is.
    """

    name: str
    data: Path | None
    settings: Path | None
    target: float
    model: str = AUTO
    type: str = ""
    bundle: Path | None = None
    problem: str = ""


def read_assets(path: Path, target: float, out: Path) -> tuple[Asset, ...]:
    """Return the assets of a folder or table, in its order.

    target: false alarms a day where the table has none. out: where results go; not into the folder
    of the assets, where they would be assets the next time. A row that cannot be used is an asset
    with a `problem`. Raises GruardError when the list as a whole cannot be used.
    """
    if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        raise GruardError(f"--out {out}: lies in {path}; choose a folder outside of it")
    try:
        found = tuple(_of_folder(path, target) if path.is_dir() else _of_table(path, target))
    except OSError as error:
        raise GruardError(f"{path}: cannot be read ({error.strerror})") from None
    if not found:
        raise GruardError(
            f"{path}: no assets; give a folder with a CSV file or a folder for each asset, or a "
            "table with the columns asset and data"
        )
    return _without_repeats(found)


def with_bundles(assets: Sequence[Asset], fleet: Path, back: int = 0) -> tuple[Asset, ...]:
    """Add the newest bundle in the folder `fleet` to each of `assets`, or a problem.

    back: how many versions before the newest, as far as there are so many. Raises GruardError when
    the folder is none of a fleet.
    """
    _require_fleet(fleet)
    return tuple(_with_bundle(asset, fleet, back) for asset in assets)


def learned_assets(fleet: Path, target: float) -> tuple[Asset, ...]:
    """Return the assets with results in the folder `fleet`, by name, without recordings.

    target: a value for all of them, since their bundles have their own. Raises GruardError when the
    folder is none of a fleet.
    """
    _require_fleet(fleet)
    folders = sorted((fleet / "assets").iterdir())
    return tuple(Asset(each.name, None, None, target) for each in folders if next_version(each) > 1)


def _require_fleet(folder: Path) -> None:
    if not (folder / "assets").is_dir():
        raise GruardError(f"{folder}: not the folder of a fleet; make one: python -m fleet train")


def _with_bundle(asset: Asset, fleet: Path, back: int) -> Asset:
    if asset.problem:
        return asset
    try:
        known = newest(asset_folder(fleet, asset.name), AssetResult, back)
    except GruardError as error:
        return replace(asset, problem=str(error))
    if known is None:
        problem = f"{fleet} has no bundle of {asset.name}; train it first"
        return replace(asset, problem=problem)
    return replace(asset, bundle=fleet / known.bundle)


def _of_folder(folder: Path, target: float) -> Iterator[Asset]:
    shared = find_settings(folder)
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        suffix = next((each for each in SUFFIXES if entry.name.lower().endswith(each)), None)
        if entry.is_dir():
            own = _own_settings(entry)
            asset = Asset(entry.name, entry, own or shared, target)
        elif suffix is not None:
            asset = Asset(entry.name[: -len(suffix)], entry, None, target)
        else:
            continue
        yield replace(asset, problem=name_problem(asset.name))


def _of_table(file: Path, target: float) -> Iterator[Asset]:
    for place, row in table_rows(file, REQUIRED):
        yield _of_row(row, place, file.parent, target)


def _of_row(row: Mapping[str, str], place: str, folder: Path, target: float) -> Asset:
    name, data, settings, design = (
        row.get(each, "").strip() for each in ("asset", "data", "settings", "type")
    )
    model = row.get("model", "").strip() or MODELS[0]
    problem = name_problem(name) or (name_problem(design) if design else "")
    if not data:
        problem = problem or f"{place}: the column data is empty; name a recording or a folder"
    if model not in MODELS:
        problem = problem or (
            f"{place}: the model '{model}' is not learned here; write auto or linear, or train it "
            "with python -m train fit"
        )
    text = row.get("target", "").strip()
    wished = _number(text) if text else target
    if wished is None:
        problem = problem or (
            f"{place}: the target '{text}' is no number of false alarms a day; write e.g. 1 or 0.1"
        )
    return Asset(
        name=name or place,
        data=folder / data,
        settings=folder / settings if settings else None,
        target=target if wished is None else wished,
        model=model,
        type=design,
        problem=problem,
    )


def table_rows(file: Path, required: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield a place for messages and the cells by column, of each row of a CSV or Parquet file.

    required: columns that must be there. Raises OSError, and GruardError for a file that is none.
    """
    import pyarrow

    parquet = file.suffix.lower() == ".parquet"
    try:
        table = _read_parquet(file) if parquet else _read_csv(file)
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise GruardError(
            f"{file}: no table ({reason}); give CSV in UTF-8 with a header line, or Parquet"
        ) from None
    missing = [name for name in required if name not in table.column_names]
    if missing:
        raise GruardError(
            f"{file}: the column {' and '.join(missing)} is missing; required are "
            f"{' and '.join(required)} (docs/fleet.md lists all)"
        )
    for number, row in enumerate(table.to_pylist()):
        cells = {name: "" if cell is None else str(cell) for name, cell in row.items()}
        yield f"{file.name} {'row' if parquet else 'line'} {number + 1 + (not parquet)}", cells


def _read_parquet(file: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_table(file)


def _read_csv(file: Path) -> Any:
    from pyarrow import csv, string

    with file.open("rb") as stream:
        header = stream.readline(1 << 16)
    delimiter = max(",;\t", key=lambda mark: header.count(mark.encode()))
    columns = header.decode("utf-8-sig", "replace").strip().split(delimiter)
    return csv.read_csv(
        file,
        parse_options=csv.ParseOptions(delimiter=delimiter),
        convert_options=csv.ConvertOptions(
            column_types={name.strip('"'): string() for name in columns}, strings_can_be_null=False
        ),
    )


def _number(text: str) -> float | None:
    """Return a number of false alarms a day, also with a decimal comma; None if it is none."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    assert FALSE_ALARMS_PER_DAY.min is not None and FALSE_ALARMS_PER_DAY.max is not None
    within = FALSE_ALARMS_PER_DAY.min <= value <= FALSE_ALARMS_PER_DAY.max
    return value if math.isfinite(value) and within else None


def name_problem(name: str) -> str:
    """Return why an asset cannot have this name; empty if it can."""
    if ASSET.fullmatch(name):
        return ""
    return f"the name {name!r} is no file name; use up to 80 letters, digits, '.', '_' and '-'"


def _without_repeats(assets: Sequence[Asset]) -> tuple[Asset, ...]:
    """Give each asset after the first of its name a problem."""
    seen: set[str] = set()
    kept = []
    for asset in assets:
        repeated = asset.name in seen
        seen.add(asset.name)
        again = f"the name {asset.name} is there twice; only the first is learned, rename this one"
        kept.append(replace(asset, problem=again) if repeated and not asset.problem else asset)
    return tuple(kept)


def _own_settings(folder: Path) -> Path | None:
    """Return the settings file in an asset's folder; an error there is found when it is learned."""
    try:
        return find_settings(folder)
    except GruardError:
        return None
