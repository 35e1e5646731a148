"""The picture of a run: what the sensors said, what the score made of it, and who vouched."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convert.metrics import intervals
from convert.watch_facts import (
    Bools,
    Facts,
    Float64,
    State,
    Watch,
    alarm_on,
    notes_of,
    ratios,
    replaced,
    states_of,
)

WIDTH = 1600  # pixels
LANES = 8
BUCKETS = 1376  # about the pixels of the plotting area: more points than that cannot be seen
NARROWEST = 3  # pixels; a single sample among 200,000 must not vanish
# Okabe and Ito's palette, so that the strips differ for colour-blind readers too.
INK, GREY = "#24323d", "#7d8a94"
ALARM, LABELLED, REPLACED = "#d55e00", "#faefd0", "#009e73"
FILL = ALARM + "40"  # a quarter opaque
STATES = {
    State.GATE: ("#b9dcf0", "", "tier 1: gate"),
    State.WARMUP: ("#e6f2f9", "////", "warm-up"),
    State.UNIT: ("#e69f00", "", "tier 2: recurrent unit"),
    State.FALLBACK: ("#6a3d9a", "", "tier 3: fallback"),
    State.GAP: ("#ffffff", "xxxx", "gap in the source"),
    State.SILENT: ("#000000", "", "no record"),
}
STRIP = 0.42  # height of a strip in its row, the rest is for words


@dataclass(frozen=True)
class Scale:
    """The horizontal axis: edges float64 [n + 1], where each sample begins and the last ends."""

    edges: Float64
    label: str

    @property
    def pixel(self) -> float:
        """Width of a pixel in the axis's unit, roughly."""
        return float(self.edges[-1] - self.edges[0]) / BUCKETS


def draw(watch: Watch, facts: Facts, title: str) -> bytes:
    """PNG, 1600 pixels wide: channel lanes, score, alarm strip and tier strip over one axis."""
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
        scale = _scale(watch)
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


def shown_channels(watch: Watch) -> list[int]:
    """All channels, or the LANES most often blamed or replaced ones; in the recording's order."""
    count = replaced(watch).sum(axis=0)
    column = {name: i for i, name in enumerate(watch.channels)}
    for record in watch.records:
        for name in record.blamed if record else ():
            count[column[name]] += 1
    return sorted(np.argsort(-count, kind="stable")[:LANES].tolist())


def extremes(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], npt.NDArray[Any]]:
    """Indices and values of a curve that looks like `values` [n]: each pixel's lowest and highest.

    Short curves come back whole. Non-finite values become NaN and leave a hole.
    """
    clean = np.where(np.isfinite(values), values, np.nan)
    if len(clean) <= 2 * BUCKETS:
        return np.arange(len(clean)), clean
    starts = np.linspace(0, len(clean), BUCKETS, endpoint=False).astype(np.intp)
    low, high = np.fmin.reduceat(clean, starts), np.fmax.reduceat(clean, starts)
    return np.repeat(starts, 2), np.column_stack([low, high]).ravel()


def place(spans: Iterable[tuple[float, float]], levels: int) -> list[int | None]:
    """A level for each text [left, right], or None where there is no room; earlier ones first."""
    taken: list[list[tuple[float, float]]] = [[] for _ in range(levels)]
    chosen: list[int | None] = []
    for left, right in spans:
        free = (
            level
            for level, others in enumerate(taken)
            if all(right <= start or stop <= left for start, stop in others)
        )
        level = next(free, None)
        if level is not None:
            taken[level].append((left, right))
        chosen.append(level)
    return chosen


def _scale(watch: Watch) -> Scale:
    count = len(watch.records)
    if watch.seconds is None:
        return Scale(np.arange(count + 1.0), "sample")
    end = watch.seconds[-1] + (watch.period or 1.0)
    return Scale(np.append(watch.seconds, end), "seconds since the first sample")


def _draw_lanes(rows: Sequence[Any], watch: Watch, shown: Sequence[int], scale: Scale) -> None:
    unread = replaced(watch)
    for axis, channel in zip(rows, shown, strict=False):
        values = watch.values[:, channel]
        at, curve = extremes(values)
        low, high = _limits(values)
        room = 0.16 * (high - low)
        axis.plot(scale.edges[at], np.clip(curve, low, high), color=INK, linewidth=0.7)
        axis.set_ylim(low - 2 * room, high + room)
        across = axis.get_xaxis_transform()
        stretches = _spans(unread[:, channel], scale)
        strip = (0.02, 0.08 * len(shown) / max(0.62 * len(shown), 2.4))
        axis.broken_barh(stretches, strip, color=REPLACED, transform=across, linewidth=0)
        axis.set_yticks([low, high], [f"{low:.3g}", f"{high:.3g}"], fontsize=8)
        for label, side in zip(axis.get_yticklabels(), ("bottom", "top"), strict=True):
            label.set_verticalalignment(side)  # or it would touch the next lane's
        _name(axis, watch.channels[channel], watch.units[channel])


def _draw_score(axis: Any, watch: Watch, scale: Scale) -> None:
    ratio = ratios(watch.records)
    fallback = states_of(watch.records) == State.FALLBACK
    top = float(np.clip(np.nanmax(ratio, initial=2.0), 2.0, 1000.0)) * 1.4
    ratio = np.clip(ratio, -1.0, top)
    for mine, color in ((~fallback, INK), (fallback, STATES[State.FALLBACK][0])):
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


def _draw_alarms(axis: Any, watch: Watch, facts: Facts, scale: Scale) -> None:
    spans = _spans(alarm_on(watch.records), scale)
    axis.broken_barh(spans, (0, STRIP), color=ALARM, linewidth=0)
    longest_first = sorted(facts.alarms, key=lambda alarm: alarm.start - alarm.stop)
    words = [(alarm.start, _blamed(alarm.blamed)) for alarm in longest_first]
    _write(axis, [(at, text) for at, text in words if text], scale, 1, below=False)
    axis.axhline(0, color=ALARM, linewidth=0.6)
    axis.set(ylim=(-0.2, 1), yticks=[])
    _name(axis, "alarm", "who is blamed")


def _draw_tiers(axis: Any, watch: Watch, facts: Facts, scale: Scale) -> None:
    states = states_of(watch.records)
    for state in State:  # worst last, so that the narrowest outage lies on top
        color, hatch, _ = STATES[state]
        axis.broken_barh(
            _spans(states == state, scale, NARROWEST if state else 0),
            (1 - STRIP, STRIP),
            facecolor=color,
            hatch=hatch,
            edgecolor=GREY if hatch else color,
            linewidth=0,
        )
    notes = [(note.index, note.text) for note in notes_of(watch, facts)]
    _write(axis, notes, scale, 2, below=True)
    axis.set(ylim=(0, 1), yticks=[])
    _name(axis, "tier", "who vouches")


def _write(
    axis: Any, words: Sequence[tuple[int, str]], scale: Scale, levels: int, below: bool
) -> None:
    """Texts beside a strip, each starting at its sample; what finds no room is left out."""
    edges, width = scale.edges, 6.6 * scale.pixel  # of a character, generously
    lefts = [
        max(float(edges[0]), min(float(edges[at]), float(edges[-1]) - width * len(text)))
        for at, text in words
    ]
    spans = [(x, x + width * (len(text) + 2)) for x, (_, text) in zip(lefts, words, strict=True)]
    for x, (at, text), level in zip(lefts, words, place(spans, levels), strict=True):
        if level is None:
            continue
        y = (1 - STRIP) * (1 - (level + 0.6) / levels) if below else (1 + STRIP) / 2 - 0.06
        # A white ground lets a line to a lower text pass behind this one.
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        place_of = {"va": "center", "zorder": 3, "bbox": ground if below else None}
        axis.text(x + 4 * scale.pixel, y, text, fontsize=10, color=INK, **place_of)
        if below:
            axis.plot([edges[at]] * 2, [y - 0.1, 1 - STRIP], color=INK, linewidth=0.8, zorder=1)


def _draw_words(figure: Any, watch: Watch, facts: Facts, title: str, shown: int) -> None:
    from matplotlib.patches import Patch

    height = figure.get_figheight()
    lanes = f"{shown} of {len(watch.channels)} channels shown: the most blamed or replaced ones"
    head = watch.name if shown == len(watch.channels) else f"{watch.name} ({lanes})"
    figure.text(0.012, 1 - 0.3 / height, head, fontsize=15, fontweight="bold", color=INK)
    figure.text(0.012, 1 - 0.6 / height, title, fontsize=11.5, color=INK)
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


def _shade(axis: Any, watch: Watch, scale: Scale) -> None:
    if watch.labels is not None:
        spans = _spans(watch.labels, scale)
        across = axis.get_xaxis_transform()
        axis.broken_barh(spans, (0, 1), color=LABELLED, transform=across, lw=0, zorder=0)


def _spans(flags: Bools, scale: Scale, narrowest: float = NARROWEST) -> list[tuple[float, float]]:
    """(left, width) of the stretches of True, none narrower than `narrowest` pixels."""
    starts = np.linspace(0, len(flags), min(len(flags), BUCKETS), endpoint=False).astype(np.intp)
    edges = scale.edges[np.append(starts, len(flags))]
    stretches = intervals(np.logical_or.reduceat(flags, starts))
    least = narrowest * scale.pixel
    return [(edges[a], max(float(edges[b] - edges[a]), least)) for a, b in stretches]


def _limits(values: npt.NDArray[Any]) -> tuple[float, float]:
    """A lane's range: everything, unless a few wild readings would flatten all others."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return 0.0, 1.0
    low, high = np.quantile(finite, [0.005, 0.995])
    room = max(high - low, 1e-6 * abs(high), 1e-9)
    return max(finite.min(), low - room), max(min(finite.max(), high + room), low + room * 1e-3)


def _blamed(names: Sequence[str]) -> str:
    more = f" +{len(names) - 2}" if len(names) > 2 else ""
    return ", ".join(_cut(name, 16) for name in names[:2]) + more


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _name(axis: Any, name: str, unit: str) -> None:
    for text, lift, color, size in (
        (_cut(name, 14), 6 if unit else 0, INK, 10.5),
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
        )
