"""FLEET/report.html: what became of all assets, and the ones to look at first.

One page without scripts or external files. The picture has one square an asset, so it is readable
for one asset and for some thousands; each bundle has a page of its own, to which the table links.
"""

import html
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from edge_runtime.learning.report import page
from fleet.progress import duration
from fleet.results import (
    ALARMS,
    ASSURED,
    BLAMED,
    CALM,
    CRASHED,
    DAMAGED,
    FAILED,
    LEARNED,
    OVER_TARGET,
    PROVEN,
    REFUSED,
    TOO_LARGE,
    TOO_SLOW,
    TRIAL,
    UNFIT,
    VERDICTS,
    AssetProof,
    AssetResult,
    AssetRow,
    AssetScore,
    TypeResult,
)

MOST_ROWS = 10_000  # squares, and lines of the tables
MOST_NAMES = 8  # in a line about several assets
MOST_ALARMED = 20  # assets with a line of their own
FAR = 3.0  # times the median threshold is worth a look
SQUARE, ACROSS = 10, 96  # pixels; squares in a row
BINS = 24
COLOURS = {
    ASSURED: "#1a7f37", LEARNED: "#8fce9d", TRIAL: "#d9c75a", CALM: "#8fce9d", ALARMS: "#e0813c",
    PROVEN: "#1a7f37", DAMAGED: "#8b1a10", OVER_TARGET: "#e0813c", UNFIT: "#5a2d0c",
    REFUSED: "#d0453b", TOO_LARGE: "#b05fc4", TOO_SLOW: "#7a4fb5", CRASHED: "#8b1a10",
    BLAMED: "#222222",
}  # fmt: skip
COST: "Columns" = {
    "CPU s": lambda row: f"{row.cpu_seconds:.1f}",
    "MB": lambda row: f"{row.megabytes:.0f}",
}
Columns = dict[str, Callable[[Any], str]]


def report_page(rows: Sequence[AssetRow], seconds: float, types: Sequence[TypeResult] = ()) -> str:
    """Return the page of a run over `rows` that took `seconds`. types: models that assets share."""
    return page(
        f"fleet of {len(rows):,} assets",
        [
            f"<h1>{len(rows):,} assets</h1>",
            f'<p class="verdict">{headline((row.verdict for row in rows), COLOURS, VERDICTS)}</p>',
            *squares([(row.asset, row.verdict) for row in rows[:MOST_ROWS]], COLOURS),
            "<h2>To look at first</h2>",
            *_first(rows),
            "<h2>How they are spread</h2>",
            *_pictures([row for row in rows if row.good]),
            *_types(types, [row for row in rows if isinstance(row, AssetResult)]),
            f"<p class=note>{_cost(rows, seconds)}</p>",
            "<h2>All assets</h2>",
            *_tables(rows),
        ],
    )


def headline(states: Iterable[str], colours: Mapping[str, str], order: Iterable[str]) -> str:
    """Return how many assets have each of the `states`, in this order, with its colour."""
    counts = Counter(states)
    return ", ".join(
        f'<b style="color:{colours[name]}">■</b> {counts[name]:,} {name}'
        for name in order
        if counts[name]
    )


def squares(assets: Sequence[tuple[str, str]], colours: Mapping[str, str]) -> Iterator[str]:
    """Yield the picture with a square for each asset, given by its name and its state."""
    width, height = ACROSS * SQUARE, -(-len(assets) // ACROSS) * SQUARE
    yield f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
    for number, (asset, state) in enumerate(assets):
        x, y = number % ACROSS * SQUARE, number // ACROSS * SQUARE
        yield (
            f'<rect x="{x}" y="{y}" width="{SQUARE - 1}" height="{SQUARE - 1}" '
            f'fill="{colours[state]}"><title>{html.escape(asset)}: {state}</title></rect>'
        )
    yield "</svg>"


def _first(rows: Sequence[AssetRow]) -> Iterator[str]:
    """Yield the failures by reason, then what stands out among the others."""
    lines = [
        *_failures([row for row in rows if not row.good]),
        *_alarmed([row for row in rows if isinstance(row, AssetScore) and row.alarms]),
        *_doubtful([row for row in rows if isinstance(row, AssetResult) and row.good]),
    ]
    if not lines:
        yield "<p>Nothing stands out.</p>"
        return
    yield "<table><tr><th>assets<th>what<th>which</tr>"
    yield from lines
    yield "</table>"


def _failures(failed: Sequence[AssetRow]) -> Iterator[str]:
    """Yield a line for each reason; reasons that differ only in names and numbers are one."""
    groups = defaultdict(list)
    for row in failed:
        groups[row.verdict, _kind(row)].append(row)
    for (verdict, _), group in sorted(groups.items(), key=lambda item: -len(item[1])):
        yield _line(f"{verdict}: {group[0].reason}", group)


def _kind(row: AssetRow) -> str:
    """Return the reason without paths, names and numbers."""
    return re.sub(r"\S*/\S*|\d+", "…", row.reason.replace(row.asset, "…"))


def _alarmed(rows: Sequence[AssetScore]) -> Iterator[str]:
    """Yield a line for each of the assets that were in alarm the longest."""
    longest = sorted(rows, key=lambda row: -row.share)
    for row in longest[:MOST_ALARMED]:
        what = (
            f"{row.share:.1%} of the rows in alarm, {row.alarms} alarms; first in row {row.first}"
        )
        yield _line(what, [row])
    if rest := longest[MOST_ALARMED:]:
        yield _line("fewer rows in alarm", rest)


def _doubtful(rows: Sequence[AssetResult]) -> Iterator[str]:
    """Yield lines about trials, high thresholds and warnings."""
    if trials := [row for row in rows if row.verdict == TRIAL]:
        yield _line("a trial: few clean rows; record for longer and train again", trials)
    usual = median(row.threshold for row in rows) if rows else 0.0
    high = sorted((r for r in rows if r.threshold > FAR * usual), key=lambda r: -r.threshold)
    if high:
        what = f"a threshold more than {FAR:g} times the median of {usual:.3g}: a dirty recording?"
        yield _line(what, high)
    if warned := sorted((row for row in rows if row.warnings), key=lambda row: -row.warnings):
        yield _line("learned with warnings; read them with gruard look", warned)


def _line(what: str, group: Sequence[AssetRow]) -> str:
    names = ", ".join(html.escape(row.asset) for row in group[:MOST_NAMES])
    more = f" and {len(group) - MOST_NAMES:,} more" if len(group) > MOST_NAMES else ""
    return f"<tr><td class=n>{len(group):,}<td>{html.escape(what)}<td>{names}{more}</tr>"


def _pictures(good: Sequence[AssetRow]) -> Iterator[str]:
    learned = [row for row in good if isinstance(row, AssetResult)]
    scored = [row for row in good if isinstance(row, AssetScore)]
    yield '<div class="row">'
    yield histogram("threshold", [row.threshold for row in good])
    yield histogram("further days of clean data needed", [row.days_needed for row in learned])
    yield histogram("share of rows in alarm", [row.share for row in scored])
    yield histogram("largest score over the threshold", [row.worst for row in scored])
    yield histogram("CPU seconds", [row.cpu_seconds for row in good])
    yield "</div>"


def histogram(name: str, values: Sequence[float]) -> str:
    """Return a histogram as an inline picture; the caption has the range and the median."""
    if not values:
        return ""
    low, high = min(values), max(values)
    width = (high - low) / BINS or 1.0
    counts = Counter(min(int((value - low) / width), BINS - 1) for value in values)
    most = max(counts.values())
    bars = "".join(
        f'<rect x="{number * 12}" y="{100 - 100 * count / most:.1f}" width="11" '
        f'height="{100 * count / most:.1f}" fill="#4a7fb5"><title>{low + number * width:.3g} to '
        f"{low + (number + 1) * width:.3g}: {count:,}</title></rect>"
        for number, count in sorted(counts.items())
    )
    return (
        f'<figure><svg width="{12 * BINS}" height="100" role="img">{bars}</svg><figcaption>{name}: '
        f"{low:.3g} to {high:.3g}, median {median(values):.3g}</figcaption></figure>"
    )


def _types(types: Sequence[TypeResult], rows: Sequence[AssetResult]) -> Iterator[str]:
    """Yield a table of the models that assets share."""
    if not types:
        return
    yield "<h2>Models that assets share</h2>"
    names = ("type", "learned from", "shared by", "threshold", "verdict", "reason")
    yield f"<table><tr>{''.join(f'<th>{name}' for name in names)}</tr>"
    sharing = Counter(row.type for row in rows if row.shared)
    for row in types:
        yield (
            f"<tr><td>{_name(row)}<td class=n>{row.assets:,} assets<td class=n>"
            f"{sharing[row.asset]:,}<td class=n>{row.threshold:.3f}<td>{row.verdict}<td>"
            f"{html.escape(row.reason)}</tr>"
        )
    yield "</table>"


def _cost(rows: Sequence[AssetRow], seconds: float) -> str:
    new = [row for row in rows if not row.reused]
    cpu = sum(row.cpu_seconds for row in new)
    return (
        f"{len(new):,} assets in {duration(seconds)}, with {cpu / 3600:.2f} CPU hours; "
        f"{len(rows) - len(new):,} were unchanged."
    )


def _tables(rows: Sequence[AssetRow]) -> Iterator[str]:
    """Yield a table for each verdict, folded; the failed ones first."""
    if len(rows) > MOST_ROWS:
        yield f"<p>The first {MOST_ROWS:,}; fleet.parquet next to this page has all of them.</p>"
    for verdict in (*FAILED, *(name for name in reversed(VERDICTS) if name not in FAILED)):
        group = [row for row in rows[:MOST_ROWS] if row.verdict == verdict]
        if group:
            columns = _columns(group[0])
            header = "".join(f"<th>{name}" for name in ("asset", *columns, "reason"))
            yield f"<details><summary>{len(group):,} {verdict}</summary><table><tr>{header}</tr>"
            for row in group:
                cells = "".join(f"<td class=n>{show(row)}" for show in columns.values())
                yield f"<tr><td>{_name(row)}{cells}<td>{html.escape(_why(row))}</tr>"
            yield "</table></details>"


def _why(row: AssetRow) -> str:
    """Return the reason of a row, and which model it has."""
    choice = row.choice if isinstance(row, AssetResult) else ""
    return "; ".join(filter(None, (row.reason, choice)))


def _columns(example: AssetRow) -> Columns:
    """Return the columns of numbers for rows like `example`."""
    if not example.good:
        return COST
    if isinstance(example, AssetScore):
        return {
            "alarms": lambda row: f"{row.alarms}",
            "share in alarm": lambda row: f"{row.share:.2%}",
            "first row": lambda row: f"{row.first}" if row.alarms else "",
            "score over threshold": lambda row: f"{row.worst:.2f}",
            "rows": lambda row: f"{row.rows:,}",
            **COST,
        }
    if isinstance(example, AssetProof):
        return {
            "steps of the self-test": lambda row: f"{row.steps:,}",
            "off the formula": lambda row: f"{row.off:.1e}" if row.off >= 0 else "",
            "threshold": lambda row: f"{row.threshold:.3f}",
            "target a day": lambda row: f"{row.target:g}",
            "alarms": lambda row: f"{row.alarms}" if row.alarms >= 0 else "",
            "days": lambda row: f"{row.days:.3g}" if row.alarms >= 0 else "",
            **COST,
        }
    return {
        "version": lambda row: f"{row.version}",
        "model": lambda row: row.model,
        "gain of a network": lambda row: f"{row.gain:+.3f}" if row.weighed else "",
        "threshold": lambda row: f"{row.threshold:.3f}",
        "target a day": lambda row: f"{row.target:g}",
        "at most a day": lambda row: f"{row.bound:.3g}",
        "days needed": lambda row: f"{row.days_needed:.2g}",
        "rows": lambda row: f"{row.rows:,}",
        "channels": lambda row: f"{row.channels}",
        "warnings": lambda row: f"{row.warnings}",
        **COST,
    }


def _name(row: AssetRow) -> str:
    name = html.escape(row.asset)
    return f'<a href="{html.escape(row.bundle)}/report.html">{name}</a>' if row.bundle else name
