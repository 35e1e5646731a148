"""The recordings to learn from: read, checked and split.

Columns without a signal (text, empty, constant, counting) are left out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.errors import GruardError
from edge_runtime.learning.exclusion import first_rows, without, without_strange
from edge_runtime.learning.prepare import unread
from edge_runtime.learning.recording import (
    Dataset,
    Recording,
    bridged,
    read_recordings,
    require_rows,
)
from edge_runtime.learning.settings import Settings, declared, find_settings, load_settings
from edge_runtime.learning.split import Split, split_by_time
from edge_runtime.look.facts import FEWEST_ROWS
from edge_runtime.look.recording import KINDS, column_kind, expand

# The state forgets within some tens of samples; parts this far apart share nothing.
LARGEST_GAP = 128
_SHOWN = 20  # characters of a cell
MOST_CHANNELS = 256  # of a bundle


@dataclass(frozen=True)
class Request:
    """The recordings of a healthy machine. Empty `calibrate` and `test`: split by time.

    exclude: spans of the recordings to leave out, see `edge_runtime.look.spans`. chosen: the only
    columns that are channels, empty for all; ignored: columns that are none. fewest: rows that are
    enough.
    """

    data: tuple[Path, ...]
    calibrate: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    exclude: tuple[str, ...] = ()
    settings: Path | None = None
    period: float | None = None
    said: Columns = NOTHING_SAID
    chosen: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    fewest: int = FEWEST_ROWS


@dataclass(frozen=True)
class Data:
    """All files of a request as one checked dataset, its split, and the channels' settings.

    period: seconds between samples or None: from the settings, the request, or the files.
    strange: a sentence for each stretch that is unlike the rest. columns: how the device
    is to read its sources.
    """

    dataset: Dataset
    split: Split
    settings: Settings
    period: float | None
    strange: tuple[str, ...]
    columns: Columns


def read_data(request: Request) -> Data:
    """Read and check the files of `request`. Raises GruardError before anything is written."""
    _refuse_twice(request.data)
    file = request.settings or find_settings(request.data[0])
    period, named = declared(file)
    whole = _dataset(request, request.period or period)
    starts = first_rows(whole)
    kept = (*named, *request.chosen, *request.said.counters)
    left = without(whole, request.exclude, starts)
    require_rows(left, request.fewest)
    dataset = set_aside(left, kept)
    settings = load_settings(file, dataset.channels, dataset.units)
    tested = {str(file) for path in request.test for file in expand(path)}
    dataset, strange = without_strange(dataset, tested, starts)
    dataset = bridged(dataset)
    gap = min(LARGEST_GAP, dataset.rows // 50)
    calibrate = _of_files(dataset, request.calibrate)
    test = _of_files(dataset, request.test)
    taken = {recording.name for recording in (*calibrate, *test)}
    rest = [recording for recording in dataset.recordings if recording.name not in taken]
    if not rest:
        raise GruardError(
            "every file is named by --calibrate or --test; name one more recording to train on"
        )
    split = split_by_time(rest, gap=gap, margin=gap, calibrate=calibrate, test=test)
    dataset, split = _read_channels(dataset, split)
    every = settings.period or request.period or dataset.recordings[0].period
    columns = replace(request.said, dates=dataset.dates)
    return Data(dataset, split, settings, every, strange, columns)


def _read_channels(dataset: Dataset, split: Split) -> tuple[Dataset, Split]:
    """Set aside the channels without a reading in the clean rows that are learned from."""
    missing = unread((*split.train, *split.validate, *split.calibrate))
    kept = [i for i, name in enumerate(dataset.channels) if name not in missing]
    if not missing:
        return dataset, split
    if not kept:
        raise GruardError(
            f"{dataset.recordings[0].name}: no channel has a reading in the rows to learn from; "
            "record the healthy machine again"
        )

    def of(recordings: Sequence[Recording]) -> tuple[Recording, ...]:
        return tuple(_with_columns(recording, kept) for recording in recordings)

    parts = {field.name: of(getattr(split, field.name)) for field in fields(Split)}
    warning = (
        f"columns set aside: no reading in the rows to learn from: {', '.join(missing)}; record "
        "them from the start to have them watched"
    )
    warnings = (*dataset.warnings, warning)
    return replace(dataset, recordings=of(dataset.recordings), warnings=warnings), Split(**parts)


def _refuse_twice(paths: Sequence[Path]) -> None:
    files = [file for path in paths for file in expand(path)]
    for number, file in enumerate(files):
        if file in files[:number]:
            raise GruardError(f"{file}: is named twice; name each recording once")


def _dataset(request: Request, period: float | None) -> Dataset:
    paths = (*request.data, *request.calibrate, *request.test)
    chosen, ignored = request.chosen, request.ignored
    return read_recordings(paths, period, request.said, chosen=chosen, ignored=ignored)


def _of_files(dataset: Dataset, paths: Sequence[Path]) -> list[Recording]:
    """Return the dataset's recordings that come from one of `paths` (files or folders)."""
    files = {str(file) for path in paths for file in expand(path)}
    return [recording for recording in dataset.recordings if recording.name in files]


def set_aside(dataset: Dataset, named: Collection[str] = ()) -> Dataset:
    """Return `dataset` without columns that no detector can learn from; one warning lists them.

    Columns of numbers in `named`, by the settings file or an option, are kept. Raises GruardError
    when no column is left.
    """
    dropped: dict[str, list[str]] = {kind: [] for kind in ("text", *KINDS)}
    dropped["text"] = [f"{name} ('{cell[:_SHOWN]}')" for name, cell in dataset.text.items()]
    kept = []
    for column, name in enumerate(dataset.channels):
        kind = column_kind([recording.values[:, column] for recording in dataset.recordings])
        if kind is None or name in named:
            kept.append(column)
        else:
            dropped[kind].append(name)
    listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in dropped.items() if names)
    if len(kept) > MOST_CHANNELS:
        raise GruardError(
            f"{dataset.recordings[0].name}: {len(kept)} channels are too many, at most "
            f"{MOST_CHANNELS} fit in a bundle; remove columns, or make one bundle for each part "
            "of the machine"
        )
    if not listed:
        return dataset
    if not kept:
        raise GruardError(
            f"{dataset.recordings[0].name}: no column is left to learn from ({listed}); add a "
            "sensor's column, or record until a reading changes; to watch that a column stays "
            "constant, name it in the settings file"
        )
    hint = "to keep one with numbers, name it in the settings file"
    if dropped["counting"]:
        hint += f"; to watch the rate of one that counts: --counter '{dropped['counting'][0]}'"
    warning = f"columns set aside: {listed}; {hint}"
    recordings = tuple(_with_columns(recording, kept) for recording in dataset.recordings)
    return replace(dataset, recordings=recordings, warnings=(*dataset.warnings, warning))


def _with_columns(recording: Recording, columns: Sequence[int]) -> Recording:
    names = tuple(recording.channels[column] for column in columns)
    return replace(recording, channels=names, values=recording.values[:, columns])
