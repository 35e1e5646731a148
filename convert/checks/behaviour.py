"""Checks of the behaviour: scores, gates and alarms on clean recordings and on anomalies.

clean     int8 and float have the same errors, the same gates, and scores that rank alike.
detection Both find the same anomalies at the same time, with the threshold that ships.
alone     What a bundle shows without the float model of its run.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convert.detection import Detection, by_kind
from convert.metrics import agreement, rank_correlation
from convert.twins import Pair
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
from edge_runtime.learning.check import Check
from edge_runtime.learning.rollout import Rollout

SMALLEST_ERROR = 0.1  # of the innovation scale; smaller errors count as equal
SMALLEST = 1e-9  # divisor, because the threshold of a constant recording is 0
THRESHOLD_OFF = 0.1  # %; the last bits of a mean depend on the processor


def clean_checks(model: Model, pairs: Sequence[Pair]) -> list[Check]:
    """Compare both arithmetics over clean recordings; `model` gives scales and names.

    Errors are compared where both gates are open. A channel with a closed gate runs on forecasts,
    whose errors depend on how long the gate has been closed. How often the gates disagree is a
    separate check.
    """
    names = model.manifest.channel_names
    gates = [(_open(p.quantised), _open(p.reference)) for p in pairs]
    both = np.concatenate([a & b for a, b in gates])
    # Keeps the ratio near 1 for a channel without errors, for example a constant one.
    floor = (SMALLEST_ERROR * model.innovation_scale.astype(np.float64)) ** 2
    quantised = _variances([p.quantised for p in pairs], both)
    ratios = (floor + quantised) / (floor + _variances([p.reference for p in pairs], both))
    worst = int(np.argmax(np.abs(np.log(ratios))))
    disagree = 100 * np.concatenate([a != b for a, b in gates]).mean(axis=0)
    most = names[int(disagree.argmax())] if disagree.any() else ""
    ranks = rank_correlation(
        np.concatenate([p.quantised.score[p.settled] for p in pairs]),
        np.concatenate([p.reference.score[p.settled] for p in pairs]),
    )
    return [
        Check(
            "clean: residual variance, worst channel",
            float(ratios[worst]),
            0.95,
            1.05,
            "int8 over float",
            names[worst],
        ),
        Check("clean: gates that disagree", float(disagree.mean()), 0, 2, "% of readings", most),
        Check("clean: score rank correlation", ranks, 0.97, 1, "Spearman"),
    ]


def _open(rollout: Rollout) -> npt.NDArray[np.bool_]:
    """Return bool [n, channels]: the gate is open, or the reading unusable."""
    return (rollout.gate >= 0.5) | (rollout.mask == 0)


def _variances(
    rollouts: Sequence[Rollout], chosen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return the mean squared forecast error per channel over the `chosen` usable readings."""
    errors = np.concatenate([(r.value - r.forecast) * r.mask for r in rollouts]).astype(np.float64)
    used = np.concatenate([r.mask > 0 for r in rollouts]) & chosen
    return (errors**2 * used).sum(axis=0) / np.maximum(used.sum(axis=0), 1)


def detection_checks(found: Detection, must_find: bool) -> list[Check]:
    """Check the comparison `found` against its limits.

    must_find: whether the anomalies were injected. Then a delay shift that is not a number, because
    no event is found by both models, fails; for recorded anomalies that check is left out.
    """
    events, kinds = len(found.events), by_kind(found)
    int8, floating = sum(k.int8_found for k in kinds), sum(k.float_found for k in kinds)
    lost = kinds[0].kind if kinds and kinds[0].int8_found < kinds[0].float_found else ""
    same, kappa = agreement(found.decisions)
    name = found.stream
    delay = [_delay_check(found)] if must_find or found.shifts else []
    return [
        Check(f"{name}: AUC lost", found.float_auc - found.int8_auc, -1, 0.005, "float minus int8"),
        Check(
            f"{name}: event recall lost",
            100 * (floating - int8) / max(events, 1),
            -100,
            # With fewer than fifty events one event more or less still passes.
            max(2.0, 100 / max(events, 1)),
            f"points; int8 finds {int8} of {events}",
            lost,
        ),
        Check(f"{name}: alarm agreement", same * 100, 99.5, 100, "% of decisions"),
        Check(f"{name}: alarm kappa", kappa, 0.97, 1, "Cohen's, beyond chance"),
        *delay,
    ]


def _delay_check(found: Detection) -> Check:
    shifts = [abs(shift) for shift in found.shifts]
    value = float(np.quantile(shifts, 0.95)) if shifts else float("nan")
    moved = max(by_kind(found), key=lambda k: abs(k.shift or 0), default=None)
    worst = moved.kind if moved and moved.shift else ""
    unit = f"samples, {len(shifts)} events"
    return Check(f"{found.stream}: delay shift, p95", value, 0, 2, unit, worst)


def golden_check(detector: Detector) -> Check:
    """Run the self-test of the device: 0 if this kernel gives the golden vectors bit for bit."""
    try:
        detector.self_test()
        differing = 0.0
    except GruardError:
        differing = 1.0
    return Check("golden vectors: differing", differing, 0, 0, "bit-exact on this kernel")


def standout_check(found: Calibration) -> Check:
    """Check whether the rows that set the threshold contain an anomaly, which would raise it."""
    return Check(
        "calibration: strangest row, over the usual",
        found.standout,
        0,
        found.limit,
        "times; an anomaly among the clean rows? Label it, or cut it out",
        f"settled row {found.row} of {found.rows}",
    )


def threshold_check(held: Threshold, found: Threshold) -> Check:
    """Compare the threshold in the bundle with the one computed again from its run."""
    pairs = (held.value, found.value), (held.clear, found.clear)
    off = max(abs(a - b) / max(abs(b), SMALLEST) for a, b in pairs)
    meaning = f"%; {held.value:.4g} in the bundle, {found.value:.4g} from its run"
    return Check("threshold: off its calibration", 100 * off, 0, THRESHOLD_OFF, meaning)


def alone_checks(model: Model, clean: Sequence[Rollout]) -> list[Check]:
    """Check false alarms and state saturation on rollouts of clean recordings.

    The false alarms fail if the exact lower 95 % bound on their rate, chi2_0.05(2 k) / (2 T) with k
    alarms in T days (Garwood 1936), exceeds the target. A few alarms in a short recording pass.
    """
    from scipy.stats import chi2

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
