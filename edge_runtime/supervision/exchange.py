"""What the supervisor asks between two samples: is another model to answer from now on?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.record import Record, Sample
from edge_runtime.supervision.worker_care import WorkerCare


class ShadowDetector(Protocol):
    """The part of the fallback that the supervisor needs: cheap, and never failing.

    repaired: how often its memory had changed and was repaired.
    """

    @property
    def repaired(self) -> int: ...

    def step(self, sample: Sample) -> Record:
        """The tier 3 record of one sample."""

    def stand_at(self, centre: Sequence[float]) -> None:
        """Judge the machine from there on, in standardised units [channels]."""


@dataclass(frozen=True)
class Serving:
    """A model and the fallback that goes with it."""

    model: WorkerCare
    fallback: ShadowDetector


class Exchange(Protocol):
    """Decides which model answers. No method raises, and none waits for a model to load."""

    def may_start(self) -> bool:
        """Whether a process may load the model that the run begins with, now."""

    def after(self, record: Record, model: WorkerCare) -> Serving | None:
        """Who answers after `record`; None: still `model`. The loser is ended by the caller."""

    def stop(self) -> None:
        """End whatever was being prepared."""


class NoExchange:
    """One model for the whole run."""

    def may_start(self) -> bool:
        """Always."""
        return True

    def after(self, record: Record, model: WorkerCare) -> None:
        """Nobody else."""

    def stop(self) -> None:
        """Nothing was prepared."""


class NoModel(NoExchange):
    """No model for the whole run: the fallback answers."""

    def may_start(self) -> bool:
        """Never."""
        return False
