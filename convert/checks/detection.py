"""The same anomalies, found alike and at the same time, with the threshold that ships."""

import numpy as np

from convert.checks.check import Check
from convert.detection import Detection, by_kind
from convert.metrics import agreement


def detection_checks(found: Detection, must_find: bool) -> list[Check]:
    """The comparison `found` against its limits.

    must_find: whether the anomalies were made to be found. Then a delay shift that is no number,
    because both models find no single one of them, does not pass; else there is nothing to compare.
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
            # One event more or less is no verdict where there are fewer than fifty.
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
