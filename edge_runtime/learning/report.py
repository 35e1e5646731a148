"""The report of a linear detector: report.json, and report.html without external files."""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edge_runtime.bundle.manifest import Manifest, Threshold
from edge_runtime.calibration import Calibration, trial_of
from edge_runtime.learning.check import Check, limits, of_what
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


def linear_page(
    manifest: Manifest,
    checks: Sequence[Check],
    warnings: Sequence[str],
    calibrations: Mapping[str, Calibration],
    judgement: Judgement | None,
) -> str:
    """Return the page of a linear detector: verdict, promise, checks, provenance."""
    title = html.escape(f"{manifest.name} {manifest.version}")
    passed = all(check.passed for check in checks)
    word = '<b class="pass">passed</b>' if passed else '<b class="fail">FAILED</b>'
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="verdict">Its float32 steps against the plain formula: {word}.</p>',
        "<p>The model is a linear forecast, learned where it runs.</p>",
        *notes([*filter(None, [trial_of(manifest)]), *warnings]),
        *promise(next(iter(calibrations.values())).threshold),
        *threshold_table(calibrations),
        "<h2>The proof</h2>",
        checks_table(checks),
        "<h2>The model</h2>",
        *origin(manifest, judgement),
    ]
    return page(title, sections)


def linear_facts(
    manifest: Manifest,
    checks: Sequence[Check],
    warnings: Sequence[str],
    calibrations: Mapping[str, Calibration],
    judgement: Judgement | None,
) -> dict[str, Any]:
    """Return the contents of report.json: everything that the page says."""
    return {
        "name": manifest.name,
        "version": manifest.version,
        "passed": all(check.passed for check in checks),
        "kernel": next(iter(calibrations)),
        "checks": [check.to_dict() for check in checks],
        "warnings": list(warnings),
        "thresholds": threshold_facts(calibrations),
        "trial": trial_of(manifest),
        "diagnosis": None if judgement is None else asdict(judgement),
        "provenance": provenance_facts(manifest),
    }


def page(title: str, sections: Iterable[str]) -> str:
    """Return a whole page; the title and the sections are HTML."""
    body = "\n".join(sections)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>gruard: {title}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{STYLE}</style>\n{body}\n'
        "</html>\n"
    )


def notes(sentences: Iterable[str]) -> list[str]:
    """Return a paragraph for each of `sentences` that ask for attention."""
    return [f'<p class="fail">{html.escape(sentence)}.</p>' for sentence in sentences]


def promise(threshold: Threshold) -> list[str]:
    """Return what the false alarms of the threshold rest on."""
    word = '<b class="pass">assured</b>' if threshold.assured else '<b class="fail">not assured</b>'
    return [
        "<h2>What the alarm promise rests on</h2>",
        f"<p>The target of {threshold.wished_per_day:g} false alarms a day is {word}.<br>"
        f"{html.escape(threshold.statement)}.</p>",
    ]


def threshold_table(calibrations: Mapping[str, Calibration]) -> list[str]:
    """Return the table of the thresholds by kernel."""
    lines = [
        f"<tr><td>{html.escape(name)}<td class=n>{c.threshold.value:.3f}"
        f"<td class=n>{c.threshold.clear:.3f}<td>{html.escape(c.threshold.method)}</tr>"
        for name, c in calibrations.items()
    ]
    return ["<table><tr><th>kernel<th>threshold<th>clears below<th>method</tr>", *lines, "</table>"]


def origin(manifest: Manifest, judgement: Judgement | None) -> list[str]:
    """Return the channels, what the diagnosis is worth, and what the bundle was made from."""
    provenance = manifest.provenance
    tools = ", ".join(f"{name} {version}" for name, version in provenance.tools.items())
    diagnosis = _diagnosis_sentence(manifest, judgement)
    return [
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


def checks_table(checks: Sequence[Check]) -> str:
    """Return the table of `checks`."""
    rows = "".join(_check_row(check) for check in checks)
    return f"<table><tr><th><th>check<th>value<th>limits<th>of what</tr>{rows}</table>"


def _check_row(check: Check) -> str:
    mark = '<td class="pass">pass' if check.passed else '<td class="fail">FAIL'
    return (
        f'<tr>{mark}<td>{html.escape(check.name)}<td class="n">{check.value:.4f}'
        f"<td>{limits(check)}<td>{html.escape(of_what(check))}</tr>"
    )


def threshold_facts(calibrations: Mapping[str, Calibration]) -> dict[str, Any]:
    """Return the thresholds by kernel as JSON."""
    return {
        kernel: {
            "value": found.threshold.value,
            "method": found.threshold.method,
            "assured": found.threshold.assured,
            "statement": found.threshold.statement,
        }
        for kernel, found in calibrations.items()
    }


def provenance_facts(manifest: Manifest) -> dict[str, Any]:
    """Return what the bundle was made from as JSON."""
    source = manifest.provenance
    return {
        "data_sha256": source.data_sha256,
        "weights_sha256": source.weights_sha256,
        "seed": source.seed,
        "selection": dict(source.selection),
        "tools": dict(source.tools),
    }
