"""report.html of `fleet ingest`: who should learn again, what many assets share, and all assets.

One page without scripts or external files, for one asset and for some thousands, and for a
telephone: pictures shrink with the window, and wide tables scroll by themselves.
"""

import html
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from edge_runtime.learning.report import page
from fleet.ingest.rows import FINE, LEARN, LOOK, NOTHING, STATES, UNREAD, AlarmRow, AssetRecords
from fleet.ingest.together import WINDOW
from fleet.progress import duration
from fleet.report import MOST_NAMES, MOST_ROWS, headline, histogram, squares

MOST_SHOWN = 50  # lines of a table of what to look at
COLOURS = {
    LEARN: "#e0813c", LOOK: "#d9c75a", FINE: "#8fce9d", NOTHING: "#c9c9c9", UNREAD: "#d0453b",
}  # fmt: skip
STYLE = (
    "<style>.wide { overflow-x: auto } svg { max-width: 100%; height: auto } "
    ".names { min-width: 14rem }</style>"
)
COLUMNS: dict[str, Callable[[AssetRecords], str]] = {
    "hours": lambda row: f"{row.hours:,.1f}",
    "last record": lambda row: when(row.last),
    "records": lambda row: f"{row.records:,}",
    "missing": lambda row: f"{row.missing:,}",
    "holes": lambda row: f"{row.holes:,}",
    "alarms": lambda row: f"{row.alarms:,}",
    "common": lambda row: f"{row.common:,}",
    "own a day": lambda row: f"{row.rate:.2f}",
    "target": lambda row: f"{row.target:g}" if row.target else "",
    "false, real": lambda row: f"{row.marked_false:,}, {row.marked_real:,}",
    "drift": lambda row: f"{row.drift:.2f}" if row.drift_limit else "",
    "by chance": lambda row: f"{row.drift_limit:.2f}" if row.drift_limit else "",
    "tier 1": lambda row: f"{row.tier1:.1%}",
    "tier 3": lambda row: f"{row.tier3:.1%}",
    "gaps": lambda row: f"{row.gap:.1%}",
    "worst channel": lambda row: html.escape(row.channel),
    "masked": lambda row: f"{row.masked:.1%}",
    "closed": lambda row: f"{row.closed:.1%}",
    "model": lambda row: html.escape(row.model),
}


@dataclass(frozen=True)
class CommonEvent:
    """Common alarms within `WINDOW` of each other. alarms: in the order of their times."""

    alarms: tuple[AlarmRow, ...]

    @property
    def assets(self) -> tuple[str, ...]:
        """The assets that alarmed."""
        return tuple(dict.fromkeys(alarm.asset for alarm in self.alarms))


def records_page(rows: Sequence[AssetRecords], alarms: Sequence[AlarmRow], seconds: float) -> str:
    """Return the page of all assets, after a command that took `seconds`."""
    events = common_events(alarms)
    judged = [row for row in rows if row.drift_limit]
    return page(
        f"records of {len(rows):,} assets",
        [
            STYLE,
            f"<h1>Records of {len(rows):,} assets</h1>",
            f'<p class="verdict">{headline((row.state for row in rows), COLOURS, STATES)}</p>',
            f"<p>{_totals(rows, events)}</p>",
            *squares([(row.asset, row.state) for row in rows[:MOST_ROWS]], COLOURS),
            "<h2>Learn again</h2>",
            *_reasons([row for row in rows if row.state == LEARN]),
            "<h2>Look at</h2>",
            *_reasons([row for row in rows if row.state in (UNREAD, LOOK, NOTHING)]),
            "<h2>Alarms of many assets at once</h2>",
            *_events(events),
            "<h2>How the assets are spread</h2>",
            '<div class="row">',
            histogram("alarms of its own a day", [row.rate for row in rows if row.days]),
            histogram("drift of the scores, as a share of its limit",
                      [row.drift / row.drift_limit for row in judged]),
            histogram("share of records of a healthy model", [r.valid for r in rows if r.records]),
            histogram("hours of records", [row.hours for row in rows if row.records]),
            "</div>",
            f"<p>{_not_judged(rows)}</p>",
            "<h2>Lines that are no records, and inputs that cannot be read</h2>",
            *_problems([row for row in rows if row.problem]),
            "<h2>All assets</h2>",
            *_tables(rows),
            f'<p class="note">{sum(row.new for row in rows):,} new records in '
            f"{duration(seconds)}. Times are those of this machine's time zone.</p>",
        ],
    )  # fmt: skip


def common_events(alarms: Iterable[AlarmRow]) -> list[CommonEvent]:
    """Return the events that made common alarms, the newest first."""
    events: list[list[AlarmRow]] = []
    for alarm in sorted((each for each in alarms if each.common), key=lambda each: each.start):
        if events and alarm.start - events[-1][-1].start <= WINDOW:
            events[-1].append(alarm)
        else:
            events.append([alarm])
    return [CommonEvent(tuple(event)) for event in reversed(events)]


def when(seconds: float) -> str:
    """Return a time as a local date; as seconds if it is no date, empty if it is unknown."""
    if not seconds:
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # no such year
        return f"{seconds:.0f} s"


def _totals(rows: Sequence[AssetRecords], events: Sequence[CommonEvent]) -> str:
    records, hours = sum(row.records for row in rows), sum(row.hours for row in rows)
    alarms, common = sum(row.alarms for row in rows), sum(row.common for row in rows)
    marked = sum(row.marked_false for row in rows), sum(row.marked_real for row in rows)
    return (
        f"{records:,} records of {hours:,.0f} hours; {alarms:,} alarms, of which {common:,} came "
        f"in {len(events):,} events of many assets. The owners marked {marked[0]:,} as false and "
        f"{marked[1]:,} as real."
    )


def _reasons(rows: Sequence[AssetRecords]) -> Iterator[str]:
    """Yield a table of assets with their reasons; those with the most alarms a day first."""
    lines = [
        f"<tr><td>{html.escape(row.asset)}<td>{html.escape(row.reason)}</tr>"
        for row in sorted(rows, key=lambda row: -row.rate)
    ]
    yield from _table("<th>asset<th>why", lines, "None.")


def _events(events: Sequence[CommonEvent]) -> Iterator[str]:
    lines = []
    for event in events:
        first = max(event.alarms, key=lambda alarm: alarm.others)
        channels = Counter(name for alarm in event.alarms for name in alarm.blamed)
        blamed = ", ".join(html.escape(name) for name, _ in channels.most_common(3))
        names = ", ".join(html.escape(name) for name in event.assets[:MOST_NAMES])
        more = len(event.assets) - MOST_NAMES
        names += f" and {more:,} more" if more > 0 else ""
        lines.append(
            f"<tr><td>{when(event.alarms[0].start)}<td class=n>{len(event.assets):,}"
            f"<td class=n>{1 + first.expected:.1f}<td>{html.escape(first.group)}<td>{blamed}"
            f"<td class=names>{names}</tr>"
        )
    header = "<th>time<th>assets<th>by chance<th>among<th>blamed<th>which"
    yield from _table(header, lines, "None: all alarms look like those of single machines.")


def _problems(rows: Sequence[AssetRecords]) -> Iterator[str]:
    lines = [
        f"<tr><td>{html.escape(row.asset)}<td class=n>{row.bad:,}<td>{html.escape(row.problem)}"
        "</tr>"
        for row in sorted(rows, key=lambda row: (not row.failed, -row.bad))
    ]
    yield from _table("<th>asset<th>bad lines<th>the first", lines, "None in this command.")


def _not_judged(rows: Sequence[AssetRecords]) -> str:
    """Return why the scores of some assets were not compared with their calibration."""
    notes = Counter(_kind(row.drift_note) for row in rows if row.records and row.drift_note)
    if not notes:
        return ""
    reasons = "; ".join(f"{count:,}: {html.escape(note)}" for note, count in notes.most_common(5))
    return f"Drift was not judged for {sum(notes.values()):,} assets. {reasons}."


def _kind(note: str) -> str:
    """Return a note without its numbers, so that alike ones are one."""
    return "its calibration is too short" if "independent" in note else note


def _table(header: str, lines: Sequence[str], empty: str) -> Iterator[str]:
    if not lines:
        yield f"<p>{empty}</p>"
        return
    yield f'<div class="wide"><table><tr>{header}</tr>'
    yield from lines[:MOST_SHOWN]
    yield "</table></div>"
    if len(lines) > MOST_SHOWN:
        yield f"<p>… and {len(lines) - MOST_SHOWN:,} more in the tables next to this page.</p>"


def _tables(rows: Sequence[AssetRecords]) -> Iterator[str]:
    """Yield a folded table for each state."""
    if len(rows) > MOST_ROWS:
        yield f"<p>The first {MOST_ROWS:,}; assets.parquet next to this page has all of them.</p>"
    header = "".join(f"<th>{name}" for name in ("asset", *COLUMNS))
    for state in STATES:
        group = [row for row in rows[:MOST_ROWS] if row.state == state]
        if group:
            yield f"<details><summary>{len(group):,} {state}</summary>"
            yield f'<div class="wide"><table><tr>{header}</tr>'
            for row in group:
                cells = "".join(f"<td class=n>{show(row)}" for show in COLUMNS.values())
                yield f"<tr><td>{html.escape(row.asset)}{cells}</tr>"
            yield "</table></div></details>"
