"""A snapshot as text for `gruard status` and as a live screen for `gruard top`.

From the screen down to its parts: `screen` makes the lines of the live view, `to_text` and `facts`
the words, `chart` the curve of the score; `fit` and `padded` measure text in terminal cells;
`Terminal` draws the lines, and `borrowed` restores the terminal at the end.
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
    at,
    duration,
    finding_words,
    learning_words,
    mute_words,
    phase_words,
    since,
)
from edge_runtime.status.snapshot import BoardHealth, ChannelStatus, Counts, Snapshot
from edge_runtime.threads import failed_words

Style = Literal["plain", "bold", "dim", "good", "bad", "warn"]
_STYLES: dict[int, Style] = {HEALTHY: "good", ALARM: "bad"}
_CODES: dict[Style, str] = {
    "plain": "", "bold": "1", "dim": "2", "good": "32", "bad": "31", "warn": "33",
}  # fmt: skip
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[0m\x1b[?25h\x1b[?1049l"
_QUIT = b"qQ\x03\x04"
_LABELS = 6  # cells at the left of the chart
_NAME_WIDTH, _STATE_WIDTH = 20, 18
_HIGH, _TALL_ROWS, _LOW_ROWS = 30, 8, 4  # on a screen of so many lines, the chart is tall
_BLOCKS = " ▁▂▃▄▅▆▇█"
_TOP = 2.0  # thresholds; the scale is fixed, so that charts can be compared
_ELLIPSIS = "…"
_TIERS = {str(tier): voucher for tier, voucher in VOUCHERS.items()}


@dataclass(frozen=True)
class ScreenLine:
    """One line of the screen, in one style."""

    text: str
    style: Style = "plain"


def screen(
    snapshot: Snapshot | None, verdict: Health, file: str, columns: int, rows: int
) -> list[ScreenLine]:
    """Return exactly `rows` lines of at most `columns` cells each."""
    body = [ScreenLine(verdict.text, _STYLES.get(verdict.code, "warn"))]
    if snapshot is not None:
        body = [ScreenLine(run_words(snapshot), "bold"), *body, *_score(snapshot, columns, rows)]
        lines = facts(snapshot)
        body += [ScreenLine(f"{name:<12} {lines[name]}") for name in lines if name != "sample"]
        body += _channels(snapshot, rows - 1 - len(body))
    room = max(rows - 1, 0)
    filled = [*body[:room], *[ScreenLine("")] * (room - len(body)), _footer(verdict, file)]
    return [ScreenLine(fit(line.text, columns), line.style) for line in filled[:rows]]


def _footer(verdict: Health, file: str) -> ScreenLine:
    age = "" if verdict.age is None else f", written {duration(max(verdict.age, 0.0))} ago"
    return ScreenLine(f"q quits   {file}{age}", "dim")


def _score(snapshot: Snapshot, columns: int, rows: int) -> list[ScreenLine]:
    """Return the score in figures and as a chart, in another style above the threshold."""
    height = _TALL_ROWS if rows >= _HIGH else _LOW_ROWS
    labels = {0: "twice", height // 2 - 1: "limit", height - 1: "0"}
    lines = [ScreenLine(f"sample       {sample_words(snapshot)}")]
    for row, text in enumerate(chart(snapshot.trail, height, max(columns - _LABELS, 1))):
        style: Style = "bad" if row < height // 2 else "good"
        lines.append(ScreenLine(f"{labels.get(row, ''):<{_LABELS}}{text}", style))
    return lines


def _channels(snapshot: Snapshot, room: int) -> list[ScreenLine]:
    """Return a line for each channel; without room for all, those with trouble come first."""
    channels = snapshot.channels
    if len(channels) > room - 1:
        channels = tuple(sorted(channels, key=lambda channel: not troubled(channel)))
    shown = channels if len(channels) <= room - 1 else channels[: max(room - 2, 0)]
    lines = [ScreenLine(_row("channel", "now", "masked", "imputed"), "bold")]
    lines += [_channel(channel, snapshot.counts.records) for channel in shown]
    if hidden := channels[len(shown) :]:
        with_trouble = sum(map(troubled, hidden))
        lines.append(ScreenLine(f"{len(hidden)} more, {with_trouble} of them in trouble"))
    return lines


def _channel(channel: ChannelStatus, records: int) -> ScreenLine:
    style: Style = "bad" if channel.blamed else "warn" if troubled(channel) else "plain"
    shares = (_share(n, records) for n in (channel.masked_records, channel.imputed_records))
    return ScreenLine(_row(channel.name, channel_state(channel), *shares), style)


def _row(name: str, state: str, masked: str, imputed: str) -> str:
    return f"{padded(name, _NAME_WIDTH)} {padded(state, _STATE_WIDTH)} {masked:>9} {imputed:>9}"


def _share(count: int, records: int) -> str:
    return f"{100 * count / records:.2f} %" if records else "-"


def to_text(snapshot: Snapshot | None, verdict: Health) -> list[str]:
    """Return the verdict, and a line for each fact about the run below it."""
    if snapshot is None:
        return [verdict.text]
    channels = [f"{c.name} {channel_state(c)}" for c in snapshot.channels if troubled(c)]
    lines = {"run": run_words(snapshot)} | facts(snapshot)
    lines["channels"] = ", ".join(channels) or f"all {len(snapshot.channels)} good"
    return [verdict.text, *(f"  {name:<12} {text}" for name, text in lines.items())]


def facts(snapshot: Snapshot) -> dict[str, str]:
    """Return the facts about the run, without its channels, by name."""
    model, source, counts = snapshot.model, snapshot.input, snapshot.counts
    waiting = f", {model.waiting}" if model.waiting else ""
    rate = "" if snapshot.rate is None else f", {snapshot.rate:.3g} per second"
    recurring = f" ({counts.recurring} recurring)" if counts.recurring else ""
    kinds = f": {listed(counts.kinds)}" if counts.kinds else ""
    skipped = f", {counts.skipped} journal entries skipped" if counts.skipped else ""
    unreadable = f"{counts.bad_cells} cells and {counts.bad_rows} rows unreadable"
    lines = {
        "sample": sample_words(snapshot),
        "change": change_words(snapshot),
        "muted": mute_words(snapshot.mute, snapshot.now).strip() if snapshot.mute else "",
        "learning": _learning(snapshot),
        "model": f"{phase_words(snapshot)}{waiting}, {_restarts(counts.restarts)}",
        "records": f"{counts.records}{rate}{_latency(counts)}",
        "by tier": listed({_TIERS.get(tier, tier): n for tier, n in counts.tiers.items() if n}),
        "changes": listed(counts.transitions),
        "flags": listed(counts.flags),
        "alarms": f"{counts.alarms}{recurring}{kinds}",
        "input": f"{unreadable}, times {listed(counts.timing) if counts.timing else 'good'}",
        "not written": f"{counts.dropped}{skipped}",
        "threads": failed_words(snapshot.threads) or f"all {len(snapshot.threads)} run",
        "source": _source(snapshot) if source.silent_since is not None or counts.outages else "",
        "last run": counts.started_after or "",
        "board": board_words(snapshot.health) if snapshot.health else "",
    }
    return {name: text for name, text in lines.items() if text}


def run_words(snapshot: Snapshot) -> str:
    """Return which model runs, on which kernel, in which process, and for how long."""
    model, process = snapshot.model, snapshot.process
    kernel = f" on {model.kernel}" if model.kernel else ""
    name = f"{model.name} version {model.version}"
    return f"{name}, {model.hash}{kernel}, pid {process.pid}, for {duration(process.uptime)}"


def sample_words(snapshot: Snapshot) -> str:
    """Return the last record's score, and which tier answered."""
    answer = snapshot.answer
    if answer is None:
        return "none yet"
    score = "no score" if answer.score is None else f"score {answer.score:.4g}"
    limit = "" if answer.threshold is None else f", threshold {answer.threshold:.4g}"
    voucher = VOUCHERS.get(answer.tier, "unknown")
    return f"{answer.index}: {score}{limit}; tier {answer.tier}, {voucher}"


def change_words(snapshot: Snapshot) -> str:
    """Return the reported lasting change: its time, its channels, its acceptance; or nothing."""
    change = snapshot.change
    if change is None:
        return ""
    words = finding_words(change, snapshot.now).strip()
    if change.accepted is None:
        return words
    why = f" ({change.reason})" if change.reason else ""
    return f"{words}, accepted{since(change.accepted, snapshot.now)}{why}"


def board_words(health: BoardHealth) -> str:
    """Return temperature and power supply."""
    words = [] if health.temperature is None else [f"{health.temperature:.1f} °C"]
    if health.throttled is not None:
        on, had = now_and_since_boot(health.throttled)
        words += [f"{name} now" for name in on]
        words += [f"{name} since boot" for name in had if name not in on]
        words += [] if on or had else ["power supply good"]
    return ", ".join(words)


def troubled(channel: ChannelStatus) -> bool:
    """Return whether the channel is masked, imputed or blamed now."""
    return channel.masked or channel.imputed or channel.blamed


def channel_state(channel: ChannelStatus) -> str:
    """Return the present state of a channel."""
    states = {
        "BLAMED": channel.blamed,
        "masked": channel.masked,
        "imputed": channel.imputed and not channel.masked,
    }
    return " ".join(name for name, on in states.items() if on) or "good"


def listed(counts: Mapping[str, int]) -> str:
    """Return names and numbers, the highest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered) or "-"


def _learning(snapshot: Snapshot) -> str:
    """Return where learning stands, when it was done last, and when it is done next."""
    learning = snapshot.learning
    if learning is None:
        return ""
    if learning.active or learning.learning:
        return learning_words(learning)
    next_ = "" if learning.next is None else f"again{at(learning.next, snapshot.now)}"
    last = f"{learning.result}{at(learning.last, snapshot.now)}" if learning.result else ""
    return "; ".join(filter(None, (last, next_)))


def _restarts(count: int) -> str:
    return "never restarted" if count == 0 else f"{count} restart{'s' if count > 1 else ''}"


def _source(snapshot: Snapshot) -> str:
    silent, away = snapshot.input.silent_since, snapshot.input.away
    now = "is read" if silent is None else f"silent{since(silent, snapshot.now)}"
    count = snapshot.counts.outages
    return f"{now}{f' ({away})' if away else ''}, {count} outage{'' if count == 1 else 's'}"


def _latency(counts: Counts) -> str:
    median, slowest = counts.latency_median_ms, counts.latency_max_ms
    if median is None or slowest is None:
        return ""
    return f", answers take {median:.2f} ms, at most {slowest:.2f}"


def chart(points: Sequence[float | None], rows: int, columns: int) -> list[str]:
    """Return `rows` lines (an even number) of `columns` cells, the latest point at the right.

    The lower edge of row rows/2 is the threshold, drawn where nothing is above it. A point beyond
    the scale ends at the upper edge; without a score the column is empty.
    """
    shown = [None] * (columns - len(points)) + list(points[max(len(points) - columns, 0) :])
    eighths = [_eighths(point, rows) for point in shown]
    return [
        "".join(_letter(height - 8 * below, below == rows // 2) for height in eighths)
        for below in reversed(range(rows))
    ]


def _eighths(point: float | None, rows: int) -> int:
    """Return the height in eighths of a row: at least 1 for a score, 0 without one."""
    if point is None:
        return 0
    return max(1, round(min(point / _TOP, 1.0) * rows * 8))


def _letter(above: int, at_threshold: bool) -> str:
    """Return the cell of a column that ends `above` eighths above the cell's lower edge."""
    if above <= 0 and at_threshold:
        return "_"
    return _BLOCKS[min(max(above, 0), 8)]


def printable(text: str) -> str:
    """Return `text` with `?` for characters that control a terminal or have no width."""
    return "".join(c if c.isprintable() and _width_of(c) else "?" for c in text)


def width(text: str) -> int:
    """Return the cells that printable text takes; East Asian characters take two."""
    return len(text) if text.isascii() else sum(map(_width_of, text))


def fit(text: str, cells: int) -> str:
    """Return `text`, made printable and shortened to `cells` at most."""
    text = printable(text)
    if width(text) <= cells:
        return text
    while text and width(text) + 1 > cells:
        text = text[:-1]
    return text + _ELLIPSIS if cells > 0 else ""


def padded(text: str, cells: int) -> str:
    """Return `text` in exactly so many cells."""
    text = fit(text, cells)
    return text + " " * (cells - width(text))


def _width_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def size() -> tuple[int, int]:
    """Return the present columns and rows of the terminal."""
    found = os.get_terminal_size(sys.stdout.fileno())  # shutil's trusts $COLUMNS, which may be old
    return found.columns or 80, found.lines or 24


class Terminal:
    """Draws whole screens and waits for a key. Made by `borrowed`."""

    def __init__(self, keys: int, resized: socket.socket, coloured: bool) -> None:
        self._keys, self._resized, self._coloured = keys, resized, coloured

    def draw(self, lines: Sequence[ScreenLine]) -> None:
        """Replace the screen."""
        # Erase before the text: after it, that would delete the letter in the last column.
        rows = "\r\n".join(f"\x1b[K{self._styled(line)}" for line in lines)
        sys.stdout.write(f"\x1b[H{rows}")
        sys.stdout.flush()

    def wait(self, seconds: float) -> bool:
        """Wait for a key or a new size; return whether the user quits."""
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
    """Switch the terminal to its second screen, without echo and cursor; restore it at the end."""
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    waker, resized = socket.socketpair()
    waker.setblocking(False)
    signal.signal(signal.SIGWINCH, lambda number, frame: None)  # only to wake `wait`
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # a shell must not get the terminal in this state
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    try:
        tty.setcbreak(keys)
        sys.stdout.write(_ENTER)
        yield Terminal(keys, resized, coloured)
    finally:
        signal.set_wakeup_fd(-1)
        with suppress(OSError, termios.error):  # the terminal may have gone
            termios.tcsetattr(keys, termios.TCSADRAIN, before)
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
        waker.close()
        resized.close()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
