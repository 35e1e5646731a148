"""The picture of an alarm: the blamed channels in the minutes around it, as SVG.

Drawn from kept readings (`edge_runtime.readings`), without any package.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.alarm import Alarm, BlamedReading, is_date
from edge_runtime.errors import GruardError
from edge_runtime.readings.parts import Part, parts_in, read_channels, read_rows
from edge_runtime.words import SENTENCES, alarm_text, clock_text

BEFORE, AFTER = 120.0, 180.0
"""Seconds before and after the beginning of the alarm."""
FEWEST_ROWS = 120
"""Rows that are shown of a machine that is read less often than every 2.5 s."""
_DAY = 86400.0
_LEFT, _WIDTH, _RIGHT = 76, 640, 16  # of the curves, in pixels
_TITLE, _HEIGHT, _GAP, _FOOT = 62, 96, 26, 28
_STEPS = (1, 5, 15, 60, 300, 900, 3600, 14400, 86400)  # seconds between two ticks
_MOST_TICKS = 8
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600}"
    ".tick{fill:#666;text-anchor:middle}.value{fill:#666;text-anchor:end}"
    ".frame{fill:#f6f6f6}.expected{fill:#1a7f37;fill-opacity:.16}"
    ".alarm{fill:#b3261e;fill-opacity:.14}polyline{fill:none;stroke:#2456a6;stroke-width:1.3}"
)


@dataclass(frozen=True)
class Course:
    """The readings of one channel. points: time in seconds and value, NaN where missing.

    blamed: the channel, with what was expected of it.
    """

    blamed: BlamedReading
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Window:
    """The times that are shown, in seconds."""

    start: float
    stop: float

    @staticmethod
    def around(alarm: Alarm) -> Window:
        """Return the minutes around the beginning of `alarm`."""
        rows = alarm.last - alarm.index
        period = (alarm.end - alarm.start) / rows if rows else 0.0
        scale = max(1.0, period * FEWEST_ROWS / (BEFORE + AFTER))
        return Window(alarm.start - scale * BEFORE, alarm.start + scale * AFTER)


def read_courses(folder: Path, alarm: Alarm, report: Callable[[str], None]) -> list[Course]:
    """Return the readings of the blamed channels around `alarm`; of all channels if none is blamed.

    folder: of the readings. report: takes a line about damage. Raises GruardError when there is no
    reading of that time.
    """
    if not folder.is_dir():
        raise GruardError(
            f"{folder}: no readings are kept here; gruard run --keep-readings keeps them, and "
            "--readings names their folder"
        )
    window, parts, own = Window.around(alarm), _parts_near(folder, alarm), read_channels(folder)
    blamed = [each for each in alarm.blamed if each.channel in (own or ())]
    shown = blamed or [BlamedReading(name) for name in own or ()]
    points: list[list[tuple[float, float]]] = [[] for _ in shown]
    places = [(own or ()).index(each.channel) + 1 for each in shown]
    for row in read_rows(folder, parts, len(own or ()), report):
        if window.start <= row.time <= window.stop:
            for course, place in zip(points, places, strict=True):
                course.append((row.time, _value(row.cells[place])))
    if not any(points):
        raise GruardError(
            f"{folder}: has no readings around alarm {alarm.id}; they were not kept then, or were "
            "dropped beyond --keep-megabytes"
        )
    return [Course(each, course) for each, course in zip(shown, points, strict=True)]


def _parts_near(folder: Path, alarm: Alarm) -> list[Part]:
    """Return the parts of the days around an alarm; all of them where its day is unknown."""
    parts = parts_in(folder)
    if not is_date(alarm.began):
        return parts
    days = [time.strftime("%Y-%m-%d", time.gmtime(alarm.began + d * _DAY)) for d in (-1, 0, 1)]
    return [part for part in parts if part.day in days]


def _value(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def picture(alarm: Alarm, courses: Sequence[Course], language: str) -> str:
    """Return an SVG file: a curve for each course, the range that was expected, and the alarm."""
    window = Window.around(alarm)
    height = _TITLE + len(courses) * (_HEIGHT + _GAP) - _GAP + _FOOT
    width = _LEFT + _WIDTH + _RIGHT
    text = html.escape(alarm_text(alarm, language))
    return "".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img"><title>{text}</title>'
            f'<style>{_STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>',
            *_title(alarm, language),
            *_panels(alarm, courses, window, SENTENCES[language]["expected"]),
            *_ticks(alarm, window, height),
            "</svg>\n",
        )
    )


def _title(alarm: Alarm, language: str) -> Iterator[str]:
    """Yield the alarm in words, in two lines."""
    mark = SENTENCES[language]["semicolon"]
    what, _, more = alarm_text(alarm, language).partition(mark)
    for text, y, kind in ((what, 18, "title"), (more, 34, "more")):
        yield f'<text class="{kind}" x="8" y="{y}">{html.escape(text)}</text>'


def _panels(
    alarm: Alarm, courses: Sequence[Course], window: Window, expected: str
) -> Iterator[str]:
    left, right = (_x(at, window) for at in (alarm.start, max(alarm.end, alarm.start)))
    for number, course in enumerate(courses):
        top = _TITLE + number * (_HEIGHT + _GAP)
        low, high = _scale(course)
        name, band = html.escape(course.blamed.channel), ""
        yield f'<rect class="frame" x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}"/>'
        if course.blamed.low is not None and course.blamed.high is not None:
            upper, lower = (
                _y(edge, low, high, top) for edge in (course.blamed.high, course.blamed.low)
            )
            yield _rect("expected", _LEFT, upper, _WIDTH, lower - upper)
            band = f" ({expected} {course.blamed.low:.4g} … {course.blamed.high:.4g})"
        yield _rect("alarm", left, top, max(right - left, 1.5), _HEIGHT)
        for stroke in _strokes(course.points, window, low, high, top):
            yield f'<polyline points="{stroke}"/>'
        yield f'<text x="{_LEFT}" y="{top - 5}">{name}{html.escape(band)}</text>'
        for edge, below in ((high, top + 11), (low, top + _HEIGHT)):
            yield f'<text class="value" x="{_LEFT - 6}" y="{below}">{edge:.4g}</text>'


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    )


def _scale(course: Course) -> tuple[float, float]:
    """Return the lowest and the highest value that are shown, which are never the same."""
    values = [value for _, value in course.points if math.isfinite(value)]
    values += [edge for edge in (course.blamed.low, course.blamed.high) if edge is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.05 * (high - low) or max(abs(high) * 0.05, 1e-9)
    return low - margin, high + margin


def _strokes(
    points: Iterable[tuple[float, float]], window: Window, low: float, high: float, top: float
) -> Iterator[str]:
    """Yield the points of each line; a missing reading ends a line.

    Of the readings within one pixel the lowest and the highest are drawn, so a picture is small
    whatever the rate.
    """
    line: list[str] = []
    column: list[tuple[float, float]] = []
    for at, value in [*points, (math.inf, math.nan)]:
        known = math.isfinite(value)
        if column and (not known or int(_x(at, window)) != int(column[0][0])):
            line += [f"{x:.1f},{y:.1f}" for x, y in _extremes(column)]
            column = []
        if known:
            column.append((_x(at, window), _y(value, low, high, top)))
        elif line:
            yield " ".join(line if len(line) > 1 else line * 2)
            line = []


def _extremes(column: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points of a pixel's width that are drawn, in their order."""
    lowest, highest = (pick(column, key=lambda point: point[1]) for pick in (min, max))
    return sorted({column[0], lowest, highest, column[-1]})


def _x(at: float, window: Window) -> float:
    share = (at - window.start) / (window.stop - window.start)
    return _LEFT + _WIDTH * min(max(share, 0.0), 1.0)


def _y(value: float, low: float, high: float, top: float) -> float:
    return top + _HEIGHT * (high - min(max(value, low), high)) / (high - low)


def _ticks(alarm: Alarm, window: Window, height: int) -> Iterator[str]:
    """Yield the times below the curves: full minutes of the wall clock where there is one."""
    length = window.stop - window.start
    step = next((step for step in _STEPS if length / step <= _MOST_TICKS), length / _MOST_TICKS)
    shift = alarm.began - alarm.start if is_date(alarm.began) else 0.0
    first = math.ceil((window.start + shift) / step) * step - shift
    for at in (first + number * step for number in range(_MOST_TICKS + 1)):
        if at <= window.stop:
            text = clock_text(alarm, at) or f"{at:g} s"
            yield f'<text class="tick" x="{_x(at, window):.1f}" y="{height - 10}">{text}</text>'
