"""What the live sources are made of: addresses, outages, polling, a thread of one's own."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from edge_runtime.address import Address, endpoint, parse_address
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources.open_source import KINDS, open_source
from edge_runtime.sources.source import (
    LONGEST,
    Polled,
    Reading,
    Reconnecting,
    Source,
    SourceLostError,
    Threaded,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def reading(number: float) -> Reading:
    return Reading(number, np.array([number], np.float32))


class Scripted:
    """A source that does what it is told, one thing a read."""

    live = True

    def __init__(self, *plan: Reading | Exception | None) -> None:
        self.plan, self.closed = list(plan), 0

    def read(self, timeout: float | None) -> Reading | None:
        step = self.plan.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("name", ["-", "day.csv", "./a:b.csv", "/x/a:b", "2024-01-01T00:00.csv"])
def test_files_are_no_addresses(name: str) -> None:
    assert parse_address(name, KINDS) is None


def test_an_address_is_taken_apart() -> None:
    found = parse_address("serial:/dev/tty%20USB0?baud=9600&columns=a,b%26c", KINDS)
    assert found == Address("serial", "/dev/tty USB0", {"baud": "9600", "columns": "a,b&c"})
    assert str(found) == "serial:/dev/tty USB0" and found.count("baud", 1) == 9600


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seriell:/dev/x", "'seriell:' is unknown; there are serial:, mqtt:, .*write ./seriell:"),
        ("day:1.csv", "write ./day:… for a file of that name"),
        ("serial:", "'serial:' names nothing"),
        ("serial:/dev/x?speed=1", "has no such option; it has baud, columns"),
        ("python:x.py?a=b", "it has none"),
        ("serial:/dev/x?baud", "option baud needs one value: baud=VALUE"),
        ("serial:/dev/x?baud=1&baud=2", "option baud needs one value"),
        ("serial:/dev/x?baud=fast", "baud must be a whole number above 0"),
        ("serial:/dev/x?baud=0", "baud must be a whole number above 0"),
        ("modbus:host/1?registers=a:holding:1:int16", "is written modbus://HOST:PORT/"),
        ("modbus://host:0/1", "is written modbus://HOST:PORT/"),
    ],
)
def test_an_address_is_read_strictly(text: str, words: str) -> None:
    with pytest.raises(GruardError, match=words):
        open_source(text, ("a",), 1.0, Complaints())


@pytest.mark.parametrize(
    "text",
    [
        "mqtt://user:hunter2@host/topic",
        "mqtt://host/topic?password=hunter2",
        "mqtt://host/topic?hunter2",
        "mqtt://host/topic?ca=hunter2&ca=hunter2",
        "mqtts://user:hunter2@host:x/topic?ca=1",
        "mqtt:/user:hunter2@host/topic",
        "ftp://user:hunter2@host/",
    ],
)
def test_no_refusal_shows_a_password(text: str) -> None:
    with pytest.raises(GruardError) as caught:
        open_source(text, ("a",), 1.0, Complaints())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("kind", ["iio:device0", "modbus://h/1", "mqtt://h/t/+"])
def test_what_is_asked_at_the_period_needs_one(kind: str) -> None:
    with pytest.raises(GruardError, match="sample period, which this bundle does not know"):
        open_source(kind, ("a",), None, Complaints())


def test_ipv6() -> None:
    found = endpoint(Address("modbus", "//[fe80::1]:502/1"), 1)
    assert (found.host, found.port, found.rest) == ("fe80::1", 502, "1")


class Outages:
    """A reconnecting source over sources by turns, and what it said."""

    def __init__(self, *turns: Source | Exception) -> None:
        self.turns, self.clock, self.log = list(turns), Clock(), list[str]()
        self.connected_at: list[float] = []
        self.complaints = Complaints(self.log.append, self.clock)
        self.source = Reconnecting(
            "it", self._connect, self.complaints, self.clock, self.clock.sleep
        )

    def _connect(self) -> Source:
        self.connected_at.append(self.clock.now - 1000)
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return turn


def test_a_lost_source_is_connected_again_and_both_is_told() -> None:
    first, second = Scripted(reading(1), OSError(5, "Input/output error")), Scripted(reading(2))
    world = Outages(first, SourceLostError("nobody there"), second)
    assert world.source.read(None) == reading(1)
    assert world.source.read(0.5) is None and first.closed == 1
    assert world.source.read(None) == reading(2)
    assert world.connected_at == [0.0, 1.0, 3.0]
    assert world.log == ["it: Input/output error; trying again", "it: is back"]
    assert world.complaints.outages == 1
    world.source.close()
    assert second.closed == 1


def test_attempts_become_rare_and_are_told_once_a_minute() -> None:
    world = Outages(*[SourceLostError("away")] * 9)
    assert world.source.read(100.0) is None
    assert world.connected_at == [0, 1, 3, 7, 15, 31, 61, 91]
    assert len(world.log) == 2 and "6 times since" in world.log[1] and LONGEST == 30
    assert world.complaints.outages == 1


def test_a_source_that_comes_and_goes_does_not_flood_the_log() -> None:
    turns = [Scripted(reading(n), SourceLostError("loose")) for n in range(20)]
    world = Outages(*turns)
    for n in range(20):
        assert world.source.read(None) == reading(n)
    assert world.complaints.outages == 19 and len(world.log) == 2


def test_a_users_mistake_is_refused_at_first_and_an_outage_later() -> None:
    with pytest.raises(GruardError):
        Outages(GruardError("no such channel")).source.read(None)
    world = Outages(Scripted(reading(1), OSError()), GruardError("not yet"), Scripted(reading(2)))
    assert [world.source.read(None), world.source.read(None)] == [reading(1), reading(2)]


def test_polling_keeps_to_the_period_and_leaves_out_what_it_missed() -> None:
    clock, times, costs = Clock(), list[float](), [0.3, 0.0, 2.5, 0.0, 0.0]

    def measure() -> Reading | None:
        times.append(clock.now - 1000)
        clock.now += costs[len(times) - 1]
        return None

    source = Polled(measure, 1.0, clock=clock, wait=clock.sleep)
    assert source.read(0.0) is None and times == [0.0]
    assert source.read(0.5) is None and times == [0.0]  # not yet due
    for _ in range(4):
        source.read(None)
    assert times == [0.0, 1.0, 2.0, 4.5, 5.0]


def wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(6000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("in vain")


class Blocking(Scripted):
    """A source that heeds no timeout: it blocks until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def read(self, timeout: float | None) -> Reading | None:
        self.released.wait()
        return reading(1)


def test_a_source_that_blocks_holds_up_nothing() -> None:
    blocking = Blocking()
    source = Threaded(blocking, "it", Complaints())
    assert source.read(0.0) is None
    blocking.released.set()
    assert source.read(None) == reading(1)
    source.close()
    assert blocking.closed == 1


def test_the_oldest_readings_are_dropped_and_counted() -> None:
    plan = [*(reading(n) for n in range(10)), EOFError()]
    complaints = Complaints()
    source = Threaded(Scripted(*plan), "it", complaints, length=3)
    wait_for(lambda: complaints.rows == 8)
    assert [source.read(None), source.read(None)] == [reading(8), reading(9)]
    with pytest.raises(EOFError):
        source.read(None)
    source.close()


def test_what_ends_a_source_is_raised_where_it_is_read() -> None:
    source = Threaded(Scripted(GruardError("broken for good")), "it", Complaints())
    with pytest.raises(GruardError, match="for good"):
        source.read(None)
    source.close()


def test_a_long_reason_of_others_is_one_short_line() -> None:
    log: list[str] = []
    Complaints(log.append).outage("it", "x\n\x1b[2J" + "y" * 999, first=True)
    assert len(log[0]) < 300 and log[0].isprintable()
