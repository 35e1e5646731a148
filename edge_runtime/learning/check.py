"""One check of a validation: a value, its limits, and the reason in plain words when it fails."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# By the name of the check without its stream.
PLAIN = {
    "export: forecast, max": "the exported forecast is {} innovation scales off the trained one",
    "export: gate, max": "the exported gate is {} off the trained one",
    "one step: gate, max": "int8 moves a gate by {} in one step",
    "one step: forecast, RMS": "int8 moves the forecast by {} innovation scales in one step",
    "one step: forecast, max": "int8 moves a forecast by {} innovation scales in one step",
    "one step: state, RMS": "int8 moves the state by {} in one step",
    "rollout: state, RMS": "the states of int8 and float are {} apart",
    "rollout: state, last pass over first": "the states of int8 and float drift apart, {} times",
    "clean: residual variance, worst channel": "int8 has {} times the float residual variance",
    "clean: gates that disagree": "int8 and float gates disagree on {} % of clean readings",
    "clean: score rank correlation": "int8 and float scores of clean rows correlate by {}",
    "state, RMS": "the states of int8 and float are {} apart on rows with faults",
    "AUC lost": "int8 loses {} of the area under the ROC curve",
    "event recall lost": "int8 misses {} % more events than float",
    "alarm agreement": "int8 and float agree on the alarm in {} % of decisions",
    "alarm kappa": "int8 and float agree on the alarm with a kappa of {}",
    "delay shift, p95": "int8 and float alarm {} samples apart",
    "calibration: strangest row, over the usual": "the strangest clean row is {} times the usual",
    "linear: forecast off the formula, max": "a forecast is {} channel scales off the formula",
    "linear: forecast, max": "a forecast reaches {} channel scales",
}
WITHOUT_VALUE = {"delay shift, p95": ", because int8 and float find no fault in common"}


@dataclass(frozen=True)
class Check:
    """One comparison: `value` must be within [low, high].

    worst: the channel or the kind of fault that decided the value; may be empty.
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
        """Return the check as JSON; a value that is not finite becomes None."""
        value = self.value if np.isfinite(self.value) else None
        return {**asdict(self), "value": value, "passed": self.passed}


def reasons(failed: Sequence[Check]) -> str:
    """Say why the first of the `failed` checks failed, and how many more failed."""
    others = len(failed) - 1
    more = f", and {others} more check{'s' * (others > 1)}" if others else ""
    return reason(failed[0]) + more


def reason(check: Check) -> str:
    """Say why a failed `check` failed."""
    plain = PLAIN[check.name.removeprefix("faults: ").removeprefix("labelled: ")]
    if not math.isfinite(check.value):
        return f"{check.name} has no value" + WITHOUT_VALUE.get(check.name.split(": ")[-1], "")
    bound = f"at least {check.low:g}" if check.value < check.low else f"at most {check.high:.4g}"
    return f"{plain.format(f'{check.value:.4g}')} ({bound})"


def checks_text(checks: Sequence[Check]) -> str:
    """Return one line per check."""
    width = max(len(check.name) for check in checks)
    return "\n".join(
        f"{'pass' if check.passed else 'FAIL'}  {check.name:<{width}}  {check.value:10.4f}  "
        f"in {limits(check):<12}  {of_what(check)}"
        for check in checks
    )


def of_what(check: Check) -> str:
    """Return the meaning of a check's value, and the worst channel or kind."""
    return f"{check.meaning}; worst: {check.worst}" if check.worst else check.meaning


def limits(check: Check) -> str:
    """Return the limits of a check as text."""
    return f"{check.low:.4g} … {check.high:.4g}"
