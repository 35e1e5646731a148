"""The results of a conversion, for its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convert.tensor_errors import TensorError
from convert.validate import Verdict
from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.calibration import Calibration
from edge_runtime.learning.check import Check, reasons
from edge_runtime.learning.diagnosis.section import Judgement


@dataclass(frozen=True)
class Outcome:
    """The result of one candidate. verdict: None if it could not be judged because of `refusal`."""

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
        """One sentence with the reasons of a failure."""
        if self.passed:
            return f"{self.name}: passed"
        return f"{self.name}: failed, {self.refusal or reasons(self.failed)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON."""
        failed = [check.to_dict() for check in self.failed]
        sentence = {"passed": self.passed, "failed": failed, "sentence": self.sentence}
        return {"name": self.name, **sentence}


def choice_of(outcomes: Sequence[Outcome]) -> str:
    """Say why the last candidate ships instead of a larger one, or why none ships."""
    return "; ".join(outcome.sentence for outcome in outcomes)


@dataclass(frozen=True)
class Proof:
    """The results of a conversion.

    verdict: on the reference kernel, which decides. others: on further kernels. calibrations: by
    kernel, the reference first. tensors: errors inside the graph, empty for a linear model.
    outcomes: of the candidates that were judged, the largest model first; empty if only one model
    was converted.
    """

    graph: GraphSummary
    verdict: Verdict
    calibrations: Mapping[str, Calibration]
    others: tuple[Verdict, ...] = ()
    tensors: tuple[TensorError, ...] = ()
    judgement: Judgement | None = None  # of the diagnosis
    outcomes: tuple[Outcome, ...] = ()
