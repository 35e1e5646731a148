"""FLEET/rollout.html: how far a rollout is, and what became of it on each asset.

One page without scripts or external files. It is written again whenever a count changes.
"""

import html
from collections import Counter
from collections.abc import Iterator, Sequence

from edge_runtime.learning.report import page

MOST_ROWS = 10_000
MOST_NAMES = 8  # in a line about several assets

Row = tuple[str, str, str]
"""Asset, state, reason."""


def rollout_page(title: str, reason: str, counts: str, rows: Sequence[Row], planned: int) -> str:
    """Return the page. rows: of the assets that were published. planned: assets of the rollout."""
    note = f'<p class="fail">{html.escape(reason)}</p>' if reason else ""
    return page(
        f"rollout: {title}",
        [
            f"<h1>Rollout: {html.escape(title)}</h1>",
            f'<p class="verdict">{len(rows):,} of {planned:,} assets published: {counts}</p>',
            note,
            "<h2>To look at first</h2>",
            *_reasons(rows),
            "<h2>Published assets</h2>",
            *_table(rows[:MOST_ROWS]),
        ],
    )


def _reasons(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each state and reason, the most frequent first."""
    groups = Counter((state, reason) for _, state, reason in rows if reason)
    if not groups:
        yield "<p>Nothing stands out.</p>"
        return
    yield "<table><tr><th>assets<th>state<th>reason<th>which</tr>"
    for (state, reason), count in groups.most_common():
        names = [asset for asset, *others in rows if others == [state, reason]]
        shown = html.escape(", ".join(names[:MOST_NAMES]))
        more = f" and {count - MOST_NAMES:,} more" if count > MOST_NAMES else ""
        yield f"<tr><td class=n>{count:,}<td>{state}<td>{html.escape(reason)}<td>{shown}{more}</tr>"
    yield "</table>"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield "<table><tr><th>asset<th>state<th>reason</tr>"
    for cells in rows:
        yield "<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in cells) + "</tr>"
    yield "</table>"
