"""Which targets can run the file, with reasons by operator, and the audit as text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from convert.audit.micro import MicroRun, micro_trial
from convert.audit.operators import Audit, OperatorFacts, TensorFacts
from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.bundle.graph_rules import graph_faults

CORAL_CACHE = 8 << 20  # bytes of parameters that the Edge TPU keeps on the chip
# Of the operators that Coral's documentation lists, those that a step might have.
CORAL_OPERATORS = frozenset(
    {
        "ADD", "CONCATENATION", "FULLY_CONNECTED", "LOGISTIC", "MUL", "QUANTIZE", "RELU", "RESHAPE",
        "SLICE", "SOFTMAX", "SPLIT", "SUB", "TANH",
    }
)  # fmt: skip
CORAL_TYPES = ("int8", "uint8", "int32")
MARKS = {True: "yes", False: "NO", None: "?"}


@dataclass(frozen=True)
class TargetResult:
    """One target. passed: None if the target was not tried and no rule decides."""

    target: str
    passed: bool | None
    summary: str
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return asdict(self)


def verdicts(model: bytes, graph: GraphSummary, facts: Audit) -> tuple[TargetResult, ...]:
    """Judge the file for TFLite int8, TensorFlow Lite Micro and Edge TPU."""
    faults = tuple(graph_faults(graph))
    lite = TargetResult(
        "TFLite int8",
        not faults,
        "runs in gruard" if not faults else "gruard's runtime refuses it",
        faults,
    )
    return lite, _micro(model, runnable=not faults), _coral(graph, facts)


def _micro(model: bytes, runnable: bool) -> TargetResult:
    target = "TFLite Micro"
    if not runnable:
        return TargetResult(target, None, "not checked: not an int8 step, see above")
    trial = micro_trial(model)
    if isinstance(trial, MicroRun):
        alike = (
            "all codes as TFLite's built-in kernels give them"
            if not trial.differing
            else f"{trial.differing} of {trial.codes} codes differ from TFLite's built-in kernels, "
            f"by {trial.largest} at most (it rounds ties in FULLY_CONNECTED another way)"
        )
        return TargetResult(target, True, f"runs, its tensors take {trial.arena} bytes; {alike}")
    return TargetResult(target, trial.passed, trial.summary)


def _coral(graph: GraphSummary, facts: Audit) -> TargetResult:
    blockers = _coral_blockers(graph, facts)
    held = facts.totals.parameter_bytes
    cache = (
        f"parameters {held} bytes of {CORAL_CACHE} on the chip"
        if held <= CORAL_CACHE
        else f"parameters {held} bytes are more than the {CORAL_CACHE} on the chip"
    )
    count = "no known blocker" if not blockers else f"{len(blockers)} blockers"
    note = "only Coral's compiler can tell; no speed-up is to be expected for one small step"
    return TargetResult(
        "Edge TPU", False if blockers else None, f"{count}; {cache}; {note}", tuple(blockers)
    )


def _coral_blockers(graph: GraphSummary, facts: Audit) -> list[str]:
    """List what Coral's documentation ("TensorFlow models on the Edge TPU") rules out."""
    blockers = []
    if graph.subgraphs != 1:
        blockers.append(f"{graph.subgraphs} subgraphs: control flow is not mapped")
    for name in dict.fromkeys(o.name for o in graph.operators):
        if name not in CORAL_OPERATORS:
            blockers.append(f"operator {name} is not listed as supported")
    types = sorted({t.dtype for t in graph.tensors} - set(CORAL_TYPES))
    if types:
        blockers.append(f"tensors of type {', '.join(types)}: quantise all to int8")
    for tensor in graph.tensors:
        if any(size < 1 for size in tensor.shape):
            blockers.append(f"tensor {tensor.name}: its shape {list(tensor.shape)} is not fixed")
        if any(size > 1 for size in tensor.shape[:-3]):
            blockers.append(f"tensor {tensor.name}: more than three dimensions exceed 1")
    for operator in facts.operators:
        fused = operator.activation not in ("NONE", "0")
        if operator.name == "CONCATENATION" and fused:
            blockers.append("CONCATENATION with a fused activation")
        if operator.name == "FULLY_CONNECTED" and not _constant_weights(operator.inputs):
            blockers.append("FULLY_CONNECTED with weights that are not constant")
    return blockers


def _constant_weights(inputs: Sequence[Any]) -> bool:
    return len(inputs) > 1 and bool(inputs[1].constant)


def audit_text(facts: Audit, found: Sequence[TargetResult]) -> str:
    """Return the audit as text: a line per operator, totals, and a paragraph per target."""
    lines = [_operator_line(number, operator) for number, operator in enumerate(facts.operators)]
    totals = facts.totals
    lines += [
        "",
        f"file {totals.file_bytes:,} bytes · {totals.parameters:,} parameters in "
        f"{totals.parameter_bytes:,} bytes · {totals.macs:,} multiply-accumulates a step",
        f"tensors need about {totals.arena_bytes:,} bytes of arena at once (an estimate; an "
        "interpreter needs memory of its own besides)",
        "",
    ]
    for verdict in found:
        lines.append(f"{MARKS[verdict.passed]:<4} {verdict.target}: {verdict.summary}")
        lines += [f"       {reason}" for reason in verdict.reasons]
    return "\n".join(lines)


def _operator_line(number: int, operator: OperatorFacts) -> str:
    fused = "" if operator.activation in ("NONE", "0") else f"+{operator.activation}"
    name = f"{operator.name}{fused} v{operator.version}"
    inputs = ", ".join(map(_tensor_text, operator.inputs))
    outputs = ", ".join(map(_tensor_text, operator.outputs))
    return f"{number:>3} {name:<26} {inputs} -> {outputs}"


def _tensor_text(tensor: TensorFacts) -> str:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    kind = {"per channel": " per channel", "none": "", "per tensor": ""}[tensor.scaling]
    scale = "" if tensor.scale is None else f" {tensor.scale:.4g} zp {tensor.zero_point}"
    constant = f" const {tensor.constant} B" if tensor.constant else ""
    return f"{tensor.dtype}[{shape}]{scale}{kind}{constant}"
