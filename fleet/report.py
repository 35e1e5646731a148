"""FLEET/report.html: what became of all assets, and the ones to look at first.

One page without scripts or external files. The picture has one square an asset, so it is readable
for one asset and for some thousands; each bundle has a page of its own, to which the table links.
"""

import html
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from statistics import median

from edge_runtime.learning.report import page
from fleet.progress import duration
from fleet.results import GOOD, TRIAL, VERDICTS, AssetResult

MOST_ROWS = 10_000  # of squares, and of lines in the tables
MOST_NAMES = 8  # in a line about several assets
FAR = 3.0  # times the median threshold, or the inverse, is worth a look
SQUARE, ACROSS = 10, 96  # pixels; squares in a row
BINS = 24
COLOURS = dict(
    zip(
        VERDICTS,
        ("#1a7f37", "#8fce9d", "#d9c75a", "#8b1a10", "#d0453b", "#b05fc4", "#7a4fb5", "#e0813c",
         "#5a2d0c"),
        strict=True,
    )
)  # fmt: skip
HEADER = (
    "<tr><th>asset<th>threshold<th>target a day<th>at most a day<th>days needed<th>rows"
    "<th>channels<th>warnings<th>CPU s<th>MB<th>promise or reason</tr>"
)


def report_page(results: Sequence[AssetResult], seconds: float) -> str:
    """Return the page of a run over `results` that took `seconds`."""
    return page(
        f"fleet of {len(results):,} assets",
        [
            f"<h1>{len(results):,} assets</h1>",
            f'<p class="verdict">{_headline(results)}</p>',
            *_squares(results),
            "<h2>To look at first</h2>",
            *_first(results),
            "<h2>Thresholds and cost</h2>",
            *_pictures(results),
            f"<p class=note>{_cost(results, seconds)}</p>",
            "<h2>All assets</h2>",
            *_tables(results),
        ],
    )


def _headline(results: Sequence[AssetResult]) -> str:
    counts = Counter(result.verdict for result in results)
    return ", ".join(
        f'<b style="color:{COLOURS[name]}">■</b> {counts[name]:,} {name}'
        for name in VERDICTS
        if counts[name]
    )


def _squares(results: Sequence[AssetResult]) -> Iterator[str]:
    """Yield the picture with a square for each asset, in the order of the list."""
    shown = results[:MOST_ROWS]
    rows = -(-len(shown) // ACROSS)
    yield f'<svg width="{ACROSS * SQUARE}" height="{rows * SQUARE}" role="img">'
    for number, result in enumerate(shown):
        x, y = number % ACROSS * SQUARE, number // ACROSS * SQUARE
        yield (
            f'<rect x="{x}" y="{y}" width="{SQUARE - 1}" height="{SQUARE - 1}" '
            f'fill="{COLOURS[result.verdict]}"><title>{html.escape(result.asset)}: '
            f"{result.verdict}</title></rect>"
        )
    yield "</svg>"


def _first(results: Sequence[AssetResult]) -> Iterator[str]:
    """Yield the failures by reason, then trials, strange thresholds and warnings."""
    lines = [
        *_failures([result for result in results if not result.good]),
        *_groups(results),
    ]
    if not lines:
        yield "<p>Nothing: each asset has a bundle, and no threshold stands out.</p>"
        return
    yield "<table><tr><th>assets<th>what<th>which</tr>"
    yield from lines
    yield "</table>"


def _failures(failed: Sequence[AssetResult]) -> Iterator[str]:
    """Yield a line for each reason; reasons that differ only in names and numbers are one."""
    groups = defaultdict(list)
    for result in failed:
        groups[result.verdict, _kind(result)].append(result)
    for (verdict, _), group in sorted(groups.items(), key=lambda item: -len(item[1])):
        yield _line(f"{verdict}: {group[0].reason}", group)


def _kind(result: AssetResult) -> str:
    """Return the reason without paths, names and numbers."""
    return re.sub(r"\S*/\S*|\d+", "…", result.reason.replace(result.asset, "…"))


def _groups(results: Sequence[AssetResult]) -> Iterator[str]:
    good = [result for result in results if result.good]
    if trials := [result for result in good if result.verdict == TRIAL]:
        yield _line("a trial: too few clean rows; record for longer and train again", trials)
    usual = median(result.threshold for result in good) if good else 0.0
    high = [r for r in good if r.threshold > FAR * usual]
    if high:
        what = f"a threshold more than {FAR:g} times the median of {usual:.3g}: a dirty recording?"
        yield _line(what, sorted(high, key=lambda r: -r.threshold))
    if warned := [result for result in good if result.warnings]:
        what = "learned with warnings; read them with gruard look"
        yield _line(what, sorted(warned, key=lambda r: -r.warnings))


def _line(what: str, group: Sequence[AssetResult]) -> str:
    names = ", ".join(html.escape(result.asset) for result in group[:MOST_NAMES])
    more = f" and {len(group) - MOST_NAMES:,} more" if len(group) > MOST_NAMES else ""
    return f"<tr><td class=n>{len(group):,}<td>{html.escape(what)}<td>{names}{more}</tr>"


def _pictures(results: Sequence[AssetResult]) -> Iterator[str]:
    good = [result for result in results if result.good]
    yield '<div class="row">'
    yield _histogram("threshold", [result.threshold for result in good])
    yield _histogram("days of clean data needed", [result.days_needed for result in good])
    yield _histogram("CPU seconds", [result.cpu_seconds for result in good])
    yield "</div>"


def _histogram(name: str, values: Sequence[float]) -> str:
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


def _cost(results: Sequence[AssetResult], seconds: float) -> str:
    learned = [result for result in results if not result.reused]
    cpu = sum(result.cpu_seconds for result in learned)
    return (
        f"{len(learned):,} assets were learned or refused in {duration(seconds)}, with "
        f"{cpu / 3600:.2f} CPU hours; {len(results) - len(learned):,} were unchanged."
    )


def _tables(results: Sequence[AssetResult]) -> Iterator[str]:
    """Yield a table for each verdict, folded; the failed ones first."""
    if len(results) > MOST_ROWS:
        yield f"<p>The first {MOST_ROWS:,}; fleet.parquet next to this page has all of them.</p>"
    for verdict in (*VERDICTS[len(GOOD) :], *reversed(GOOD)):
        group = [result for result in results[:MOST_ROWS] if result.verdict == verdict]
        if group:
            yield f"<details><summary>{len(group):,} {verdict}</summary><table>{HEADER}"
            yield from map(_row, group)
            yield "</table></details>"


def _row(result: AssetResult) -> str:
    name = html.escape(result.asset)
    if result.bundle:
        name = f'<a href="{html.escape(result.bundle)}/report.html">{name}</a>'
        numbers = [
            f"{result.threshold:.3f}", f"{result.target:g}", f"{result.bound:.3g}",
            f"{result.days_needed:.2g}", f"{result.rows:,}", f"{result.channels}",
            f"{result.warnings}",
        ]  # fmt: skip
    else:
        numbers = ["", f"{result.target:g}", "", "", "", "", ""]
    numbers += [f"{result.cpu_seconds:.1f}", f"{result.megabytes:.0f}"]
    cells = "".join(f"<td class=n>{number}" for number in numbers)
    return f"<tr><td>{name}{cells}<td>{html.escape(result.reason)}</tr>"
