"""Everything that a conversion found out about itself, for whoever reports it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convert.checks.check import Check, reasons
from convert.diagnosis.section import Judgement
from convert.tensor_errors import TensorError
from convert.validate import Verdict
from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.calibration import Calibration


@dataclass(frozen=True)
class Outcome:
    """What became of one candidate. verdict: None where it could not be judged, for `refusal`."""

    name: str
    verdict: Verdict | None = None
    refusal: str = ""

    @property
    def passed(self) -> bool:
        """Whether it may ship."""
        return self.verdict is not None and self.verdict.passed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return () if self.verdict is None else self.verdict.failed

    @property
    def sentence(self) -> str:
        """For people."""
        if self.passed:
            return f"{self.name}: passed"
        return f"{self.name}: failed, {self.refusal or reasons(self.failed)}"

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        failed = [check.to_dict() for check in self.failed]
        sentence = {"passed": self.passed, "failed": failed, "sentence": self.sentence}
        return {"name": self.name, **sentence}


def choice_of(outcomes: Sequence[Outcome]) -> str:
    """Why the last candidate ships and no larger one, or why none does."""
    return "; ".join(outcome.sentence for outcome in outcomes)


@dataclass(frozen=True)
class Proof:
    """Everything that was found out about a conversion.

    verdict: on the reference kernel, which decides. others: on further kernels. calibrations: by
    kernel, the reference first. tensors: errors inside the graph, empty for a linear model.
    outcomes: of the candidates that were judged, the largest model first; none where one was asked
    for by itself.
    """

    graph: GraphSummary
    verdict: Verdict
    calibrations: Mapping[str, Calibration]
    others: tuple[Verdict, ...] = ()
    tensors: tuple[TensorError, ...] = ()
    judgement: Judgement | None = None  # of the diagnosis
    outcomes: tuple[Outcome, ...] = ()
