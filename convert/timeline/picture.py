"""The picture of a run: channels, score, alarms and tiers over time."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from convert.timeline.layout import (
    NARROWEST,
    Scale,
    bars,
    cut,
    extremes,
    join,
    limits,
    notes_of,
    place,
    scale_of,
    shown_channels,
)
from convert.timeline.run_facts import (
    Facts,
    RecordState,
    RunRecording,
    alarm_on,
    ratios,
    replaced,
    states_of,
)

WIDTH = 1600  # pixels
# Okabe and Ito's palette, which colour-blind readers can distinguish.
INK, GREY = "#24323d", "#7d8a94"
ALARM, LABELLED, REPLACED = "#d55e00", "#faefd0", "#009e73"
FILL = ALARM + "40"  # a quarter opaque
STATES = {
    RecordState.GATE: ("#b9dcf0", "", "tier 1: gate"),
    RecordState.WARMUP: ("#d9cbe8", "////", "warm-up"),
    RecordState.UNIT: ("#e69f00", "", "tier 2: recurrent unit"),
    RecordState.FALLBACK: ("#6a3d9a", "", "tier 3: fallback"),
    RecordState.GAP: ("#ffffff", "xxxx", "gap in the source"),
    RecordState.SILENT: ("#000000", "", "no record"),
}
STRIP = 0.42  # height of a strip in its row; the rest is for text


def draw(watch: RunRecording, facts: Facts, title: str) -> bytes:
    """Draw a PNG, 1600 pixels wide: channel lanes, score, alarm strip and tier strip."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = shown_channels(watch)
    heights = [max(0.62, 2.4 / len(shown))] * len(shown) + [2.0, 0.66, 0.95]
    with rc_context(
        {"font.size": 11, "hatch.linewidth": 0.6, "xtick.color": GREY, "ytick.color": GREY}
    ):
        figure = Figure(figsize=(WIDTH / 100, sum(heights) + 1.75), dpi=100)
        FigureCanvasAgg(figure)
        rows = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        height = figure.get_figheight()
        figure.subplots_adjust(0.118, 0.9 / height, 0.978, 1 - 0.85 / height, hspace=0)
        scale = scale_of(watch)
        _draw_lanes(rows, watch, shown, scale)
        _draw_score(rows[-3], watch, scale)
        _draw_alarms(rows[-2], watch, facts, scale)
        _draw_tiers(rows[-1], watch, facts, scale)
        for axis in rows[:-2]:
            _shade(axis, watch, scale)
        for axis in rows:
            _tidy(axis, scale)
        rows[-1].tick_params(bottom=True, labelbottom=True)
        rows[-1].xaxis.set_major_formatter("{x:,.6g}")
        rows[-1].set_xlabel(scale.label, color=GREY)
        _draw_words(figure, watch, facts, title, len(shown))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_lanes(
    rows: Sequence[Any], watch: RunRecording, shown: Sequence[int], scale: Scale
) -> None:
    unread = replaced(watch)
    for axis, channel in zip(rows, shown, strict=False):
        values = watch.values[:, channel]
        at, curve = extremes(values)
        low, high = limits(values)
        room = 0.16 * (high - low)
        axis.plot(scale.edges[at], np.clip(curve, low, high), color=INK, linewidth=0.7)
        axis.set_ylim(low - 2 * room, high + room)
        across = axis.get_xaxis_transform()
        stretches = bars(unread[:, channel], scale)
        strip = (0.02, 0.08 * len(shown) / max(0.62 * len(shown), 2.4))
        axis.broken_barh(stretches, strip, color=REPLACED, transform=across, linewidth=0)
        axis.set_yticks([low, high], [f"{low:.3g}", f"{high:.3g}"], fontsize=8)
        for label, side in zip(axis.get_yticklabels(), ("bottom", "top"), strict=True):
            label.set_verticalalignment(side)  # keeps it apart from the next lane's label
        _name(axis, watch.channels[channel], watch.units[channel])


def _draw_score(axis: Any, watch: RunRecording, scale: Scale) -> None:
    ratio = ratios(watch.records)
    fallback = np.array([record is not None and record.tier == 3 for record in watch.records])
    top = float(np.clip(np.nanmax(ratio, initial=2.0), 2.0, 1000.0)) * 1.4
    ratio = np.clip(ratio, -1.0, top)
    for mine, color in ((~fallback, INK), (fallback, STATES[RecordState.FALLBACK][0])):
        at, curve = extremes(np.where(mine, ratio, np.nan))
        axis.plot(scale.edges[at], curve, color=color, linewidth=0.8)
        axis.fill_between(
            scale.edges[at], 1, curve, where=curve > 1, interpolate=True, color=FILL, lw=0
        )
    axis.axhline(1, color=ALARM, linewidth=1.1)
    axis.set_yscale("symlog", linthresh=1, linscale=0.8)
    axis.set_ylim(min(-0.1, float(np.nanmin(ratio, initial=0.0))), 1.2 * top)
    ticks = [tick for tick in (0, 1, 3, 10, 30, 100, 300, 1000) if tick < top]
    axis.set_yticks(ticks, [f"{tick}" for tick in ticks], fontsize=9)
    axis.minorticks_off()
    axis.get_yticklabels()[ticks.index(1)].set(color=ALARM, fontweight="bold")
    _name(axis, "score", "÷ threshold")


def _draw_alarms(axis: Any, watch: RunRecording, facts: Facts, scale: Scale) -> None:
    stretches = bars(alarm_on(watch.records), scale)
    axis.broken_barh(stretches, (0, STRIP), color=ALARM, linewidth=0)
    longest_first = sorted(facts.alarms, key=lambda alarm: alarm.start - alarm.stop)
    words = [(alarm.start, join(alarm.blamed)) for alarm in longest_first]
    _write(axis, [(at, text) for at, text in words if text], scale, 1, below=False)
    axis.axhline(0, color=ALARM, linewidth=0.6)
    axis.set(ylim=(-0.2, 1), yticks=[])
    _name(axis, "alarm", "blamed channels")


def _draw_tiers(axis: Any, watch: RunRecording, facts: Facts, scale: Scale) -> None:
    states = states_of(watch.records)
    for state in RecordState:  # worst last, so that short outages are on top
        color, hatch, _ = STATES[state]
        axis.broken_barh(
            bars(states == state, scale, NARROWEST if state else 0),
            (1 - STRIP, STRIP),
            facecolor=color,
            hatch=hatch,
            edgecolor=GREY if hatch else color,
            linewidth=0,
        )
    notes = [(note.index, note.text) for note in notes_of(watch, facts)]
    _write(axis, notes, scale, 2, below=True)
    axis.set(ylim=(0, 1), yticks=[])
    _name(axis, "tier", "who answers")


def _write(
    axis: Any, words: Sequence[tuple[int, str]], scale: Scale, levels: int, below: bool
) -> None:
    """Write texts next to a strip, each starting at its sample; texts without room are left out."""
    first, last = float(scale.edges[0]), float(scale.edges[-1])
    # On a white background a line to a lower text passes behind this one.
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6} if below else None
    style: dict[str, Any] = {"fontsize": 10, "color": INK, "va": "center", "parse_math": False}
    texts = [axis.text(first, 0, text, bbox=ground, zorder=3, **style) for _, text in words]
    widths = [(text.get_window_extent().width + 12) * scale.pixel for text in texts]
    starts = [float(scale.edges[at]) for at, _ in words]
    lefts = [max(first, min(x, last - width)) for x, width in zip(starts, widths, strict=True)]
    found = place([(x, x + width) for x, width in zip(lefts, widths, strict=True)], levels)
    for text, start, left, level in zip(texts, starts, lefts, found, strict=True):
        if level is None:
            text.remove()
            continue
        y = (1 - STRIP) * (1 - (level + 0.6) / levels) if below else (1 + STRIP) / 2 - 0.06
        text.set_position((left + 4 * scale.pixel, y))
        if below:
            axis.plot([start] * 2, [y - 0.1, 1 - STRIP], color=INK, linewidth=0.8, zorder=1)


def _draw_words(figure: Any, watch: RunRecording, facts: Facts, title: str, shown: int) -> None:
    from matplotlib.patches import Patch

    height, style = figure.get_figheight(), {"color": INK, "parse_math": False}
    lanes = f"{shown} of {len(watch.channels)} channels shown: the most blamed or replaced ones"
    head = watch.name if shown == len(watch.channels) else f"{watch.name} ({lanes})"
    figure.text(0.012, 1 - 0.3 / height, head, fontsize=15, fontweight="bold", **style)
    figure.text(0.012, 1 - 0.6 / height, title, fontsize=11.5, **style)
    patches = []
    if watch.labels is not None and watch.labels.any():
        patches.append(Patch(facecolor=LABELLED, label="labelled anomalous"))
    if replaced(watch).any():
        patches.append(Patch(facecolor=REPLACED, label="reading masked or imputed"))
    if facts.alarms:
        patches.append(Patch(facecolor=ALARM, label="alarm"))
    present = set(states_of(watch.records).tolist())
    for state, (color, hatch, label) in STATES.items():
        if state in present:
            patches.append(Patch(facecolor=color, hatch=hatch, edgecolor=GREY, lw=0, label=label))
    figure.legend(
        handles=patches, loc="lower center", ncols=len(patches), frameon=False, fontsize=10
    )


def _tidy(axis: Any, scale: Scale) -> None:
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(bottom=False, labelbottom=False, length=0)
    axis.set_xlim(scale.edges[0], scale.edges[-1])


def _shade(axis: Any, watch: RunRecording, scale: Scale) -> None:
    if watch.labels is not None:
        stretches = bars(watch.labels, scale)
        across = axis.get_xaxis_transform()
        axis.broken_barh(stretches, (0, 1), color=LABELLED, transform=across, lw=0, zorder=0)


def _name(axis: Any, name: str, unit: str) -> None:
    for text, lift, color, size in (
        (cut(name, 14), 6 if unit else 0, INK, 10.5),
        (unit, -7, GREY, 8.5),
    ):
        axis.annotate(
            text,
            (-0.033, 0.5),
            (0, lift),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="center",
            color=color,
            fontsize=size,
            parse_math=False,  # a dollar sign in a name is no formula
        )
