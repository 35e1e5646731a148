"""report.html, a page without external files: did int8 cost anything, and what is promised?"""

import base64
import html
from collections.abc import Iterable, Sequence

from convert.detection import SPARED, Detection, by_kind
from convert.proof import Proof
from convert.report import pictures
from convert.report.facts import graph_facts, model_sentence
from convert.tensor_errors import TensorError, worst_tensor
from convert.validate import Verdict
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.calibration import trial_of
from edge_runtime.learning.report import (
    checks_table,
    notes,
    origin,
    page,
    promise,
    threshold_table,
)

WORST_TENSORS = 3


def report_html(manifest: Manifest, proof: Proof) -> str:
    """Return the page: verdict, promise, comparison, rollout, tensors, kernels, provenance."""
    title = html.escape(f"{manifest.name} {manifest.version}")
    sections = [
        f"<h1>{title}</h1>",
        _headline(manifest, proof.verdict),
        f"<p>{html.escape(model_sentence(manifest, proof))}</p>",
        *notes([*filter(None, [trial_of(manifest)]), *proof.verdict.warnings]),
        *_promise(proof),
        *_comparison(manifest, proof.verdict),
        *_rollout(proof.verdict),
        *_tensors(proof.tensors),
        *_kernels(proof.others),
        *_failed(proof),
        *_model(manifest, proof),
    ]
    return page(title, sections)


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


def _promise(proof: Proof) -> list[str]:
    kernel, calibration = next(iter(proof.calibrations.items()))
    if proof.verdict.evidence is None:  # a linear model: no picture, as on the device
        return [*promise(calibration.threshold), *threshold_table(proof.calibrations)]
    return [
        *promise(calibration.threshold),
        '<div class="row">',
        _figure(
            pictures.tail_picture(calibration),
            f"Each dot is a peak of the clean scores on {kernel}, at the mean time between peaks "
            "of at least this height.",
        ),
        *threshold_table(proof.calibrations),
        "</div>",
    ]


def _comparison(manifest: Manifest, verdict: Verdict) -> list[str]:
    title = "The proof" if manifest.linear else "Did int8 cost anything?"
    parts = [f"<h2>{title}</h2>", checks_table(verdict.checks)]
    parts += [
        f'<p class="note">Not judged: {html.escape(what)}.</p>' for what in verdict.not_judged
    ]
    if verdict.evidence is not None:
        threshold = manifest.thresholds[verdict.kernel].value
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
            f"{found.stream}: decisions; left out are {found.hanging} close to the threshold, and "
            f"{found.spared} that differ after the worst one in {SPARED} anomalies",
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
        parts += [checks_table(failed or verdict.checks)]
    return parts


def _failed(proof: Proof) -> list[str]:
    """List the candidates that failed, each with its failed checks."""
    parts = []
    for outcome in proof.outcomes:
        if not outcome.passed:
            parts += [f"<h2>{html.escape(outcome.sentence)}</h2>"]
            parts += [checks_table(outcome.failed)] if outcome.failed else []
    return parts


def _model(manifest: Manifest, proof: Proof) -> list[str]:
    facts = graph_facts(proof.graph)
    operators = ", ".join(f"{count} {name}" for name, count in facts["operators"].items())
    contents = f"{facts['weights']} weights; {operators}; tensors {', '.join(facts['dtypes'])}."
    if manifest.linear:
        contents = "There is no graph: nothing is quantised."
    return ["<h2>The model</h2>", f"<p>{contents}</p>", *origin(manifest, proof.judgement)]


def _shift(shift: int | None) -> str:
    return "–" if shift is None else f"{shift:+d}" if shift else "0"


def _figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
