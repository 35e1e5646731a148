"""Compare the answers of every engine with those of the int8 file, by step and quantity."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_runtime.supervision.policy import TIERS
from firmware_harness.answers import Answers

FLOAT = "float"


@dataclass(frozen=True)
class Difference:
    """steps: how many differ. first: the first of them, or None. largest: absolute difference."""

    steps: int
    first: int | None
    largest: float


@dataclass(frozen=True)
class Comparison:
    """tiers: number of steps that each tier answered. differences: by engine and quantity.

    Every engine except the float graph is judged.
    """

    title: str
    steps: int
    tiers: Mapping[int, int]
    differences: Mapping[str, Mapping[str, Difference]]

    @property
    def passed(self) -> bool:
        """Whether no judged engine differs from the int8 file."""
        return not any(
            difference.steps
            for way, found in self.differences.items()
            if way != FLOAT
            for difference in found.values()
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON."""
        differences = {
            way: {name: asdict(difference) for name, difference in quantities.items()}
            for way, quantities in self.differences.items()
        }
        facts = {"title": self.title, "steps": self.steps, "tiers": dict(self.tiers)}
        return {**facts, "differences": differences}


def compare(title: str, wanted: Answers, found: Mapping[str, Answers]) -> Comparison:
    """Compare the answers of each engine with `wanted`."""
    steps = len(wanted["tier"])
    return Comparison(
        title,
        steps,
        Counter(wanted["tier"].tolist()),
        {
            way: {name: difference(wanted[name], answers[name]) for name in wanted}
            for way, answers in found.items()
        },
    )


def difference(wanted: Any, found: Any) -> Difference:
    """Between arrays [steps, …]. Only floats of opposite zeros count as equal."""
    wanted, found = (np.asarray(array).reshape(len(array), -1) for array in (wanted, found))
    if wanted.shape != found.shape:
        raise ValueError(f"{found.shape} where {wanted.shape} is wanted")
    apart = (wanted != found).any(axis=1)
    if not apart.any():
        return Difference(0, None, 0.0)
    distance = np.abs(wanted[apart].astype(np.float64) - found[apart].astype(np.float64))
    return Difference(int(apart.sum()), int(np.argmax(apart)), float(distance.max()))


def text(comparison: Comparison) -> str:
    """Return a table with a line per quantity and a column per engine."""
    ways = list(comparison.differences)
    tiers = ", ".join(f"{TIERS[t]} {comparison.tiers[t]:,}" for t in sorted(comparison.tiers))
    lines = [
        f"{comparison.title}: {comparison.steps:,} steps ({tiers}), differing from int8 TFLite"
    ]
    lines.append("".join([f"  {'':12}", *(f"{way:>24}" for way in ways)]))
    for name in next(iter(comparison.differences.values())):
        cells = (_cell(comparison.differences[way][name]) for way in ways)
        lines.append("".join([f"  {name:12}", *(f"{cell:>24}" for cell in cells)]))
    return "\n".join(lines)


def _cell(found: Difference) -> str:
    if not found.steps:
        return "0"
    return f"{found.steps:,} from {found.first:,}, ≤ {found.largest:.2g}"
