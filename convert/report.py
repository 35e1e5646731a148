"""The proof as people and programs read it: report.html with a picture, report.json, a table."""

import base64
import html
import io
from dataclasses import asdict
from typing import Any

import numpy as np

from convert.check import Check
from convert.diagnosis_section import Judgement
from convert.validate import Evidence, Verdict
from edge_runtime.flatbuffer import GraphSummary
from edge_runtime.manifest import Manifest

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem; text-align: left;
       border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.pass { color: #1a7f37 } .fail { color: #b3261e; font-weight: 600 } img { max-width: 100% }
"""


def verdict_text(verdict: Verdict) -> str:
    """The verdict as plain text: a line a check, then what lies beside the checks."""
    checks = verdict.checks
    width = max(len(check.name) for check in checks)
    lines = [
        f"{'pass' if check.passed else 'FAIL'}  {check.name:<{width}}  {check.value:10.4f}  "
        f"in {_limits(check):<12}  {_of_what(check)}"
        for check in checks
    ]
    lines += [f"      {bursts.sentence()}" for bursts in verdict.bursts if bursts.count]
    lines += [f"      not judged: {what}" for what in verdict.not_judged]
    return "\n".join(lines)


def report_json(
    manifest: Manifest, graph: GraphSummary, verdict: Verdict, judgement: Judgement | None
) -> dict[str, Any]:
    """Everything the report says, for programs."""
    threshold = next(iter(manifest.thresholds.values()))
    return {
        "name": manifest.name,
        "version": manifest.version,
        **verdict.to_dict(),
        "threshold": {
            "value": threshold.value,
            "method": threshold.method,
            "assured": threshold.assured,
            "statement": threshold.statement,
        },
        "diagnosis": None if judgement is None else asdict(judgement),
        "graph": graph_facts(graph),
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


def report_html(
    manifest: Manifest, graph: GraphSummary, verdict: Verdict, judgement: Judgement | None
) -> str:
    """A page that stands alone: verdict, promise, picture, checks, graph, provenance."""
    kernel, threshold = next(iter(manifest.thresholds.items()))
    facts = graph_facts(graph)
    title = html.escape(f"{manifest.name} {manifest.version}")
    word = (
        '<span class="pass">passed</span>' if verdict.passed else '<span class="fail">FAILED</span>'
    )
    rows = "".join(_row(check) for check in verdict.checks)
    operators = ", ".join(f"{count} {name}" for name, count in facts["operators"].items())
    contents = f"{facts['weights']} weights; {operators}; tensors {', '.join(facts['dtypes'])}."
    if manifest.linear:
        contents = "There is no graph: nothing is quantised."
    tools = ", ".join(f"{k} {v}" for k, v in manifest.provenance.tools.items())
    assert verdict.evidence is not None  # a conversion always keeps it
    picture = base64.b64encode(draw(verdict.evidence, threshold.value)).decode()
    model = html.escape(model_sentence(manifest))
    proof = (
        "Its float32 steps against the plain formula"
        if manifest.linear
        else "The int8 model against its float twin, step by step"
    )
    diagnosis = _diagnosis_sentence(manifest, judgement)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>gruard: {title}</title>
<style>{STYLE}</style>
<h1>{title}</h1>
<p>{model} {proof}: {word}.</p>
<p>{html.escape(threshold.statement)}. Threshold {threshold.value:.2f} on kernel {kernel}
({html.escape(threshold.method)}).</p>
<p>{html.escape(diagnosis)}.</p>
<img alt="scores, state error and one-step agreement" src="data:image/png;base64,{picture}">
<table><tr><th><th>check<th>value<th>limits<th>of what</tr>{rows}</table>
<p>{contents}</p>
<p>Channels: {html.escape(", ".join(manifest.channel_names))}.</p>
<p>Made from data {manifest.provenance.data_sha256[:12]}, weights
{manifest.provenance.weights_sha256[:12]}, seed {manifest.provenance.seed};
{html.escape(tools)}.</p>
</html>
"""


def _diagnosis_sentence(manifest: Manifest, judgement: Judgement | None) -> str:
    if manifest.diagnosis is None:
        return "This bundle has no diagnosis: its alarms name channels, but no kind of fault"
    if judgement is None:
        return "The diagnosis was not judged: the calibration rows are too few to put faults into"
    return judgement.sentence()


def draw(evidence: Evidence, threshold: float) -> bytes:
    """PNG: both models' scores on the faulty stream, and how far their states are apart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    scores, correlation, states = figure.subplots(3, 1, height_ratios=[2, 1, 1])
    _draw_scores(scores, evidence, threshold)
    a, b = evidence.faulty.quantised, evidence.faulty.reference
    correlation.plot(a.score - b.score, linewidth=0.7, color="#7a4fa3")
    correlation.set_title("score, int8 minus float", fontsize=10)
    error = evidence.state_errors
    states.plot(error, linewidth=0.7, color="#1f6f8b")
    states.axhline(0.05, linestyle="--", color="#999999", linewidth=0.8)
    states.set_title(
        f"free rollout over {len(error)} steps: RMS distance of the states", fontsize=10
    )
    states.set_xlabel("sample")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _draw_scores(axis: Any, evidence: Evidence, threshold: float) -> None:
    from convert.metrics import intervals

    top = 3 * threshold
    axis.plot(
        np.clip(evidence.faulty.reference.score, None, top),
        linewidth=1.4,
        color="#bbbbbb",
        label="float",
    )
    axis.plot(
        np.clip(evidence.faulty.quantised.score, None, top),
        linewidth=0.7,
        color="#1f6f8b",
        label="int8",
    )
    axis.axhline(threshold, color="#b3261e", linewidth=0.9, label="threshold")
    for start, stop in intervals(evidence.stream.faulty):
        axis.axvspan(start, stop, color="#f2b8b5", alpha=0.5, linewidth=0)
    axis.set_title("score on held-out rows with injected faults (shaded)", fontsize=10)
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="upper right")


def _row(check: Check) -> str:
    mark = '<td class="pass">pass' if check.passed else '<td class="fail">FAIL'
    return (
        f'<tr>{mark}<td>{html.escape(check.name)}<td class="n">{check.value:.4f}'
        f"<td>{_limits(check)}<td>{html.escape(_of_what(check))}</tr>"
    )


def _of_what(check: Check) -> str:
    return f"{check.meaning}; worst: {check.worst}" if check.worst else check.meaning


def _limits(check: Check) -> str:
    return f"{check.low:g} … {check.high:g}"
