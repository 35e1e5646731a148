"""The picture of an alarm: any readings give a small, well-formed file, and the right minutes."""

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gruard_command import ask, gruard, start
from hypothesis import given
from hypothesis import strategies as st
from made_snapshot import alarms

from edge_runtime.alarm import Alarm, BlamedReading
from edge_runtime.alarms.picture import AFTER, BEFORE, Course, picture, read_courses
from edge_runtime.errors import GruardError
from edge_runtime.readings.recorder import open_recorder
from edge_runtime.sources.source import Reading
from edge_runtime.words import LANGUAGES

pytestmark = pytest.mark.usefixtures("utc")
START = 1764597730.0
FLOW = BlamedReading("flow & <heat>", 7.5, 1.0, 3.0)
ALARM = Alarm(
    "Pump 3", 464, 524, START, START + 60, START + 0.2, (FLOW,), "level", 0.93, True, True
)
SVG = "{http://www.w3.org/2000/svg}"
_times = st.floats(-1e15, 1e15)  # as `AlarmLog` keeps them
_any = st.floats(allow_nan=True, allow_infinity=True, width=32)
_courses = st.lists(
    st.builds(
        Course,
        st.builds(
            BlamedReading, st.text("a<&\"'µ流"), st.none(), st.none() | st.just(-1.0), st.just(2.0)
        ),
        st.lists(st.tuples(st.floats(START - 500, START + 500), _any), max_size=40),
    ),
    min_size=1,
    max_size=3,
)


def elements(text: str, name: str, kind: str = "") -> list[ElementTree.Element]:
    found = ElementTree.fromstring(text).iter(f"{SVG}{name}")
    return [each for each in found if not kind or each.get("class") == kind]


@given(
    alarm=alarms, start=_times, end=_times, courses=_courses, language=st.sampled_from(LANGUAGES)
)
def test_anything_is_a_picture_with_numbers_only(
    alarm: Alarm, start: float, end: float, courses: list[Course], language: str
) -> None:
    text = picture(replace(alarm, start=start, end=end), courses, language)
    assert len(elements(text, "rect", "frame")) == len(courses)
    for line in elements(text, "polyline"):
        points = [pair.split(",") for pair in line.get("points", "").split()]
        assert len(points) > 1
        assert all(math.isfinite(float(number)) for pair in points for number in pair)


def sine(rate: int) -> Course:
    times = [START + n / rate for n in range(-300 * rate, 300 * rate)]
    inside = [at for at in times if -BEFORE <= at - START <= AFTER]
    return Course(FLOW, [(at, math.sin(at)) for at in inside])


def test_band_alarm_ticks_and_title_are_there() -> None:
    text = picture(ALARM, [sine(1)], "en")
    (band,), (alarm,) = elements(text, "rect", "expected"), elements(text, "rect", "alarm")
    assert float(band.get("height", 0)) > 10
    assert float(alarm.get("width", 0)) == pytest.approx(640 * 60 / 300, abs=0.1)
    ticks = [tick.text for tick in elements(text, "text", "tick")]
    assert ticks == [f"14:0{minute}:00" for minute in (1, 2, 3, 4, 5)]
    (title,) = elements(text, "text", "title")
    assert title.text == "Pump 3: flow & <heat> unlike healthy since 14:02:10 (sensor offset, 0.93)"
    assert "flow &amp; &lt;heat&gt; (expected 1 … 3)" in text
    assert "erwartet" in picture(ALARM, [sine(1)], "de")


def test_a_fast_machine_makes_no_large_file() -> None:
    assert len(picture(ALARM, [sine(100)] * 8, "en")) < 8 * 40_000


def test_a_hole_interrupts_the_curve() -> None:
    points = [(START + n, math.nan if 10 < n < 30 else 2.0) for n in range(60)]
    assert len(elements(picture(ALARM, [Course(FLOW, points)], "en"), "polyline")) == 2


def kept(folder: Path, first: float, count: int) -> Path:
    recorder = open_recorder(folder, ("heat", "flow & <heat>"), 10**7, print)
    for n in range(count):
        recorder.add(Reading(first + n, np.array([9.0, n], np.float32)), float(n))
    recorder.close()
    return folder


def test_the_blamed_channels_of_these_minutes_are_read(tmp_path: Path) -> None:
    folder = kept(tmp_path / "readings", START - 400, 800)
    alarm = replace(ALARM, began=0.0)  # the parts have the day of this test
    (course,) = read_courses(folder, alarm, print)
    assert course.blamed == FLOW
    assert [at - START for at, _ in course.points] == [*range(-120, 181)]
    assert [value for _, value in course.points] == [*range(280, 581)]
    slow = replace(alarm, index=0, last=1, end=START + 10)
    assert len(read_courses(folder, slow, print)[0].points) == 800
    nobody = replace(alarm, blamed=(BlamedReading("gone"),))
    assert [each.blamed.channel for each in read_courses(folder, nobody, print)] == [
        "heat", "flow & <heat>",
    ]  # fmt: skip


def test_where_there_is_nothing_to_draw_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(GruardError, match="--keep-readings keeps them, and --readings names"):
        read_courses(tmp_path / "none", ALARM, print)
    folder = kept(tmp_path / "readings", START + 1e6, 3)
    for alarm in (ALARM, replace(ALARM, began=0.0)):
        with pytest.raises(GruardError, match="has no readings around alarm"):
            read_courses(folder, alarm, print)


def test_an_alarm_of_a_run_is_drawn_by_its_command(tmp_path: Path) -> None:
    state, readings, out = (tmp_path / name for name in ("state", "readings", "out.svg"))
    state.mkdir()
    words = ("run", "x", "--source", "-", "--state", str(state), "--keep-readings", str(readings))
    run = start(*words)
    ask(run, b"a,b\n")
    for row in (b"1,2\n", b"1,2\n", b"500,2\n", b"1,2\n"):
        ask(run, row)
    run.communicate(timeout=60)
    places = ("--state", str(state), "--readings", str(readings), "--out", str(out))
    done = gruard("picture", "last", *places)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert len(elements(text, "polyline")) == 1 and "a (expected -100 … 100)" in text
    again = gruard("picture", "last", *places)
    assert again.returncode == 2 and "--force" in again.stderr and out.read_text() == text
    none = gruard("picture", "99", *places, "--force")
    assert none.returncode == 1 and "gruard marks lists them" in none.stderr
    assert out.read_text() == text
