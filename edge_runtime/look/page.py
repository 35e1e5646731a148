"""The page about a recording: for a terminal, for programs, and for a browser with pictures."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edge_runtime.look.facts import ChannelFacts, Look, SuspectRows
from edge_runtime.look.recording import KINDS, WholeRecording
from edge_runtime.look.spans import moment
from edge_runtime.record import Float32
from edge_runtime.status.health import duration

FIT = "fit to learn from"
UNFIT = "see to the warnings before learning from it"
DOUBTFUL = "fit to learn from without the rows in doubt"
EVEN = 0.02  # of the period; less is no jitter to speak of
WIDTH, HEIGHT = 320, 40  # of a channel's picture, in its own units
MOST_PICTURES = 60
LEGEND = (
    "From the first row on the left to the last on the right. Red: unlike the rest; pale red: "
    "another channel is. Grey: labelled anomalous."
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1rem auto; padding: 0 1rem;
       color: #222; background: #fff; overflow-wrap: anywhere }
h1 { font-size: 1.3rem; margin: .4rem 0 } h2 { font-size: 1.1rem; margin: 1.4rem 0 .4rem }
.fit { color: #1a7f37; font-weight: 600 } .unfit { color: #b3261e; font-weight: 600 }
.warning { border-left: 4px solid #b3261e; padding-left: .7rem } .note { color: #666 }
figure { margin: .5rem 0 } figcaption { font-size: .9em }
svg { display: block; width: 100%; height: 3.2rem; background: #f6f6f6 }
path { stroke: #2456a6; fill: none }
rect { fill: #b3261e; fill-opacity: .22 } rect.pale { fill-opacity: .08 } rect.label { fill: #777 }
"""


def page_text(look: Look) -> str:
    """The page for a terminal; names from files as they are."""
    lines = [_headline(look), "", *_table(look.channels)]
    lines += [f"set aside: {aside}" for aside in _aside(look)]
    lines += ["", f"sampling: {_sampling(look)}"]
    if look.regimes:
        lines.append(f"regimes: {_regimes(look)}")
    lines += [f"WARNING: {warning}" for warning in look.warnings]
    lines += [f"note: {note}" for note in look.notes]
    return "\n".join([*lines, f"length: {look.allows}", f"verdict: {_verdict(look)}"])


def page_facts(look: Look) -> dict[str, Any]:
    """The same for programs."""
    return asdict(look) | {"files": [str(file) for file in look.files], "fit": not look.warnings}


def page_html(look: Look, readings: WholeRecording) -> str:
    """The page for a browser, complete in itself, for screens from 400 pixels on."""
    colour = "unfit" if look.warnings else "fit"
    title = html.escape(", ".join(file.name for file in look.files[:3]))
    sections = [
        f"<h1>{title}</h1>",
        _paragraph(_headline(look)),
        _paragraph(f"Verdict: {_verdict(look)}.", colour),
        *(_paragraph(f"{warning}.", "warning") for warning in look.warnings),
        *(_paragraph(f"{note}.", "note") for note in look.notes),
        _paragraph(f"Length: {look.allows}."),
        _paragraph(f"Sampling: {_sampling(look)}."),
        *([_paragraph(f"Regimes: {_regimes(look)}.")] if look.regimes else []),
        "<h2>Channels</h2>",
        _paragraph(LEGEND, "note"),
        *_pictures(look, readings),
        *(_paragraph(f"Set aside: {aside}", "note") for aside in _aside(look)),
    ]
    body = "\n".join(sections)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>gruard look: {title}</title>\n"
        f'<meta name="viewport" content="width=device-width">\n<style>{STYLE}</style>\n{body}\n'
        "</html>\n"
    )


def _headline(look: Look) -> str:
    sampling = look.sampling
    files = f"{look.files[0]}" + (f" and {len(look.files) - 1} more" if len(look.files) > 1 else "")
    every = f", one every {sampling.period:g} s" if sampling.period else ""
    span = ""
    if sampling.first is not None and sampling.last is not None:
        span = f", {moment(sampling.first)} to {moment(sampling.last)}"
    return f"{files}: {sampling.rows:,} rows{every}{span}"


def _verdict(look: Look) -> str:
    if not look.warnings:
        return FIT
    return UNFIT if len(look.warnings) > len(look.findings) else DOUBTFUL


def _table(channels: Sequence[ChannelFacts]) -> list[str]:
    head = ("channel", "least", "median", "most", "resolution", "missing")
    rows = [head, *(_cells(channel) for channel in channels if channel.kind is None)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def _cells(channel: ChannelFacts) -> tuple[str, ...]:
    unit = f" [{channel.unit}]" if channel.unit else ""
    numbers = (channel.low, channel.middle, channel.high, channel.step)
    shown = ("" if number is None else f"{number:.5g}" for number in numbers)
    return (f"{channel.name}{unit}", *shown, _missing(channel))


def _missing(channel: ChannelFacts) -> str:
    if not channel.missing:
        return "0"
    return f"{channel.missing:,} ({channel.hole:,} in one piece)"


def _aside(look: Look) -> list[str]:
    """Columns that are no channels, a line a kind."""
    found = {"text": list(look.text)}
    found |= {kind: [c.name for c in look.channels if c.kind == kind] for kind in KINDS}
    hints = {kind: f" (--counter '{names[0]}')" for kind, names in found.items() if names}
    return [
        f"{kind}: {', '.join(names)}{hints[kind] if kind == 'counting' else ''}"
        for kind, names in found.items()
        if names
    ]


def _sampling(look: Look) -> str:
    sampling = look.sampling
    if sampling.first is None:
        return "no time column, so the period and gaps are unknown"
    if sampling.period is None:
        return "unknown, because the time does not increase"
    even = "evenly" if sampling.jitter <= EVEN else f"give or take {100 * sampling.jitter:.2g} %"
    told = [f"every {sampling.period:g} s, {even}"]
    if sampling.late:
        told.append(f"{_count(sampling.late, 'reading')} late")
    if not sampling.gaps:
        return "; ".join([*told, "no gaps"])
    gaps, rows = _count(sampling.gaps, "gap"), _count(sampling.missing_rows, "missing row")
    return "; ".join([*told, f"{gaps} with {rows}, the longest {duration(sampling.longest_gap)}"])


def _regimes(look: Look) -> str:
    levels = ", ".join(
        f"{r.level:.4g} ({100 * r.share:.0f} % of the rows, came {_times(r.visits)})"
        for r in look.regimes
    )
    return f"{look.regimes[0].channel} stays at {len(look.regimes)} levels: {levels}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _paragraph(text: str, style: str = "") -> str:
    opening = f'<p class="{style}">' if style else "<p>"
    return f"{opening}{html.escape(text)}</p>"


def _pictures(look: Look, readings: WholeRecording) -> Iterable[str]:
    shown = [i for i, channel in enumerate(look.channels) if channel.kind is None]
    for index in shown[:MOST_PICTURES]:
        name, *numbers, missing = _cells(look.channels[index])
        facts = ", ".join(
            map(" ".join, zip(("least", "median", "most", "resolution"), numbers, strict=True))
        )
        told = html.escape(f": {facts}, missing {missing}")
        yield (
            f"<figure><figcaption><b>{html.escape(name)}</b>{told}</figcaption>"
            f"{picture(look.channels[index].name, readings, index, look.findings)}</figure>"
        )
    if len(shown) > MOST_PICTURES:
        yield _paragraph(f"{len(shown) - MOST_PICTURES} more channels have no picture here.")


def picture(
    name: str, readings: WholeRecording, index: int, findings: Sequence[SuspectRows]
) -> str:
    """The course of one channel over the rows as SVG: from least to most in each of `WIDTH` parts.

    Red: stretches unlike the rest in which the channel differs, pale: in which others do. Grey:
    rows labelled anomalous.
    """
    rows = readings.rows
    shades = [_shade(f.start, f.stop, rows, "" if name in f.channels else "pale") for f in findings]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], readings.anomalous, [False]])))
    shades += [_shade(int(a), int(b), rows, "label") for a, b in edges.reshape(-1, 2)]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{html.escape(name)}">{"".join(shades)}'
        f'<path d="{_course(readings.values[:, index])}"/></svg>'
    )


def _shade(start: int, stop: int, rows: int, kind: str) -> str:
    left, width = WIDTH * start / rows, WIDTH * (stop - start) / rows
    return f'<rect class="{kind}" x="{left:.1f}" width="{width:.1f}" height="{HEIGHT}"/>'


def _course(column: Float32) -> str:
    known = np.where(np.isfinite(column), column, np.nan).astype(np.float64)
    low, high = np.nanmin(known), np.nanmax(known)
    scale = (HEIGHT - 4) / ((high - low) or 1.0)
    strokes = []
    for place, part in enumerate(np.array_split(known, WIDTH)):
        part = part[np.isfinite(part)]
        if len(part):
            top, bottom = 2 + (high - part.max()) * scale, 2 + (high - part.min()) * scale
            strokes.append(f"M{place + 0.5:g} {top - 0.4:.1f}V{bottom + 0.4:.1f}")
    return "".join(strokes)
