"""Rows that the owner leaves out of a recording, and rows that learning leaves out by itself."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import GruardError, quoted
from edge_runtime.learning.recording import Dataset, Recording
from edge_runtime.learning.split import pieces_where
from edge_runtime.look.facts import find_all, left_out
from edge_runtime.look.spans import moment, parse_span

Ints = npt.NDArray[np.intp]


def first_rows(dataset: Dataset) -> dict[str, int]:
    """The number of the first row of each file, where the rows of all files are counted on."""
    lengths: dict[str, int] = {}
    for recording in dataset.recordings:
        stop = recording.first_row + recording.rows
        lengths[recording.name] = max(stop, lengths.get(recording.name, 0))
    starts = np.cumsum([0, *lengths.values()]).tolist()
    return dict(zip(lengths, starts, strict=False))


def without(dataset: Dataset, spans: Sequence[str], starts: Mapping[str, int]) -> Dataset:
    """`dataset` without the rows in `spans`, cut there; starts: see `first_rows`.

    Raises GruardError for a span that cannot be read or holds no row, and when no row is left.
    """
    for span in map(parse_span, spans):
        left: list[Recording] = []
        for recording in dataset.recordings:
            inside = span.covers(_rows(recording, starts), recording.times)
            left.extend(pieces_where(recording, ~inside))
        if sum(recording.rows for recording in left) == dataset.rows:
            raise GruardError(
                f"--exclude {quoted(span.text)}: holds no row; the recording has {_extent(dataset)}"
            )
        if not left:
            raise GruardError(f"--exclude {quoted(span.text)}: leaves no row; exclude fewer")
        dataset = replace(dataset, recordings=tuple(left))
    return dataset


def without_strange(
    dataset: Dataset, skipped: Collection[str], starts: Mapping[str, int]
) -> tuple[Dataset, tuple[str, ...]]:
    """`dataset` without the stretches that are unlike the rest, cut there, and a sentence for each.

    skipped: names of files that are not learned from. Rows labelled anomalous are known, and not
    looked at; rows labelled healthy stay in, whatever they look like.
    """
    recordings = [r for r in dataset.recordings if r.name not in skipped]
    clean = [np.ones(r.rows, bool) if r.labels is None else r.labels == 0 for r in recordings]
    pairs = list(zip(recordings, clean, strict=True))
    if not any(kept.any() for kept in clean):
        return dataset, ()
    times = [r.times[kept] for r, kept in pairs if r.times is not None]
    findings = find_all(
        np.concatenate([r.values[kept] for r, kept in pairs]),
        dataset.channels,
        np.concatenate([_rows(r, starts)[kept] for r, kept in pairs]),
        np.concatenate(times) if len(times) == len(pairs) else None,
        dataset.period,
        np.concatenate([np.full(int(kept.sum()), r.labels is not None) for r, kept in pairs]),
    )
    pieces = [
        (recording,)
        if recording.name in skipped
        else pieces_where(recording, ~left_out(findings, _rows(recording, starts)))
        for recording in dataset.recordings
    ]
    left = replace(dataset, recordings=tuple(piece for cut in pieces for piece in cut))
    return left, tuple(finding.sentence() for finding in findings)


def _rows(recording: Recording, starts: Mapping[str, int]) -> Ints:
    first = starts[recording.name] + recording.first_row
    return np.arange(first, first + recording.rows, dtype=np.intp)


def _extent(dataset: Dataset) -> str:
    """The rows, and the times where there are any."""
    times = [r.times for r in dataset.recordings if r.times is not None]
    rows = f"{dataset.rows:,} rows"
    if not times:
        return f"{rows} and no times"
    first, last = min(t.min() for t in times), max(t.max() for t in times)
    return f"{rows} from {moment(float(first))} to {moment(float(last))}"
