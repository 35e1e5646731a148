"""What `gruard top` shows: from a snapshot to lines, without a terminal."""

from dataclasses import dataclass
from typing import Literal

from edge_runtime.status.cells import fit, padded
from edge_runtime.status.chart import chart
from edge_runtime.status.snapshot import Channel, Snapshot
from edge_runtime.status.text import (
    channel_state,
    duration,
    facts,
    run_words,
    sample_words,
    troubled,
)
from edge_runtime.status.verdict import ALARM, HEALTHY, Verdict

Style = Literal["plain", "bold", "dim", "good", "bad", "warn"]
_LABELS = 6  # cells at the left of the chart
_NAME_WIDTH, _STATE_WIDTH = 20, 18
_HIGH, _TALL_ROWS, _LOW_ROWS = 30, 8, 4  # from so many lines on, the chart is tall
_STYLES: dict[int, Style] = {HEALTHY: "good", ALARM: "bad"}


@dataclass(frozen=True)
class Line:
    """One line of the screen, in one style."""

    text: str
    style: Style = "plain"


def screen(
    snapshot: Snapshot | None, verdict: Verdict, file: str, columns: int, rows: int
) -> list[Line]:
    """Exactly `rows` lines of at most `columns` cells each."""
    body = [Line(verdict.text, _STYLES.get(verdict.code, "warn"))]
    if snapshot is not None:
        body = [Line(run_words(snapshot), "bold"), *body, *_score(snapshot, columns, rows)]
        known = facts(snapshot)
        body += [Line(f"{name:<12} {known[name]}") for name in known if name != "sample"]
        body += _channels(snapshot, rows - 1 - len(body))
    room = max(rows - 1, 0)
    filled = [*body[:room], *[Line("")] * (room - len(body)), _footer(verdict, file)]
    return [Line(fit(line.text, columns), line.style) for line in filled[:rows]]


def _footer(verdict: Verdict, file: str) -> Line:
    age = "" if verdict.age is None else f", written {duration(max(verdict.age, 0.0))} ago"
    return Line(f"q quits   {file}{age}", "dim")


def _score(snapshot: Snapshot, columns: int, rows: int) -> list[Line]:
    """The score in figures and as a chart; what is above the threshold has a style of its own."""
    height = _TALL_ROWS if rows >= _HIGH else _LOW_ROWS
    labels = {0: "twice", height // 2 - 1: "limit", height - 1: "0"}
    drawn = chart(snapshot.trail, height, max(columns - _LABELS, 1))
    return [
        Line(f"sample       {sample_words(snapshot)}"),
        *(
            Line(f"{labels.get(row, ''):<{_LABELS}}{text}", "bad" if row < height // 2 else "good")
            for row, text in enumerate(drawn)
        ),
    ]


def _channels(snapshot: Snapshot, room: int) -> list[Line]:
    """A line for each channel; where there is no room for all, those in trouble come first."""
    channels = snapshot.channels
    if len(channels) > room - 1:
        channels = tuple(sorted(channels, key=lambda channel: not troubled(channel)))
    shown = channels if len(channels) <= room - 1 else channels[: max(room - 2, 0)]
    lines = [Line(_row("channel", "now", "masked", "imputed"), "bold")]
    lines += [_channel(channel, snapshot.counts.records) for channel in shown]
    if hidden := channels[len(shown) :]:
        lines.append(Line(f"{len(hidden)} more, {sum(map(troubled, hidden))} of them in trouble"))
    return lines


def _channel(channel: Channel, records: int) -> Line:
    style: Style = "bad" if channel.blamed else "warn" if troubled(channel) else "plain"
    shares = (_share(n, records) for n in (channel.masked_records, channel.imputed_records))
    return Line(_row(channel.name, channel_state(channel), *shares), style)


def _row(name: str, state: str, masked: str, imputed: str) -> str:
    return f"{padded(name, _NAME_WIDTH)} {padded(state, _STATE_WIDTH)} {masked:>9} {imputed:>9}"


def _share(count: int, records: int) -> str:
    return f"{100 * count / records:.2f} %" if records else "-"
