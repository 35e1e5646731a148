"""An audit for people: a line an operator, the totals, a paragraph a target."""

from collections.abc import Sequence

from convert.audit.operators import Audit, OperatorFacts, TensorFacts
from convert.audit.targets import TargetResult

MARKS = {True: "yes", False: "NO", None: "?"}


def audit_text(facts: Audit, found: Sequence[TargetResult]) -> str:
    """The whole page."""
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
