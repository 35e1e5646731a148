"""What the live view shows, as text, and that it never is wider or higher than the terminal."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_snapshot import ALARMING, CHANNELS, SNAPSHOT, TOLD, snapshots

from edge_runtime.detector.lasting_change import Finding
from edge_runtime.status.health import judge
from edge_runtime.status.screen import (
    ScreenLine,
    board_words,
    chart,
    duration,
    facts,
    fit,
    padded,
    printable,
    screen,
    to_text,
    width,
)
from edge_runtime.status.snapshot import BoardHealth, Input, Snapshot
from edge_runtime.threads import ThreadState

pytestmark = pytest.mark.usefixtures("utc")
FILE = "/run/gruard/status.json"
CALM_SCREEN = """\
pump version 3, 55f037e9877e on tflite-builtin, pid 812, for 3 h 12 min
healthy, no alarm
sample       4199: score 4.5, threshold 16.8; tier 1, the model
twice
limit __________________________________________________________________________

0                                       ▂▃▅▆█▂▃▅▆█▂▃▅▆█▂▃▅▆█▂▃▅▆█▂▃▅▆█▂▃▅▆█▂▃▅▆█
model        serving since 2023-11-14 22:13, 1 restart
records      4200, 50 per second, answers take 2.35 ms, at most 51.70
by tier      the model 3900, the fallback 200, the model alone 100
changes      3→1 2, 1→2 1, 1→3 1, 2→1 1
flags        FALLBACK 200, WARMUP 150, IMPUTED 77
alarms       3 (1 recurring): level 2, machine 1
input        5 cells and 1 rows unreadable, times duplicate 4
not written  0
threads      all 2 run
channel              now                   masked   imputed
speed                good                  0.00 %    0.00 %
flow                 good                  0.00 %    1.83 %
heat                 good                  0.00 %    0.00 %



q quits   /run/gruard/status.json, written 0 s ago"""
ALARM_SCREEN = """\
pump version 3, 55f037e9877e on tflite-builtin, pid 812, for 3 h 12 min
ALARM pump: flow and heat unlike healthy since 22:13:20 (sensor offset, 0.87); …
sample       4199: score 40.25, threshold 16.8; tier 1, the model
twice                                                                        ▆██
limit ______________________________________________________________________▃███
                                                                           ▆████
0                                         ▂▃▅▆█▂▃▅▆█▂▃▅▆█▂▃▅▆█▂▃▅▆█▂▃▅▆█  ▆█████
model        serving since 2023-11-14 22:13, 1 restart
records      4200, 50 per second, answers take 2.35 ms, at most 51.70
by tier      the model 3900, the fallback 200, the model alone 100
changes      3→1 2, 1→2 1, 1→3 1, 2→1 1
flags        FALLBACK 200, WARMUP 150, IMPUTED 77
alarms       3 (1 recurring): level 2, machine 1
input        5 cells and 1 rows unreadable, times duplicate 4
not written  0
threads      all 2 run
board        54.3 °C, under-voltage now, throttling now
channel              now                   masked   imputed
speed                good                  0.00 %    0.00 %
flow                 BLAMED imputed        0.00 %    1.83 %
heat                 BLAMED masked         0.50 %    0.50 %


q quits   /run/gruard/status.json, written 0 s ago"""
SMALL_SCREEN = """\
pump version 3, 55f037e9877e on tflite-builtin,…
ALARM pump: flow and heat unlike healthy since …
sample       4199: score 40.25, threshold 16.8;…
twice                                        ▆██
limit ______________________________________▃███
                                           ▆████
0         ▂▃▅▆█▂▃▅▆█▂▃▅▆█▂▃▅▆█▂▃▅▆█▂▃▅▆█  ▆█████
model        serving since 2023-11-14 22:13, 1 …
records      4200, 50 per second, answers take …
by tier      the model 3900, the fallback 200, …
changes      3→1 2, 1→2 1, 1→3 1, 2→1 1
flags        FALLBACK 200, WARMUP 150, IMPUTED …
alarms       3 (1 recurring): level 2, machine 1
input        5 cells and 1 rows unreadable, tim…
not written  0
threads      all 2 run
board        54.3 °C, under-voltage now, thrott…
channel              now                   mask…
c1                   BLAMED imputed        0.00…
c2                   BLAMED masked         0.50…
18 more, 11 of them in trouble
q quits   /run/gruard/status.json, written 0 s …"""
STATUS = """\
ALARM pump: flow and heat unlike healthy since 22:13:20 (sensor offset, 0.87); model trusted
  run          pump version 3, 55f037e9877e on tflite-builtin, pid 812, for 3 h 12 min
  sample       4199: score 40.25, threshold 16.8; tier 1, the model
  model        serving since 2023-11-14 22:13, 1 restart
  records      4200, 50 per second, answers take 2.35 ms, at most 51.70
  by tier      the model 3900, the fallback 200, the model alone 100
  changes      3→1 2, 1→2 1, 1→3 1, 2→1 1
  flags        FALLBACK 200, WARMUP 150, IMPUTED 77
  alarms       3 (1 recurring): level 2, machine 1
  input        5 cells and 1 rows unreadable, times duplicate 4
  not written  0
  threads      all 2 run
  board        54.3 °C, under-voltage now, throttling now
  channels     flow BLAMED imputed, heat BLAMED masked"""


def shown(snapshot: Snapshot | None, columns: int = 80, rows: int = 24) -> str:
    verdict = judge(snapshot, TOLD + 0.5, "running")
    lines = screen(snapshot, verdict, FILE, columns, rows)
    return "\n".join(line.text.rstrip() for line in lines)


def test_a_healthy_run() -> None:
    assert shown(SNAPSHOT) == CALM_SCREEN


def test_an_alarm() -> None:
    assert shown(ALARMING) == ALARM_SCREEN


def test_a_small_terminal() -> None:
    many = tuple(replace(CHANNELS[n % 3], name=f"c{n}") for n in range(20))
    assert shown(replace(ALARMING, channels=many), 48, 22) == SMALL_SCREEN


def test_no_file_yet() -> None:
    first, *_, last = shown(None).splitlines()
    assert first == "there is no status file: nothing runs here"
    assert last == f"q quits   {FILE}"


def test_status_in_words() -> None:
    assert "\n".join(to_text(ALARMING, judge(ALARMING, TOLD, "running"))) == STATUS
    assert to_text(None, judge(None, TOLD, "gone")) == [
        "there is no status file: nothing runs here"
    ]
    calm = to_text(SNAPSHOT, judge(SNAPSHOT, TOLD, "running"))
    assert calm[-1] == "  channels     all 3 good"


def test_what_went_wrong_is_in_words() -> None:
    threads = (
        ThreadState("journal", True, False, True, 1, 75.0, "OSError: [Errno 5] I/O error"),
        ThreadState("board", False, True, False, 0, 0.0, None),
        ThreadState("metrics server", False, False, False, 0, 0.0, "can't start new thread"),
    )
    counts = replace(SNAPSHOT.counts, outages=2, skipped=3, dropped=7)
    away = Input(SNAPSHOT.process.started + SNAPSHOT.process.uptime, "serial:/dev/ttyUSB0: is away")
    model = replace(SNAPSHOT.model, phase="waiting to restart", waiting="did not load; in 30 s")
    wrong = replace(SNAPSHOT, threads=threads, counts=counts, input=away, model=model)
    known = facts(wrong)
    assert known["threads"] == (
        "journal: has hung for 75 s, 1 restart (OSError: [Errno 5] I/O error), "
        "metrics server: does not run (can't start new thread)"
    )
    assert known["source"] == "silent since 01:25 (serial:/dev/ttyUSB0: is away), 2 outages"
    assert known["not written"] == "7, 3 journal entries skipped"
    assert known["model"] == (
        "waiting to restart since 2023-11-14 22:13, did not load; in 30 s, 1 restart"
    )
    back = replace(wrong, input=Input(None, None), counts=replace(counts, outages=1))
    assert facts(back)["source"] == "is read, 1 outage"


def test_a_change_is_in_words_with_what_the_owner_said() -> None:
    finding = Finding(1.7e9, ("flow", "heat"), 1, None, "")
    changed = replace(SNAPSHOT, change=finding)
    assert "change" not in facts(SNAPSHOT)
    assert facts(changed)["change"] == "since 2023-11-14 22:13 on flow, heat"
    noon = SNAPSHOT.process.started + SNAPSHOT.process.uptime - 60
    accepted = replace(finding, channels=(), accepted=noon, reason="new bearing")
    assert facts(replace(SNAPSHOT, change=accepted))["change"] == (
        "since 2023-11-14 22:13, accepted since 01:24 (new bearing)"
    )
    screen = shown(changed)
    assert "changed since 2023-11-14 22:13" in screen and "change       since" in screen


def test_styles_tell_what_matters() -> None:
    verdict = judge(ALARMING, TOLD, "running")
    styles = {
        line.text.split(" ")[0]: line.style for line in screen(ALARMING, verdict, FILE, 80, 24)
    }
    assert styles["ALARM"] == styles["flow"] == styles["twice"] == "bad"
    assert (styles["speed"], styles["0"]) == ("plain", "good")
    imputed = replace(ALARMING, channels=(replace(CHANNELS[1], blamed=False),))
    assert ScreenLine(shown(imputed).splitlines()[18], "warn") in screen(
        imputed, verdict, FILE, 80, 24
    )


@given(snapshot=snapshots, columns=st.integers(0, 130), rows=st.integers(1, 50))
def test_it_fits_any_terminal(snapshot: Snapshot, columns: int, rows: int) -> None:
    lines = screen(snapshot, judge(snapshot, 0.0, "running"), FILE, columns, rows)
    assert len(lines) == rows
    for line in lines:
        assert width(line.text) <= columns and line.text.isprintable()
    to_text(snapshot, judge(snapshot, 0.0, "running"))


@given(text=st.text(), cells=st.integers(0, 30))
def test_padding_is_exact_and_steers_no_terminal(text: str, cells: int) -> None:
    assert width(padded(text, cells)) == cells
    assert printable(text).isprintable() and "\x1b" not in printable(text)
    assert len(printable(text)) == len(text)


def test_letters_of_east_asia_take_two_cells() -> None:
    assert width("圧力") == 4 and fit("圧力計", 5) == "圧力…" and padded("圧力", 3) == "圧…"
    assert printable("a\x1b[2Jb\u0301\u202e") == "a?[2Jb??"


def test_the_chart() -> None:
    assert chart((None, -1.0, 0.25, 0.5, 1.0, 1.5, 2.0, 99.0), rows=4, columns=9) == [
        "       ██",
        "______███",
        "     ████",
        "  ▁▄█████",
    ]  # fmt: skip


@given(points=st.lists(st.none() | st.floats(-1e6, 1e6), max_size=150), columns=st.integers(1, 99))
def test_a_chart_is_as_wide_as_asked(points: list[float | None], columns: int) -> None:
    for rows in (2, 4, 8):
        drawn = chart(points, rows, columns)
        assert [len(line) for line in drawn] == [columns] * rows


def test_durations_and_boards_in_words() -> None:
    told = [duration(s) for s in (0.9, 59, 61, 7260, 200_000)]
    assert told == ["0 s", "59 s", "1 min 1 s", "2 h 1 min", "2 d 7 h"]
    assert board_words(BoardHealth(54.27, 0)) == "54.3 °C, power supply good"
    assert board_words(BoardHealth(None, 0x50001)) == "under-voltage now, throttling since boot"
