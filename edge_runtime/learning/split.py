"""Split recordings in time order into rows to train, to stop early, to calibrate and to test.

The gap between two parts is longer than the memory of the model. Forecasts and thresholds must
learn from clean rows, so rows labelled anomalous are cut out of every part except the test. Those
of the training part are returned separately; the gate learns from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import GruardError
from edge_runtime.learning.recording import Recording

MANY_RECORDINGS = 8
PARTS = ("train", "validate", "calibrate", "test")
Recordings = tuple[Recording, ...]


@dataclass(frozen=True)
class Split:
    """train: the weights; validate: early stopping; calibrate: thresholds; test: the report.

    labelled: what labels cut out of the training part, each labelled row with its margin. Of the
    other parts only `test` may hold rows labelled anomalous.
    """

    train: Recordings
    validate: Recordings
    calibrate: Recordings
    test: Recordings
    labelled: Recordings = ()


def split_by_time(
    recordings: Sequence[Recording],
    fractions: tuple[float, float, float, float] = (0.6, 0.1, 0.2, 0.1),
    gap: int = 128,
    margin: int = 128,
    calibrate: Sequence[Recording] = (),
    test: Sequence[Recording] = (),
) -> Split:
    """Split recordings, laid end to end in the given order, at the given fractions of their rows.

    fractions: shares of `PARTS`; a part given explicitly (`calibrate`, `test`) takes no share,
    and the others grow in proportion. gap: rows left out before each later part. margin: rows
    cut out on both sides of a labelled anomaly. From 8 recordings on each stays whole, in the
    part its middle falls into, unless a part would then be empty. If anomalies fill a whole part,
    only the clean rows are divided. Raises GruardError when a part with a share ends up without
    clean rows even so.
    """
    given = {"calibrate": tuple(calibrate), "test": tuple(test)}
    shares = [
        0.0 if given.get(part) else share for part, share in zip(PARTS, fractions, strict=True)
    ]
    wanted = [part for part, share in zip(PARTS, shares, strict=True) if share > 0]
    needed = [part for part in PARTS if part in wanted or given.get(part)]
    clean = [piece for r in recordings for piece in clean_parts(r, margin)]
    # Where anomalies fill a whole part, only the clean rows are divided.
    for divisible in (recordings, clean):
        edges = _edges(shares, sum(recording.rows for recording in divisible))
        divided = _whole(divisible, edges, wanted) or _divided(divisible, edges, gap)
        parts = {part: given.get(part) or divided[part] for part in PARTS}
        learned = recordings if divisible is clean else parts["train"]
        labelled = tuple(piece for r in learned for piece in labelled_parts(r, margin))
        for part in ("train", "validate", "calibrate"):
            parts[part] = tuple(piece for r in parts[part] for piece in clean_parts(r, margin))
        if all(parts[part] for part in needed):
            return Split(**parts, labelled=labelled)
    empty = next(part for part in needed if not parts[part])
    rows, kept = (sum(r.rows for r in part) for part in (recordings, clean))
    raise GruardError(
        f"no clean rows are left to {empty}: {kept} of {rows} rows are clean ({margin} rows around "
        f"every labelled anomaly and {gap} rows between two parts are left out); record the "
        "healthy machine for longer"
    )


def clean_parts(recording: Recording, margin: int) -> Recordings:
    """Return the stretches at least `margin` rows away from every row labelled anomalous."""
    if recording.labels is None or not recording.labels.any():
        return (recording,) if recording.rows else ()
    return pieces_where(recording, ~near(recording.labels, margin))


def labelled_parts(recording: Recording, margin: int) -> Recordings:
    """Return the other stretches: every row labelled anomalous, and `margin` rows around it."""
    if recording.labels is None or not recording.labels.any():
        return ()
    return pieces_where(recording, near(recording.labels, margin))


def near(flags: npt.ArrayLike, margin: int) -> npt.NDArray[np.bool_]:
    """Return bool [n]: whether one of `flags` [n] at most `margin` rows away is not 0."""
    there = np.asarray(flags) != 0
    reach = np.ones(2 * margin + 1, dtype=np.int64)
    return np.convolve(there, reach)[margin : margin + len(there)] > 0


def pieces_where(recording: Recording, wanted: npt.NDArray[np.bool_]) -> Recordings:
    """Return the maximal pieces of a recording in which every row is wanted."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]])))
    return tuple(recording.cut(int(a), int(b)) for a, b in edges.reshape(-1, 2))


def _edges(shares: Sequence[float], rows: int) -> list[int]:
    total = sum(shares)
    return [0, *(round(rows * share / total) for share in accumulate(shares))]


def _whole(
    recordings: Sequence[Recording], edges: Sequence[int], wanted: Sequence[str]
) -> dict[str, Recordings] | None:
    if len(recordings) < MANY_RECORDINGS:
        return None
    stops = np.cumsum([recording.rows for recording in recordings])
    middles = stops - np.array([recording.rows / 2 for recording in recordings])
    owners = np.searchsorted(edges[1:-1], middles, side="right")
    parts = {
        part: tuple(r for r, owner in zip(recordings, owners, strict=True) if owner == index)
        for index, part in enumerate(PARTS)
    }
    return parts if all(parts[part] for part in wanted) else None


def _divided(
    recordings: Sequence[Recording], edges: Sequence[int], gap: int
) -> dict[str, Recordings]:
    parts: dict[str, Recordings] = {}
    for index, part in enumerate(PARTS):
        start = edges[index] + (gap if edges[index] else 0)
        parts[part] = _between(recordings, start, edges[index + 1])
    return parts


def _between(recordings: Sequence[Recording], start: int, stop: int) -> Recordings:
    pieces = []
    offset = 0
    for recording in recordings:
        first, last = max(start - offset, 0), min(stop - offset, recording.rows)
        if first < last:
            pieces.append(recording.cut(first, last))
        offset += recording.rows
    return tuple(pieces)


def split_sentence(split: Split, channels: int, period: float | None) -> str:
    """Return how many rows each part has."""
    rows = {part: sum(r.rows for r in getattr(split, part)) for part in PARTS}
    parts = ", ".join(f"{count} to {part}" for part, count in rows.items())
    every = f"one every {period:g} s" if period else "sample period unknown"
    return f"{channels} channels, {every}; rows: {parts}"
