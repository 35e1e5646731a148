"""One comparison of a validation: a value and the limits it must keep."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Check:
    """One comparison: `value` must be within [low, high].

    worst: the channel or the kind of fault that decided the value; empty where none can be named.
    """

    name: str
    value: float
    low: float
    high: float
    meaning: str
    worst: str = ""

    @property
    def passed(self) -> bool:
        """Whether the value is finite and within its limits."""
        return bool(np.isfinite(self.value)) and self.low <= self.value <= self.high

    def to_dict(self) -> dict[str, Any]:
        """JSON form; a value that is not a number is None."""
        value = self.value if np.isfinite(self.value) else None
        return {**asdict(self), "value": value, "passed": self.passed}
