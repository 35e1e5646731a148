"""The verdict: does the int8 step behave as the float step, once and over thousands of samples?

Both run through the runtime's own `step` with the same manifest; only the graph differs.
docs/validation.md explains the limits. The tests prove with damaged models that each check fails.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from convert.checks.arithmetic import (
    Bursts,
    Trained,
    bursts_of,
    export_checks,
    one_step_checks,
    rollout_checks,
    state_check,
    state_errors,
    states_along,
)
from convert.checks.behaviour import (
    clean_checks,
    detection_checks,
    standout_check,
)
from convert.detection import Detection, by_kind, detect
from convert.judged_rows import JudgedRows
from convert.twins import Pair, roll_pair
from edge_runtime.calibration import Calibration
from edge_runtime.detector.cell import Model
from edge_runtime.learning.calibrated import standout_warning
from edge_runtime.learning.check import Check
from edge_runtime.learning.formula import formula_checks
from edge_runtime.learning.rollout import roll, stretch
from edge_runtime.learning.shipped import unchanging
from edge_runtime.learning.streams import FaultyRecording, repeated

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

LONG_STEPS = 100_000  # of a free rollout
NO_LABELS = "labelled data: there are no labelled rows that begin with a settled model"


@dataclass(frozen=True)
class Evidence:
    """The data that the checks of a network compared, kept for the pictures.

    clean: every clean recording; state_errors: [n], of the free rollout.
    """

    clean: tuple[Pair, ...]
    faulty: Pair
    stream: FaultyRecording
    state_errors: Float64


@dataclass(frozen=True)
class Verdict:
    """All checks on one kernel, further findings, and what was not judged.

    warnings: problems of the recording that do not prevent the model from shipping.
    """

    kernel: str
    checks: tuple[Check, ...]
    bursts: tuple[Bursts, ...] = ()
    detections: tuple[Detection, ...] = ()
    not_judged: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    evidence: Evidence | None = field(default=None, repr=False)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def without_evidence(self) -> "Verdict":
        """The verdict without the rows that it was reached on."""
        return replace(self, evidence=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON, without the evidence."""
        return {
            "passed": self.passed,
            "kernel": self.kernel,
            "checks": [check.to_dict() for check in self.checks],
            "bursts": [asdict(bursts) for bursts in self.bursts],
            "detections": [_detection_dict(detection) for detection in self.detections],
            "not_judged": list(self.not_judged),
            "warnings": list(self.warnings),
        }


def validate(
    quantised: Model,
    reference: Model,
    trained: Trained,
    judged_rows: JudgedRows,
    steps: int,
) -> Verdict:
    """Compare the int8 model `quantised` with the float model `reference` on `judged_rows`.

    trained: the model as training runs it. steps: of the free rollout, at least.
    """
    if quantised.manifest.linear:
        return linear_verdict(quantised, judged_rows, steps)
    # If one arithmetic reported a lasting change a sample earlier, both would differ from there on.
    quantised, reference = unchanging(quantised), unchanging(reference)
    clean = tuple(roll_pair(quantised, reference, rows) for rows in judged_rows.clean)
    faulty = roll_pair(quantised, reference, judged_rows.faulty.rows, judged_rows.faulty.seams)
    content = repeated(judged_rows.clean, min(steps // 2, sum(map(len, judged_rows.clean))))
    apart = _free_rollout(quantised, reference, content, steps)
    evidence = Evidence(clean, faulty, judged_rows.faulty, apart)
    judged = [
        _clean_verdict(quantised, reference, trained, evidence, len(content)),
        _stream_verdict(quantised, reference, "faults", judged_rows.faulty, faulty),
    ]
    if judged_rows.labelled is not None:
        pair = roll_pair(quantised, reference, judged_rows.labelled.rows)
        judged.append(_stream_verdict(quantised, reference, "labelled", judged_rows.labelled, pair))
    else:
        judged.append(Verdict(quantised.graph.kernel_id, (), not_judged=(NO_LABELS,)))
    return replace(joined(judged), evidence=evidence)


def joined(verdicts: Sequence[Verdict]) -> Verdict:
    """Join several verdicts on one kernel."""
    (kernel,) = {verdict.kernel for verdict in verdicts}
    return Verdict(
        kernel=kernel,
        checks=tuple(c for v in verdicts for c in v.checks),
        bursts=tuple(b for v in verdicts for b in v.bursts),
        detections=tuple(d for v in verdicts for d in v.detections),
        not_judged=tuple(n for v in verdicts for n in v.not_judged),
        warnings=tuple(w for v in verdicts for w in v.warnings),
        evidence=next((v.evidence for v in verdicts if v.evidence), None),
    )


def recording_verdict(kernel: str, found: Calibration, linear: bool) -> Verdict:
    """Judge whether the rows that set the threshold contain an anomaly, which would raise it.

    For a network this is a check, because a smaller model may score the same rows lower. For the
    linear detector, the smallest model, it is a warning: its threshold allows for such rows.
    """
    check = standout_check(found)
    if not linear:
        return Verdict(kernel, (check,))
    return Verdict(kernel, (), warnings=() if check.passed else (standout_warning(found),))


def _clean_verdict(
    quantised: Model, reference: Model, trained: Trained, evidence: Evidence, content: int
) -> Verdict:
    """Judge single steps, the free rollout that repeats `content` rows, and clean recordings."""
    clean, faulty = evidence.clean, evidence.faulty
    # The trained model runs one recording, so the comparison ends at the first seam.
    first = next(iter(evidence.stream.seams), len(evidence.stream.rows))
    checks = [
        *export_checks(trained, reference, stretch(faulty.reference, 0, first)),
        *one_step_checks(quantised, reference, clean[0].quantised, faulty.quantised),
    ]
    bursts = []
    if quantised.graph.state_sizes:
        checks += rollout_checks(evidence.state_errors, content)
        bursts.append(bursts_of("clean", evidence.state_errors))
    checks += clean_checks(quantised, clean)
    return Verdict(quantised.graph.kernel_id, tuple(checks), tuple(bursts))


def _stream_verdict(
    quantised: Model, reference: Model, name: str, stream: FaultyRecording, pair: Pair
) -> Verdict:
    """Judge a stream with anomalies; recorded ones only if one begins while both have settled."""
    kernel = quantised.graph.kernel_id
    found = detect(quantised, reference, name, pair, stream)
    injected = bool(stream.events)
    if not found.events and not injected:
        return Verdict(kernel, (), not_judged=(NO_LABELS,))
    checks = detection_checks(found, must_find=injected)
    bursts = []
    if quantised.graph.state_sizes:
        apart = state_errors(pair.quantised.hidden, pair.reference.hidden)
        checks.insert(0, state_check(name, apart))
        bursts.append(bursts_of(name, apart))
    return Verdict(kernel, tuple(checks), tuple(bursts), (found,))


def _free_rollout(quantised: Model, reference: Model, content: Float32, steps: int) -> Float64:
    """Return state errors [n] over whole passes of `content`, at least `steps` rows."""
    rows = repeated([content], -(-steps // len(content)) * len(content))
    if not quantised.graph.state_sizes:
        return np.zeros(len(rows))
    return state_errors(states_along(quantised, rows), states_along(reference, rows))


def linear_verdict(model: Model, judged_rows: JudgedRows, steps: int) -> Verdict:
    """Compare the float32 steps of a linear model, which has no int8 form, with the formula."""
    model = unchanging(model)
    streams = judged_rows.faulty.rows, repeated(judged_rows.clean, steps)
    checks = formula_checks(model, [roll(model, rows) for rows in streams])
    return Verdict(model.graph.kernel_id, tuple(checks))


def _detection_dict(detection: Detection) -> dict[str, Any]:
    return {
        "stream": detection.stream,
        "decisions": detection.decisions,
        "hanging": detection.hanging,
        "spared": detection.spared,
        "delay_shifts": list(detection.shifts),
        "kinds": [asdict(kind) for kind in by_kind(detection)],
    }
