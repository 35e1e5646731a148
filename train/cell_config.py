"""The sizes of a model. Does not import TensorFlow, which a linear detector does not need."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_runtime.learning.highway import Float32, Kind


@dataclass(frozen=True)
class CellConfig:
    """Sizes of the model. `order` is the number of lags of the linear highway.

    Without `gru_layers` nothing corrects the highway; without `gate_layers` every reading is
    trusted.
    """

    channels: int
    gru_layers: int = 1
    gru_units: int = 32
    gate_layers: int = 1
    gate_units: int = 32
    head_layers: int = 0
    order: int = 5
    highway: Kind = "full"

    @property
    def linear(self) -> bool:
        """Whether the model is the highway only."""
        return self.gru_layers == self.gate_layers == 0

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes as plain JSON."""
        return dataclasses.asdict(self)


def without_unused(weights: Mapping[str, Float32], sizes: CellConfig) -> dict[str, Float32]:
    """Return the arrays that a model of `sizes` uses: no gate arrays if it has no gate."""
    if sizes.gate_layers:
        return dict(weights)
    return {k: v for k, v in weights.items() if not k.startswith(("gate_", "logit_"))}
