"""Everything that is measured of a model on held-out clean rows with faults."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt

from benchmarks.float_score import Seen, score_constants, score_rows
from benchmarks.gate_figures import (
    Disturbed,
    disturbance,
    last_quarter,
    recall,
    standing,
    threshold_at,
)
from benchmarks.gate_streams import LONG_KINDS, FaultyStreams, visible
from benchmarks.judge import Figures
from edge_runtime.detector.score import ScoreConstants
from train.selection import SETTLING, average_precision

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Clean rows above the threshold. A smaller share of some thousand rows is a handful of rows.
FALSE_SHARE = 0.005


@dataclass(frozen=True)
class Watched:
    """Streams and what a model made of them.

    scores: float64 [streams, n]. errors: |clean reading - forecast| in innovation scales [streams,
    n, channels]. usable: bool [n, channels], scored channels whose clean reading is there.
    """

    streams: FaultyStreams
    constants: ScoreConstants
    scores: Float64
    errors: Float64
    usable: Bools

    @property
    def calm(self) -> Float64:
        """The scores of the clean stream, settled."""
        return self.scores[0, SETTLING:]

    @property
    def threshold(self) -> float:
        """The score that `FALSE_SHARE` of the clean rows exceed."""
        return threshold_at(self.calm, FALSE_SHARE)


def watch(
    streams: FaultyStreams, seen: Seen, scale: Float32, exogenous: Bools, evidence: bool
) -> Watched:
    """Scores and errors of all streams; the score's constants come from the clean one.

    evidence: the gate's doubt counts in the score.
    """
    every = list(zip(seen.forecast, seen.doubt, streams.values, streams.masks, strict=True))
    constants = score_constants(*every[0], exogenous, evidence)
    return Watched(
        streams=streams,
        constants=constants,
        scores=np.stack([score_rows(*stream, constants) for stream in every]),
        errors=np.abs((streams.values[0] - seen.forecast) / scale).astype(np.float64),
        usable=(streams.masks[0] > 0) & ~exogenous,
    )


def injected_figures(watched: Watched) -> Figures:
    """Figures by name; None where nothing could be measured."""
    streams = watched.streams
    during, after = _disturbances(watched)
    ranked = watched.scores[list(streams.ranked), SETTLING:]
    figures = {
        "clean_error": float(watched.errors[0, SETTLING:][watched.usable[SETTLING:]].mean()),
        "error_during": during.multiple,
        "error_after": after.multiple,
        "injected_precision": average_precision(
            ranked.ravel(), streams.faulty[:, SETTLING:].ravel()
        ),
        "injected_recall": _mean(_found(watched)),
        **_lasting(watched),
    }
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


def _disturbances(watched: Watched) -> tuple[Disturbed, Disturbed]:
    pairs = [
        disturbance(watched.errors[number], watched.errors[0], watched.usable, events)
        for number, events in (watched.streams.short | watched.streams.long).items()
    ]
    return reduce(add, (during for during, _ in pairs)), reduce(add, (after for _, after in pairs))


def _found(watched: Watched) -> list[float]:
    """1 for each short fault that the score finds, 0 for each that it misses."""
    streams = watched.streams
    found: list[float] = []
    for number, events in streams.short.items():
        missing = streams.masks[number] < streams.masks[0]
        shown = visible(events, streams.values[number], streams.values[0], missing)
        found += recall(watched.scores[number], watched.threshold, shown)
    return found


def _lasting(watched: Watched) -> dict[str, float]:
    """How visible lasting faults are towards their end, by kind and over all."""
    ends: dict[str, list[float]] = {f"long_{kind.name.lower()}": [] for kind in LONG_KINDS}
    for number, events in watched.streams.long.items():
        for event in events:
            scores = last_quarter(watched.scores[number], event)
            ends[f"long_{event.kind.name.lower()}"] += scores.tolist()
    shares = {name: _share_above(scores, watched.threshold) for name, scores in ends.items()}
    every = [score for scores in ends.values() for score in scores]
    mean = standing(np.array(every), watched.calm, watched.threshold) if every else math.nan
    return {**shares, "long_share": _share_above(every, watched.threshold), "long_score": mean}


def _share_above(scores: Sequence[float], threshold: float) -> float:
    return _mean([float(score > threshold) for score in scores])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
