"""The proof as text for the terminal, and as report.json."""

from dataclasses import asdict
from typing import Any

import numpy as np

from convert.candidates import Choice
from convert.proof import Proof, choice_of
from convert.validate import Verdict
from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.calibration import trial_of
from edge_runtime.learning.check import checks_text
from edge_runtime.learning.report import provenance_facts, threshold_facts


def verdict_text(verdict: Verdict) -> str:
    """Return the verdict as text: a line per check, then bursts, unjudged items and warnings."""
    lines = [checks_text(verdict.checks)]
    lines += [f"      {bursts.sentence()}" for bursts in verdict.bursts if bursts.count]
    lines += [f"      not judged: {what}" for what in verdict.not_judged]
    lines += [f"      warning: {what}" for what in verdict.warnings]
    return "\n".join(lines)


def choice_text(choice: Choice) -> str:
    """Return the failed checks of each candidate, all checks of the chosen one, and the reason."""
    lines = []
    for outcome in choice.outcomes:
        lines.append(f"{outcome.name}:")
        if outcome.passed and outcome.verdict:
            lines.append(verdict_text(outcome.verdict))
        else:
            lines.append(checks_text(outcome.failed) if outcome.failed else outcome.refusal)
    if choice.conversion:
        manifest = choice.conversion.manifest
        lines += [_statement(manifest), *filter(None, [trial_of(manifest)])]
    return "\n".join([*lines, choice.sentence])


def advice(choice: Choice) -> str:
    """Say what to do when no candidate passed, not even the linear detector."""
    last = choice.outcomes[-1]
    if last.refusal:
        return f"the linear detector: {last.refusal}"
    worst = last.failed[0].worst
    return (
        f"train again without the channel '{worst}', on which the linear detector failed; if that "
        "does not help, convert on another computer; --force writes the first candidate, marked"
    )


def choice_facts(choice: Choice) -> dict[str, Any]:
    """Return the choice as JSON, with the verdict of the written bundle, else the first verdict."""
    written = choice.conversion
    verdicts = [outcome.verdict for outcome in choice.outcomes if outcome.verdict]
    verdict = written.verdict if written else verdicts[0]
    return {
        **verdict.to_dict(),
        "candidates": [outcome.to_dict() for outcome in choice.outcomes],
        "choice": choice.sentence,
        "advice": "" if choice.passed else advice(choice),
        "threshold": _statement(written.manifest) if written else "",
        "trial": trial_of(written.manifest) if written else "",
    }


def _statement(manifest: Manifest) -> str:
    return next(iter(manifest.thresholds.values())).statement


def report_json(manifest: Manifest, proof: Proof) -> dict[str, Any]:
    """Return the contents of report.json: everything that the page says."""
    judgement = proof.judgement
    return {
        "name": manifest.name,
        "version": manifest.version,
        **proof.verdict.to_dict(),
        "other_kernels": [verdict.to_dict() for verdict in proof.others],
        "thresholds": threshold_facts(proof.calibrations),
        "trial": trial_of(manifest),
        "candidates": [outcome.to_dict() for outcome in proof.outcomes],
        "choice": choice_of(proof.outcomes),
        "tensors": [tensor.to_dict() for tensor in proof.tensors],
        "diagnosis": None if judgement is None else asdict(judgement),
        "graph": graph_facts(proof.graph),
        "provenance": provenance_facts(manifest),
    }


def graph_facts(graph: GraphSummary) -> dict[str, Any]:
    """Return the operators and sizes of a graph."""
    operators = sorted({operator.name for operator in graph.operators})
    counts = {name: sum(o.name == name for o in graph.operators) for name in operators}
    weights = [t for t in graph.tensors if t.constant_bytes and t.dtype == "int8"]
    return {
        "operators": counts,
        "weights": sum(int(np.prod(t.shape)) for t in weights),
        "dtypes": sorted({t.dtype for t in graph.tensors}),
    }


def model_sentence(manifest: Manifest, proof: Proof) -> str:
    """Say which model ships, and which others were tried."""
    parts = ["a linear forecast"]
    parts += ["a recurrent correction"] * ("correction" in manifest.outputs)
    parts += ["a gate"] * ("logit" in manifest.outputs)
    shape = f"The model is {', '.join(parts)}"
    if len(proof.outcomes) > 1:
        return f"{shape}. {choice_of(proof.outcomes)}."
    tried = manifest.provenance.selection
    if not tried:
        return f"{shape}, as requested or because of too few rows."
    values = ", ".join(f"{name} {value:.3f}" for name, value in tried.items())
    return (
        f"{shape}: the smallest that was not clearly worse at finding faults injected into "
        f"held-out rows (average precision: {values})."
    )
