"""The proof for terminals and programs: a table, report.json."""

from dataclasses import asdict
from typing import Any

import numpy as np

from convert.checks.check import Check
from convert.proof import Proof
from convert.validate import Verdict
from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.bundle.manifest import Manifest


def verdict_text(verdict: Verdict) -> str:
    """The verdict as plain text: a line a check, then what lies beside the checks."""
    checks = verdict.checks
    width = max(len(check.name) for check in checks)
    lines = [
        f"{'pass' if check.passed else 'FAIL'}  {check.name:<{width}}  {check.value:10.4f}  "
        f"in {limits(check):<12}  {of_what(check)}"
        for check in checks
    ]
    lines += [f"      {bursts.sentence()}" for bursts in verdict.bursts if bursts.count]
    lines += [f"      not judged: {what}" for what in verdict.not_judged]
    return "\n".join(lines)


def report_json(manifest: Manifest, proof: Proof) -> dict[str, Any]:
    """Everything the page says, for programs."""
    judgement = proof.judgement
    return {
        "name": manifest.name,
        "version": manifest.version,
        **proof.verdict.to_dict(),
        "other_kernels": [verdict.to_dict() for verdict in proof.others],
        "thresholds": {
            kernel: {
                "value": found.threshold.value,
                "method": found.threshold.method,
                "assured": found.threshold.assured,
                "statement": found.threshold.statement,
            }
            for kernel, found in proof.calibrations.items()
        },
        "tensors": [tensor.to_dict() for tensor in proof.tensors],
        "diagnosis": None if judgement is None else asdict(judgement),
        "graph": graph_facts(proof.graph),
        "provenance": {
            "data_sha256": manifest.provenance.data_sha256,
            "weights_sha256": manifest.provenance.weights_sha256,
            "seed": manifest.provenance.seed,
            "selection": dict(manifest.provenance.selection),
            "tools": dict(manifest.provenance.tools),
        },
    }


def graph_facts(graph: GraphSummary) -> dict[str, Any]:
    """Operators and sizes of a graph."""
    operators = sorted({operator.name for operator in graph.operators})
    counts = {name: sum(o.name == name for o in graph.operators) for name in operators}
    weights = [t for t in graph.tensors if t.constant_bytes and t.dtype == "int8"]
    return {
        "operators": counts,
        "weights": sum(int(np.prod(t.shape)) for t in weights),
        "dtypes": sorted({t.dtype for t in graph.tensors}),
    }


def model_sentence(manifest: Manifest) -> str:
    """What ships, and what else was tried."""
    parts = ["a linear forecast"]
    parts += ["a recurrent correction"] * ("correction" in manifest.outputs)
    parts += ["a gate"] * ("logit" in manifest.outputs)
    shape = f"The model is {', '.join(parts)}"
    tried = manifest.provenance.selection
    if not tried:
        return f"{shape}, as asked for or for want of rows."
    found = ", ".join(f"{name} {value:.3f}" for name, value in tried.items())
    return (
        f"{shape}: the smallest that was not clearly worse at finding faults injected into "
        f"held-out rows (average precision: {found})."
    )


def of_what(check: Check) -> str:
    """What the value of a check is of, and who is worst."""
    return f"{check.meaning}; worst: {check.worst}" if check.worst else check.meaning


def limits(check: Check) -> str:
    """The limits of a check."""
    return f"{check.low:.4g} … {check.high:.4g}"
