"""report.html, a page without external files: did int8 cost anything, and what is promised?"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence

from convert.detection import Detection, by_kind
from convert.proof import Proof
from convert.report import pictures
from convert.report.facts import graph_facts, limits, model_sentence, of_what
from convert.tensor_errors import TensorError, worst_tensor
from convert.validate import Verdict
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.calibration import Calibration, trial_of
from edge_runtime.learning.check import Check
from edge_runtime.learning.diagnosis.section import Judgement

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
h1 { margin-bottom: .2rem } h2 { margin: 2.2rem 0 .4rem; font-size: 1.2rem }
table { border-collapse: collapse; margin: .6rem 0 } th { font-weight: 600 }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #e2e2e2 }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.pass { color: #1a7f37 } .fail { color: #b3261e; font-weight: 600 }
.verdict { font-size: 1.15rem; margin: .2rem 0 1rem } .note { color: #666 }
.row { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start }
figure { margin: .6rem 0 } figcaption { color: #555; font-size: .9em } img { max-width: 100% }
"""
WORST_TENSORS = 3


def report_html(manifest: Manifest, proof: Proof) -> str:
    """Return the page: verdict, promise, comparison, rollout, tensors, kernels, provenance."""
    title = html.escape(f"{manifest.name} {manifest.version}")
    sections = [
        f"<h1>{title}</h1>",
        _headline(manifest, proof.verdict),
        f"<p>{html.escape(model_sentence(manifest, proof))}</p>",
        *_notes([*filter(None, [trial_of(manifest)]), *proof.verdict.warnings]),
        *_promise(proof.calibrations),
        *_comparison(manifest, proof.verdict),
        *_rollout(proof.verdict),
        *_tensors(proof.tensors),
        *_kernels(proof.others),
        *_failed(proof),
        *_model(manifest, proof),
    ]
    body = "\n".join(sections)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>gruard: {title}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{STYLE}</style>\n{body}\n'
        "</html>\n"
    )


def _headline(manifest: Manifest, verdict: Verdict) -> str:
    word = '<b class="pass">passed</b>' if verdict.passed else '<b class="fail">FAILED</b>'
    what = (
        "Its float32 steps against the plain formula"
        if manifest.linear
        else "The int8 model against the trained float model, step by step"
    )
    cost = "" if manifest.linear else f" {html.escape(_cost(verdict))}"
    return f'<p class="verdict">{what}: {word}.{cost}</p>'


def _cost(verdict: Verdict) -> str:
    """Say in one sentence what int8 cost."""
    found = next((d for d in verdict.detections if d.stream == "faults"), None)
    if found is None or not found.events:
        return ""
    int8 = sum(kind.int8_found for kind in by_kind(found))
    floating = sum(kind.float_found for kind in by_kind(found))
    return (
        f"Of {len(found.events)} injected faults int8 finds {int8} and float {floating}; "
        f"area under the ROC curve {found.int8_auc:.4f} and {found.float_auc:.4f}."
    )


def _promise(calibrations: Mapping[str, Calibration]) -> list[str]:
    kernel, calibration = next(iter(calibrations.items()))
    threshold = calibration.threshold
    word = '<b class="pass">assured</b>' if threshold.assured else '<b class="fail">not assured</b>'
    lines = [
        f"<tr><td>{html.escape(name)}<td class=n>{c.threshold.value:.3f}"
        f"<td class=n>{c.threshold.clear:.3f}<td>{html.escape(c.threshold.method)}</tr>"
        for name, c in calibrations.items()
    ]
    return [
        "<h2>What the alarm promise rests on</h2>",
        f"<p>The target of {threshold.wished_per_day:g} false alarms a day is {word}.<br>"
        f"{html.escape(threshold.statement)}.</p>",
        '<div class="row">',
        _figure(
            pictures.tail_picture(calibration),
            f"Each dot is a peak of the clean scores on {kernel}, at the mean time between peaks "
            "of at least this height.",
        ),
        "<table><tr><th>kernel<th>threshold<th>clears below<th>method</tr>",
        *lines,
        "</table>",
        "</div>",
    ]


def _comparison(manifest: Manifest, verdict: Verdict) -> list[str]:
    assert verdict.evidence is not None  # a conversion always keeps it
    threshold = manifest.thresholds[verdict.kernel].value
    title = "The proof" if manifest.linear else "Did int8 cost anything?"
    parts = [f"<h2>{title}</h2>", _checks(verdict.checks)]
    parts += [
        f'<p class="note">Not judged: {html.escape(what)}.</p>' for what in verdict.not_judged
    ]
    parts.append(
        _figure(
            pictures.scores_picture(verdict.evidence, threshold),
            "Held-out rows with injected faults (shaded where a reading is visibly wrong).",
        )
    )
    for found in verdict.detections:
        parts += _detection(found)
    return parts


def _detection(found: Detection) -> list[str]:
    rows = "".join(
        f"<tr><td>{html.escape(kind.kind)}<td class=n>{kind.events}<td class=n>{kind.int8_found}"
        f"<td class=n>{kind.float_found}<td class=n>{_shift(kind.shift)}</tr>"
        for kind in by_kind(found)
    )
    return [
        '<div class="row">',
        _figure(
            pictures.matrix_picture(found),
            f"{found.stream}: decisions; {found.hanging} close to the threshold are left out",
        ),
        _figure(pictures.delays_picture(found), f"{found.stream}: delay"),
        f"<table><tr><th>{found.stream}: kind<th>events<th>int8 finds<th>float finds"
        f"<th>largest shift</tr>{rows}</table>",
        "</div>",
    ]


def _rollout(verdict: Verdict) -> list[str]:
    if not verdict.bursts:
        return []
    assert verdict.evidence is not None
    errors = verdict.evidence.state_errors
    return [
        "<h2>Free rollout</h2>",
        _figure(
            pictures.states_picture(errors),
            f"Distance of the states over {len(errors):,} steps of clean rows, each model with its "
            "own state; dashed: the tolerance.",
        ),
        *(f"<p>{html.escape(bursts.sentence())}.</p>" for bursts in verdict.bursts),
    ]


def _tensors(tensors: Sequence[TensorError]) -> list[str]:
    if not tensors:
        return []
    saturated = [tensor for tensor in tensors if tensor.saturated]
    beyond = (
        "No value of the float model lies beyond an int8 range."
        if not saturated
        else f"Values beyond the int8 range: {_named(saturated)}."
    )
    return [
        "<h2>Where accuracy is lost</h2>",
        _figure(pictures.tensors_picture(tensors), "Every tensor on the rows with faults."),
        f"<p>The largest loss is in {html.escape(worst_tensor(tensors).sentence())}. "
        f"{html.escape(beyond)}</p>",
    ]


def _named(tensors: Iterable[TensorError]) -> str:
    worst = sorted(tensors, key=lambda tensor: -tensor.saturated)
    shown = ", ".join(f"{t.name} {t.saturated:.2%}" for t in worst[:WORST_TENSORS])
    return shown + (f" and {len(worst) - WORST_TENSORS} more" if worst[WORST_TENSORS:] else "")


def _kernels(others: Sequence[Verdict]) -> list[str]:
    parts = []
    for verdict in others:
        failed = [check for check in verdict.checks if not check.passed]
        word = (
            '<b class="pass">passed</b>' if not failed else '<b class="fail">FAILED, left out</b>'
        )
        parts += [f"<h2>On {html.escape(verdict.kernel)}: {word}</h2>"]
        parts += [_checks(failed or verdict.checks)]
    return parts


def _failed(proof: Proof) -> list[str]:
    """List the candidates that failed, each with its failed checks."""
    parts = []
    for outcome in proof.outcomes:
        if not outcome.passed:
            parts += [f"<h2>{html.escape(outcome.sentence)}</h2>"]
            parts += [_checks(outcome.failed)] if outcome.failed else []
    return parts


def _notes(sentences: Iterable[str]) -> list[str]:
    return [f'<p class="fail">{html.escape(sentence)}.</p>' for sentence in sentences]


def _model(manifest: Manifest, proof: Proof) -> list[str]:
    facts = graph_facts(proof.graph)
    operators = ", ".join(f"{count} {name}" for name, count in facts["operators"].items())
    contents = f"{facts['weights']} weights; {operators}; tensors {', '.join(facts['dtypes'])}."
    if manifest.linear:
        contents = "There is no graph: nothing is quantised."
    provenance = manifest.provenance
    tools = ", ".join(f"{name} {version}" for name, version in provenance.tools.items())
    diagnosis = _diagnosis_sentence(manifest, proof.judgement)
    return [
        "<h2>The model</h2>",
        f"<p>{contents}</p>",
        f"<p>Channels: {html.escape(', '.join(manifest.channel_names))}.</p>",
        f"<p>{html.escape(diagnosis)}.</p>",
        f"<p class=note>Made from data {provenance.data_sha256[:12]}, weights "
        f"{provenance.weights_sha256[:12]}, seed {provenance.seed}; {html.escape(tools)}.</p>",
    ]


def _diagnosis_sentence(manifest: Manifest, judgement: Judgement | None) -> str:
    if manifest.diagnosis is None:
        return "This bundle has no diagnosis: its alarms name channels, but no kind of fault"
    if judgement is None:
        return "The diagnosis was not judged: there are too few calibration rows to inject faults"
    return judgement.sentence()


def _checks(checks: Sequence[Check]) -> str:
    rows = "".join(_check_row(check) for check in checks)
    return f"<table><tr><th><th>check<th>value<th>limits<th>of what</tr>{rows}</table>"


def _check_row(check: Check) -> str:
    mark = '<td class="pass">pass' if check.passed else '<td class="fail">FAIL'
    return (
        f'<tr>{mark}<td>{html.escape(check.name)}<td class="n">{check.value:.4f}'
        f"<td>{limits(check)}<td>{html.escape(of_what(check))}</tr>"
    )


def _shift(shift: int | None) -> str:
    return "–" if shift is None else f"{shift:+d}" if shift else "0"


def _figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
