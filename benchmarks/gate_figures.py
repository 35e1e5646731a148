"""What is measured on faults of known channel and time; plain functions over arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from train.faults import FaultEvent

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

RECOVERY = 30  # rows after a fault


@dataclass(frozen=True)
class Disturbed:
    """Sums of forecast errors of healthy channels, beside those of the clean twin's same cells."""

    faulty: float = 0.0
    clean: float = 0.0

    def __add__(self, other: "Disturbed") -> "Disturbed":
        return Disturbed(self.faulty + other.faulty, self.clean + other.clean)

    @property
    def multiple(self) -> float:
        """The error as a multiple of the clean one; NaN without any cell."""
        return self.faulty / self.clean if self.clean > 0 else float("nan")


def disturbance(
    errors: Float64, clean_errors: Float64, usable: Bools, events: Iterable[FaultEvent]
) -> tuple[Disturbed, Disturbed]:
    """What faults do to the forecasts of healthy channels: during them, and in the 30 rows after.

    errors: |clean reading - forecast| [n, channels] of the stream with faults, clean_errors: of its
    clean twin; usable: cells that count. The forecast of a fault's first row was made before it, so
    it counts from the second. Channels are healthy that the fault is not in; after it, all are.
    """
    during, after = Disturbed(), Disturbed()
    for event in events:
        others = usable[event.start + 1 : event.stop].copy()
        others[:, list(event.channels)] = False
        during += _summed(errors, clean_errors, others, event.start + 1)
        recovered = usable[event.stop : event.stop + RECOVERY]
        after += _summed(errors, clean_errors, recovered, event.stop)
    return during, after


def _summed(errors: Float64, clean_errors: Float64, cells: Bools, start: int) -> Disturbed:
    rows = slice(start, start + len(cells))
    return Disturbed(float(errors[rows][cells].sum()), float(clean_errors[rows][cells].sum()))


def threshold_at(clean_scores: Float64, share: float) -> float:
    """The score that `share` of the clean rows exceed."""
    return float(np.quantile(clean_scores, 1 - share))


def recall(scores: Float64, threshold: float, events: Sequence[FaultEvent]) -> list[bool]:
    """For each event whether a score [n] in one of its rows exceeds the threshold."""
    return [bool((scores[e.start : e.stop] > threshold).any()) for e in events]


def last_quarter(scores: Float64, event: FaultEvent) -> Float64:
    """The scores of the last quarter of a fault's rows, at least one."""
    return scores[event.stop - max((event.stop - event.start) // 4, 1) : event.stop]


def standing(scores: Float64, clean_scores: Float64, threshold: float) -> float:
    """Mean of `scores` where 0 is the median of clean scores and 1 the threshold."""
    middle = float(np.median(clean_scores))
    return (float(np.mean(scores)) - middle) / (threshold - middle)
