"""Both models left alone: do their states stay together, and where do they not?

A mean hides what matters: the states agree closely until a gate fires in one arithmetic and not in
the other, and then they are apart until the kick has washed out. So bursts are told beside means.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convert.checks.check import Check
from convert.metrics import intervals
from convert.rollout import roll
from edge_runtime.detector.cell import Model

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

TOLERANCE = 0.05  # of the state, which lies within -1 and 1
EDGE = 400  # rows at the end of the first and last pass whose state errors are compared
# An absolute state error this small is rounding noise; its growth means nothing.
STATE_NOISE = 0.005


@dataclass(frozen=True)
class Bursts:
    """Stretches of steps whose state error is over the tolerance.

    rms: over all steps. count, longest: how many stretches, and the steps of the longest.
    largest: the largest error of one step, which is the step `at`.
    """

    stream: str
    steps: int
    rms: float
    count: int
    longest: int
    largest: float
    at: int

    def sentence(self) -> str:
        """For people."""
        if not self.count:
            return f"{self.stream}: no step over {TOLERANCE:g}, largest error {self.largest:.3f}"
        stretches = "one stretch" if self.count == 1 else f"{self.count} stretches"
        return (
            f"{self.stream}: {stretches} over {TOLERANCE:g}, the longest {self.longest} steps; "
            f"largest error {self.largest:.3f} at step {self.at}"
        )


def states_along(model: Model, rows: Float32) -> Float32:
    """The recurrent state [n, all units] after each of the raw `rows`, from a fresh start."""
    return roll(model, rows).hidden


def state_errors(a: Float32, b: Float32) -> Float64:
    """RMS over the units of the difference of two runs of states, for each step: [n]."""
    squares = (a - b).astype(np.float64) ** 2
    return np.sqrt(squares.sum(axis=1) / max(squares.shape[1], 1))


def bursts_of(stream: str, errors: Float64) -> Bursts:
    """Where `errors` [n] are over the tolerance."""
    over = intervals(errors > TOLERANCE)
    return Bursts(
        stream=stream,
        steps=len(errors),
        rms=_rms(errors),
        count=len(over),
        longest=max((stop - start for start, stop in over), default=0),
        largest=float(errors.max()),
        at=int(errors.argmax()),
    )


def rollout_checks(errors: Float64, content: int) -> list[Check]:
    """The state errors [n] of a free rollout over clean rows.

    It repeats the same `content` rows, so that the end of its last pass can be compared with the
    same rows in its first: how hard a stretch is says nothing about drift.
    """
    edge = min(EDGE, content // 2)
    start, end = _rms(errors[content - edge : content]), _rms(errors[-edge:])
    growth = max(end, STATE_NOISE) / max(start, STATE_NOISE)
    return [
        Check("rollout: state, RMS", _rms(errors), 0, TOLERANCE, f"over {len(errors)} steps"),
        Check("rollout: state, last pass over first", float(growth), 0, 1.5, "no drift apart"),
    ]


def state_check(stream: str, errors: Float64) -> Check:
    """The state errors [n] of a stream with anomalies, where gates open and close."""
    return Check(f"{stream}: state, RMS", _rms(errors), 0, TOLERANCE, f"over {len(errors)} steps")


def _rms(errors: Float64) -> float:
    return float(np.sqrt((errors**2).mean()))
