"""What `gruard top` shows: from a snapshot to lines, without a terminal.

Text on a terminal: how many cells it takes, and what of it may be shown at all.

The score's course as a chart of block letters, up to twice the threshold.

A snapshot in words, for `gruard status` and `gruard top`.

A terminal that is borrowed for a live view, and given back as it was.
"""

import os
import select
import signal
import socket
import sys
import termios
import tty
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Literal, NoReturn

from edge_runtime.files import all_ready
from edge_runtime.status.board import now_and_since_boot
from edge_runtime.status.health import (
    ALARM,
    HEALTHY,
    VOUCHERS,
    Health,
    finding_words,
    phase_words,
    since,
    since_words,
)
from edge_runtime.status.snapshot import BoardHealth, ChannelStatus, Counts, Snapshot
from edge_runtime.threads import failed_words

_ELLIPSIS = "…"


def printable(text: str) -> str:
    """`text` with a question mark for whatever could steer a terminal or move what follows."""
    return "".join(c if c.isprintable() and _width_of(c) else "?" for c in text)


def width(text: str) -> int:
    """Cells that printable text takes; letters of East Asia take two."""
    return len(text) if text.isascii() else sum(map(_width_of, text))


def fit(text: str, cells: int) -> str:
    """`text`, made printable and shortened to `cells` at most."""
    text = printable(text)
    if width(text) <= cells:
        return text
    while text and width(text) + 1 > cells:
        text = text[:-1]
    return text + _ELLIPSIS if cells > 0 else ""


def padded(text: str, cells: int) -> str:
    """`text` in exactly so many cells."""
    text = fit(text, cells)
    return text + " " * (cells - width(text))


def _width_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


_BLOCKS = " ▁▂▃▄▅▆▇█"
_TOP = 2.0  # thresholds; a fixed scale can be compared from one look to the next


def chart(points: Sequence[float | None], rows: int, columns: int) -> list[str]:
    """`rows` lines (an even number) of `columns` cells, the latest point at the right.

    The lower edge of row rows/2 is the threshold, drawn where nothing is above it. A point beyond
    the scale ends at the upper edge; where there was no score, the column is empty.
    """
    shown = [None] * (columns - len(points)) + list(points[max(len(points) - columns, 0) :])
    eighths = [_eighths(point, rows) for point in shown]
    return [
        "".join(_letter(height - 8 * below, below == rows // 2) for height in eighths)
        for below in reversed(range(rows))
    ]


def _eighths(point: float | None, rows: int) -> int:
    """Height in eighths of a row; the least score is visible, none is not."""
    if point is None:
        return 0
    return max(1, round(min(point / _TOP, 1.0) * rows * 8))


def _letter(above: int, at_threshold: bool) -> str:
    """What of a column shows in a row whose lower edge is `above` eighths below its top."""
    if above <= 0 and at_threshold:
        return "_"
    return _BLOCKS[min(max(above, 0), 8)]


_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TIERS = {str(tier): voucher for tier, voucher in VOUCHERS.items()}


def to_text(snapshot: Snapshot | None, verdict: Health) -> list[str]:
    """The verdict, and below it whatever is known."""
    if snapshot is None:
        return [verdict.text]
    channels = [f"{c.name} {channel_state(c)}" for c in snapshot.channels if troubled(c)]
    known = {"run": run_words(snapshot)} | facts(snapshot)
    known["channels"] = ", ".join(channels) or f"all {len(snapshot.channels)} as they should be"
    return [verdict.text, *(f"  {name:<12} {value}" for name, value in known.items())]


def facts(snapshot: Snapshot) -> dict[str, str]:
    """One line of words for each thing there is to know, but for the channels."""
    counts = snapshot.counts
    known = {
        "sample": sample_words(snapshot),
        **({"change": change_words(snapshot)} if snapshot.change else {}),
        "model": _model(snapshot),
        "records": f"{counts.records}{_rate(snapshot.rate)}{_latency(counts)}",
        "by tier": listed({_TIERS.get(tier, tier): n for tier, n in counts.tiers.items() if n}),
        "changes": listed(counts.transitions),
        "flags": listed(counts.flags),
        "alarms": f"{counts.alarms}{_recurring(counts)}{_kinds(counts.kinds)}",
        "input": _input(counts),
        "not written": _not_written(counts),
        "threads": failed_words(snapshot.threads) or f"all {len(snapshot.threads)} at work",
    }
    if snapshot.input.silent_since is not None or counts.outages:
        known["source"] = _source(snapshot)
    if counts.started_after is not None:
        known["last run"] = counts.started_after
    return known | ({"board": board_words(snapshot.health)} if snapshot.health else {})


def run_words(snapshot: Snapshot) -> str:
    """Which model runs where, and for how long already."""
    model, process = snapshot.model, snapshot.process
    kernel = f" on {model.kernel}" if model.kernel else ""
    name = f"{model.name} version {model.version}"
    return f"{name}, {model.hash}{kernel}, pid {process.pid}, for {duration(process.uptime)}"


def sample_words(snapshot: Snapshot) -> str:
    """The last record: its score, and who vouches for it."""
    answer = snapshot.answer
    if answer is None:
        return "none yet"
    score = "no score" if answer.score is None else f"score {answer.score:.4g}"
    limit = "" if answer.threshold is None else f", threshold {answer.threshold:.4g}"
    voucher = VOUCHERS.get(answer.tier, "nobody")
    return f"{answer.index}: {score}{limit}; tier {answer.tier}, {voucher}"


def change_words(snapshot: Snapshot) -> str:
    """The lasting change that was reported: since when, by which channels, and who said what."""
    change = snapshot.change
    if change is None:
        return "none"
    now = snapshot.process.started + snapshot.process.uptime
    words = finding_words(change, now).strip()
    if change.accepted is None:
        return words
    why = f" ({change.reason})" if change.reason else ""
    return f"{words}, accepted{since_words(change.accepted, now)}{why}"


def board_words(health: BoardHealth) -> str:
    """Temperature and power supply."""
    words = [] if health.temperature is None else [f"{health.temperature:.1f} °C"]
    if health.throttled is not None:
        on, had = now_and_since_boot(health.throttled)
        words += [f"{name} now" for name in on]
        words += [f"{name} since boot" for name in had if name not in on]
        words += [] if on or had else ["power supply good"]
    return ", ".join(words)


def troubled(channel: ChannelStatus) -> bool:
    """Whether there is anything to say about the channel now."""
    return channel.masked or channel.imputed or channel.blamed


def channel_state(channel: ChannelStatus) -> str:
    """What a channel is at the moment."""
    states = {
        "BLAMED": channel.blamed,
        "masked": channel.masked,
        "imputed": channel.imputed and not channel.masked,
    }
    return " ".join(name for name, on in states.items() if on) or "good"


def duration(seconds: float) -> str:
    """Two units at most: `3 d 2 h`, `12 min 5 s`."""
    left = int(seconds)
    for unit, name, smaller, small in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if left >= unit:
            return f"{left // unit} {name} {left % unit // smaller} {small}"
    return f"{left} s"


def listed(counts: Mapping[str, int]) -> str:
    """Names and numbers, the highest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered) or "-"


def _restarts(count: int) -> str:
    return "never restarted" if count == 0 else f"{count} restart{'s' if count > 1 else ''}"


def _model(snapshot: Snapshot) -> str:
    waiting = f", {snapshot.model.waiting}" if snapshot.model.waiting else ""
    return f"{phase_words(snapshot)}{waiting}, {_restarts(snapshot.counts.restarts)}"


def _source(snapshot: Snapshot) -> str:
    found = snapshot.input
    now = (
        "is read" if found.silent_since is None else f"silent{since(snapshot, found.silent_since)}"
    )
    away = f" ({found.away})" if found.away else ""
    count = snapshot.counts.outages
    return f"{now}{away}, {count} outage{'' if count == 1 else 's'}"


def _not_written(counts: Counts) -> str:
    skipped = f", {counts.skipped} journal entries skipped" if counts.skipped else ""
    return f"{counts.dropped}{skipped}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else f", {rate:.3g} per second"


def _latency(counts: Counts) -> str:
    median, slowest = counts.latency_median_ms, counts.latency_max_ms
    if median is None or slowest is None:
        return ""
    return f", answers take {median:.2f} ms, at most {slowest:.2f}"


def _input(counts: Counts) -> str:
    unreadable = f"{counts.bad_cells} cells and {counts.bad_rows} rows unreadable"
    return f"{unreadable}, times {listed(counts.timing) if counts.timing else 'good'}"


def _recurring(counts: Counts) -> str:
    return f" ({counts.recurring} recurring)" if counts.recurring else ""


def _kinds(kinds: Mapping[str, int]) -> str:
    return f": {listed(kinds)}" if kinds else ""


Style = Literal["plain", "bold", "dim", "good", "bad", "warn"]
_LABELS = 6  # cells at the left of the chart
_NAME_WIDTH, _STATE_WIDTH = 20, 18
_HIGH, _TALL_ROWS, _LOW_ROWS = 30, 8, 4  # from so many lines on, the chart is tall
_STYLES: dict[int, Style] = {HEALTHY: "good", ALARM: "bad"}


@dataclass(frozen=True)
class ScreenLine:
    """One line of the screen, in one style."""

    text: str
    style: Style = "plain"


def screen(
    snapshot: Snapshot | None, verdict: Health, file: str, columns: int, rows: int
) -> list[ScreenLine]:
    """Exactly `rows` lines of at most `columns` cells each."""
    body = [ScreenLine(verdict.text, _STYLES.get(verdict.code, "warn"))]
    if snapshot is not None:
        body = [ScreenLine(run_words(snapshot), "bold"), *body, *_score(snapshot, columns, rows)]
        known = facts(snapshot)
        body += [ScreenLine(f"{name:<12} {known[name]}") for name in known if name != "sample"]
        body += _channels(snapshot, rows - 1 - len(body))
    room = max(rows - 1, 0)
    filled = [*body[:room], *[ScreenLine("")] * (room - len(body)), _footer(verdict, file)]
    return [ScreenLine(fit(line.text, columns), line.style) for line in filled[:rows]]


def _footer(verdict: Health, file: str) -> ScreenLine:
    age = "" if verdict.age is None else f", written {duration(max(verdict.age, 0.0))} ago"
    return ScreenLine(f"q quits   {file}{age}", "dim")


def _score(snapshot: Snapshot, columns: int, rows: int) -> list[ScreenLine]:
    """The score in figures and as a chart; what is above the threshold has a style of its own."""
    height = _TALL_ROWS if rows >= _HIGH else _LOW_ROWS
    labels = {0: "twice", height // 2 - 1: "limit", height - 1: "0"}
    drawn = chart(snapshot.trail, height, max(columns - _LABELS, 1))
    return [
        ScreenLine(f"sample       {sample_words(snapshot)}"),
        *(
            ScreenLine(
                f"{labels.get(row, ''):<{_LABELS}}{text}", "bad" if row < height // 2 else "good"
            )
            for row, text in enumerate(drawn)
        ),
    ]


def _channels(snapshot: Snapshot, room: int) -> list[ScreenLine]:
    """A line for each channel; where there is no room for all, those in trouble come first."""
    channels = snapshot.channels
    if len(channels) > room - 1:
        channels = tuple(sorted(channels, key=lambda channel: not troubled(channel)))
    shown = channels if len(channels) <= room - 1 else channels[: max(room - 2, 0)]
    lines = [ScreenLine(_row("channel", "now", "masked", "imputed"), "bold")]
    lines += [_channel(channel, snapshot.counts.records) for channel in shown]
    if hidden := channels[len(shown) :]:
        lines.append(
            ScreenLine(f"{len(hidden)} more, {sum(map(troubled, hidden))} of them in trouble")
        )
    return lines


def _channel(channel: ChannelStatus, records: int) -> ScreenLine:
    style: Style = "bad" if channel.blamed else "warn" if troubled(channel) else "plain"
    shares = (_share(n, records) for n in (channel.masked_records, channel.imputed_records))
    return ScreenLine(_row(channel.name, channel_state(channel), *shares), style)


def _row(name: str, state: str, masked: str, imputed: str) -> str:
    return f"{padded(name, _NAME_WIDTH)} {padded(state, _STATE_WIDTH)} {masked:>9} {imputed:>9}"


def _share(count: int, records: int) -> str:
    return f"{100 * count / records:.2f} %" if records else "-"


_CODES: dict[Style, str] = {
    "plain": "", "bold": "1", "dim": "2", "good": "32", "bad": "31", "warn": "33",
}  # fmt: skip
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[0m\x1b[?25h\x1b[?1049l"
_QUIT = b"qQ\x03\x04"


def size() -> tuple[int, int]:
    """Columns and rows at the moment."""
    found = os.get_terminal_size(sys.stdout.fileno())  # not shutil's, which believes $COLUMNS
    return found.columns or 80, found.lines or 24


class Terminal:
    """Draws whole screens and waits for a key. Only within `borrowed`."""

    def __init__(self, keys: int, resized: socket.socket, coloured: bool) -> None:
        self._keys, self._resized, self._coloured = keys, resized, coloured

    def draw(self, lines: Sequence[ScreenLine]) -> None:
        """Replace what is shown."""
        # Erased before and not after its text: at the last column that would take a letter away.
        rows = "\r\n".join(f"\x1b[K{self._styled(line)}" for line in lines)
        sys.stdout.write(f"\x1b[H{rows}")
        sys.stdout.flush()

    def wait(self, seconds: float) -> bool:
        """Wait for a key or a new size; True when the viewer wants to leave."""
        woken = self._resized.fileno()
        ready = all_ready({self._keys: select.POLLIN, woken: select.POLLIN}, seconds)
        if woken in ready:
            self._resized.recv(64)
        if self._keys not in ready:
            return False
        pressed = os.read(self._keys, 64)
        return not pressed or any(key in _QUIT for key in pressed)

    def _styled(self, line: ScreenLine) -> str:
        code = _CODES[line.style] if self._coloured else ""
        return f"\x1b[{code}m{line.text}\x1b[0m" if code else line.text


@contextmanager
def borrowed(coloured: bool) -> Iterator[Terminal]:
    """The terminal without echo and cursor, on its second screen; restored on the way out."""
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    waker, resized = socket.socketpair()
    waker.setblocking(False)
    signal.signal(signal.SIGWINCH, lambda number, frame: None)  # only to wake `wait`
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # a shell must not get the terminal like this
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    try:
        tty.setcbreak(keys)
        sys.stdout.write(_ENTER)
        yield Terminal(keys, resized, coloured)
    finally:
        signal.set_wakeup_fd(-1)
        with suppress(OSError, termios.error):  # it may have gone
            termios.tcsetattr(keys, termios.TCSADRAIN, before)
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
        waker.close()
        resized.close()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
