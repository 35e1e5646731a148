"""What can be said of a bundle without the float model of its run."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2

from convert.checks.check import Check
from convert.rollout import Rollout
from edge_runtime.bundle.manifest import Threshold
from edge_runtime.calibration import (
    CONFIDENCE,
    SECONDS_PER_DAY,
    Calibration,
    debounce,
    peaks,
)
from edge_runtime.detector.cell import Model
from edge_runtime.detector.detector import Detector
from edge_runtime.errors import GruardError

SMALLEST = 1e-9  # threshold that others are compared with; that of a constant recording is 0
THRESHOLD_OFF = 0.1  # %; the last bits of a mean depend on the machine


def golden_check(detector: Detector) -> Check:
    """The self-test of the device: 0 when this kernel gives the golden vectors bit for bit."""
    try:
        detector.self_test()
        differing = 0.0
    except GruardError:
        differing = 1.0
    return Check("golden vectors: differing", differing, 0, 0, "bit-exact on this kernel")


def standout_check(found: Calibration) -> Check:
    """Do the rows that set the threshold hold an anomaly? Then nothing would ever reach it."""
    return Check(
        "calibration: strangest row, over the usual",
        found.standout,
        0,
        found.limit,
        "times; an anomaly among the clean rows? Label it, or cut it out",
        f"settled row {found.row} of {found.rows}",
    )


def standout_warning(found: Calibration) -> str:
    """The same of a threshold that allows for such rows."""
    return (
        f"the strangest clean row (settled row {found.row} of {found.rows}) is "
        f"{found.standout:.0f} times the usual, more than {found.limit:g}; the threshold is higher "
        "because of it, and weaker faults give no alarm. If the machine was not healthy there, "
        "label those rows or cut them out and train again; if it was, record for longer"
    )


def threshold_check(held: Threshold, found: Threshold) -> Check:
    """The threshold in the bundle against the one that its own run gives again on this kernel."""
    pairs = (held.value, found.value), (held.clear, found.clear)
    off = max(abs(a - b) / max(abs(b), SMALLEST) for a, b in pairs)
    meaning = f"%; {held.value:.4g} in the bundle, {found.value:.4g} from its run"
    return Check("threshold: off its calibration", 100 * off, 0, THRESHOLD_OFF, meaning)


def alone_checks(model: Model, clean: Sequence[Rollout]) -> list[Check]:
    """Rollouts of clean recordings: are there more false alarms than wished, is the state whole?

    More than wished: the exact lower 95 % bound on their rate, chi2_0.05(2 k) / (2 T) with k
    alarms in T days (Garwood 1936), is above the wish. A few alarms in a short recording are not.
    """
    threshold = model.manifest.thresholds[model.graph.kernel_id]
    scores = [r.score[r.settled].astype(np.float64) for r in clean]
    smooth = [debounce(s, model.manifest.alarm) for s in scores]
    alarms = sum(len(peaks(s, threshold.value, model.manifest.alarm)) for s in smooth)
    days = sum(map(len, smooth)) * (model.manifest.period or 1.0) / SECONDS_PER_DAY
    rate = float(chi2.ppf(1 - CONFIDENCE, 2 * alarms) / (2 * days)) if alarms else 0.0
    checks = [
        Check(
            "clean: false alarms, lower bound",
            rate if days else float("nan"),
            0,
            threshold.wished_per_day,
            f"a day; {alarms} in {days:.3g} days",
        )
    ]
    if model.graph.state_sizes:
        saturated = float(np.concatenate([r.saturated for r in clean]).max())
        limit = model.manifest.tiers.saturated_limit
        checks.append(Check("clean: state saturated, most", saturated, 0, limit, "share of units"))
    return checks
