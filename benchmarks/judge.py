"""From a detector's scores and alarms on one series to the figures of the tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.detection_metrics import (
    affiliation,
    alarm_figures,
    auc_pr,
    fdr_at_far,
    vus_pr,
)
from benchmarks.series import Series

FAR = 0.05

Figures = dict[str, float | None]


@dataclass(frozen=True)
class ContenderOutcome:
    """The scores and alarms of a detector on a series, and its cost.

    scores: float64 [n], alarms: bool [n], one of each for every test recording. parameters: number
    of stored values; bytes: their size. facts: further figures by name.
    """

    scores: Sequence[npt.NDArray[np.float64]]
    alarms: Sequence[npt.NDArray[np.bool_]]
    parameters: int
    bytes: int
    training_seconds: float
    conversion_seconds: float = 0.0
    facts: Mapping[str, float] = field(default_factory=dict)


class Contender(Protocol):
    """A detector under test; it is pickled into worker processes.

    seeded: the result depends on the seed.
    """

    @property
    def name(self) -> str:
        """Name on the command line."""

    @property
    def seeded(self) -> bool:
        """Whether it is run once for each seed."""

    def run(self, series: Series, seed: int, scratch: Path) -> Mapping[str, ContenderOutcome]:
        """Outcomes by row of the tables; `scratch` is an empty folder that is removed later."""


def judge(series: Series, outcome: ContenderOutcome) -> Figures:
    """Every figure of one series; None where it is not defined.

    Where a test recording without events comes with the faulty ones, as for the Tennessee Eastman
    process, the ranking is judged by the fault detection rate: the mean over the faulty recordings
    at 5 % false alarms on the others. Elsewhere by VUS-PR and AUC-PR, the mean over recordings.
    """
    labels = [test.labels for test in series.tests]
    figures = _ranking(labels, outcome.scores) | _alarms(labels, outcome.alarms)
    figures |= {
        "parameters": float(outcome.parameters),
        "bytes": float(outcome.bytes),
        "training_seconds": outcome.training_seconds,
        "conversion_seconds": outcome.conversion_seconds,
        **outcome.facts,
    }
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


def _ranking(
    labels: Sequence[npt.NDArray[np.int8]], scores: Sequence[npt.NDArray[np.float64]]
) -> dict[str, float]:
    pairs = list(zip(labels, scores, strict=True))
    faulty = [(truth, score) for truth, score in pairs if truth.any()]
    normal = [score for truth, score in pairs if not truth.any()]
    if not normal:
        return {
            "vus_pr": float(np.mean([vus_pr(*pair) for pair in faulty])),
            "auc_pr": float(np.mean([auc_pr(*pair) for pair in faulty])),
        }
    clean = np.concatenate(normal)
    rates = [fdr_at_far(clean, score[truth != 0], FAR) for truth, score in faulty]
    return {"fdr": float(np.mean(rates))}


def _alarms(
    labels: Sequence[npt.NDArray[np.int8]], alarms: Sequence[npt.NDArray[np.bool_]]
) -> dict[str, float]:
    pairs = list(zip(labels, alarms, strict=True))
    total = reduce(add, (alarm_figures(*pair) for pair in pairs))
    f1 = [affiliation(*pair).f1 for pair in pairs if pair[0].any()]
    return {
        "event_recall": total.event_recall,
        "false_alarms_per_10000": total.false_alarms_per_10000,
        "false_share": total.false_share,
        "median_delay": total.median_delay,
        "affiliation_f1": float(np.mean(f1)),
    }
