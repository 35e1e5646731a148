"""The verdict: does the int8 step behave as the float step, alone and over thousands of samples?

Both run through the runtime's own `step` with the same manifest; only the graph differs. Limits are
explained in docs/validation.md. Every check can fail, and the tests spoil a model to prove it.
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
    formula_checks,
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
    standout_warning,
)
from convert.checks.check import Check
from convert.detection import Detection, by_kind, detect
from convert.rollout import roll, stretch
from convert.streams import FaultyRecording, Material, repeated
from convert.twins import Pair, roll_pair, unchanging
from edge_runtime.calibration import Calibration
from edge_runtime.detector.cell import Model

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

ROLLOUT_STEPS, LONG_STEPS = 4000, 100_000
NO_LABELS = "labelled data: there are no labelled rows that begin with a settled model"


@dataclass(frozen=True)
class Evidence:
    """What the checks looked at, kept for the pictures.

    clean: every clean recording; state_errors: [n], of the free rollout.
    """

    clean: tuple[Pair, ...]
    faulty: Pair
    stream: FaultyRecording
    state_errors: Float64


@dataclass(frozen=True)
class Verdict:
    """All checks on one kernel, what they found beside their values, and what was not judged.

    warnings: what its owner should know of the recording, although the model may ship.
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
        """What is to be told of it, without the rows that it was reached on."""
        return replace(self, evidence=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without the evidence."""
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
    material: Material,
    steps: int,
) -> Verdict:
    """Compare the int8 model `quantised` with the float model `reference` on `material`.

    trained: the model as training runs it. steps: of the free rollout, at least.
    """
    if quantised.manifest.linear:
        return linear_verdict(quantised, material, steps)
    # A change that one arithmetic reports a sample before the other would part them for good.
    quantised, reference = unchanging(quantised), unchanging(reference)
    clean = tuple(roll_pair(quantised, reference, rows) for rows in material.clean)
    faulty = roll_pair(quantised, reference, material.faulty.rows, material.faulty.seams)
    content = repeated(material.clean, min(steps // 2, sum(map(len, material.clean))))
    apart = _free_rollout(quantised, reference, content, steps)
    evidence = Evidence(clean, faulty, material.faulty, apart)
    judged = [
        _clean_verdict(quantised, reference, trained, evidence, len(content)),
        _stream_verdict(quantised, reference, "faults", material.faulty, faulty),
    ]
    if material.labelled is not None:
        pair = roll_pair(quantised, reference, material.labelled.rows)
        judged.append(_stream_verdict(quantised, reference, "labelled", material.labelled, pair))
    else:
        judged.append(Verdict(quantised.graph.kernel_id, (), not_judged=(NO_LABELS,)))
    return replace(joined(judged), evidence=evidence)


def joined(verdicts: Sequence[Verdict]) -> Verdict:
    """Several verdicts on one kernel as one."""
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
    """Do the rows that set the threshold hold an anomaly? Then hardly anything would reach it.

    A smaller model may find the same rows less strange, so that of a network is a check. The
    linear detector is the smallest: its threshold allows for them, and that is a warning.
    """
    check = standout_check(found)
    if not linear:
        return Verdict(kernel, (check,))
    return Verdict(kernel, (), warnings=() if check.passed else (standout_warning(found),))


def _clean_verdict(
    quantised: Model, reference: Model, trained: Trained, evidence: Evidence, content: int
) -> Verdict:
    """Single steps, the free rollout that repeats `content` rows, and clean recordings."""
    clean, faulty = evidence.clean, evidence.faulty
    # Training knows no seams either.
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
    """A stream with anomalies; recorded ones are judged where one begins with a settled model."""
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
    """State errors [n] over whole passes of `content`, `steps` of them or more."""
    rows = repeated([content], -(-steps // len(content)) * len(content))
    if not quantised.graph.state_sizes:
        return np.zeros(len(rows))
    return state_errors(states_along(quantised, rows), states_along(reference, rows))


def linear_verdict(model: Model, material: Material, steps: int) -> Verdict:
    """A linear model has no int8 form; its float32 steps are compared with the plain formula."""
    model = unchanging(model)
    faulty = roll(model, material.faulty.rows)
    long = roll(model, repeated(material.clean, steps))
    return Verdict(
        kernel=model.graph.kernel_id,
        checks=tuple(formula_checks(model, [faulty, long])),
        evidence=Evidence((Pair(long, long),), Pair(faulty, faulty), material.faulty, np.zeros(0)),
    )


def _detection_dict(detection: Detection) -> dict[str, Any]:
    return {
        "stream": detection.stream,
        "decisions": detection.decisions,
        "hanging": detection.hanging,
        "delay_shifts": list(detection.shifts),
        "kinds": [asdict(kind) for kind in by_kind(detection)],
    }
