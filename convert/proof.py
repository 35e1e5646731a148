"""Everything that a conversion found out about itself, for whoever reports it."""

from collections.abc import Mapping
from dataclasses import dataclass

from convert.diagnosis.section import Judgement
from convert.tensor_errors import TensorError
from convert.validate import Verdict
from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.calibration.calibration import Calibration


@dataclass(frozen=True)
class Proof:
    """Everything that was found out about a conversion.

    verdict: on the reference kernel, which decides. others: on further kernels. calibrations: by
    kernel, the reference first. tensors: errors inside the graph, empty for a linear model.
    """

    graph: GraphSummary
    verdict: Verdict
    calibrations: Mapping[str, Calibration]
    others: tuple[Verdict, ...] = ()
    tensors: tuple[TensorError, ...] = ()
    judgement: Judgement | None = None  # of the diagnosis
