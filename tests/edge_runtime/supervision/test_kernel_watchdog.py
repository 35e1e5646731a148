"""The kernel's watchdog, with a fake at the edge of the OS: a file for writes, one ioctl."""

import errno
import os
import pty
import signal
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from gruard_command import ENVIRONMENT, PATIENCE, ask, gruard, plain_error, start
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import GruardError
from edge_runtime.supervision.liveness import (
    CARD_RESET,
    GET_BOOT_STATUS,
    GET_TIMEOUT,
    SET_TIMEOUT,
    KernelWatchdog,
    require_unwatched,
    require_usable,
    was_watchdog_reset,
)


class Driver:
    """What a driver answers: a number or an errno for each request; and what was asked."""

    def __init__(self, **answers: int | OSError) -> None:
        self.answers, self.asked = answers, []

    def __call__(self, fd: int, request: int, arg: bytearray, mutate_flag: bool, /) -> int:
        name = {
            SET_TIMEOUT: "set",
            GET_TIMEOUT: "get",
            GET_BOOT_STATUS: "boot",
        }[request]
        self.asked.append((name, struct.unpack("i", arg)[0]))
        answer = self.answers.get(name, OSError(errno.ENOTTY, "not supported"))
        if isinstance(answer, OSError):
            raise answer
        arg[:] = struct.pack("i", answer)
        return 0


class Dog:
    """A watchdog on a regular file, the clock in the test's hand."""

    def __init__(self, file: Path, driver: Driver, timeout: int = 10) -> None:
        self.file, self.now, self.log = file, 100.0, []
        self.watchdog = KernelWatchdog(file, timeout, lambda: self.now, self.log.append, driver)

    def beat(self, now: float) -> None:
        self.now = now
        self.watchdog.beat(0, lambda: pytest.fail("a watchdog needs no words"))

    @property
    def written(self) -> bytes:
        return self.file.read_bytes()


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "watchdog"
    path.touch()
    return path


def test_armed_when_ready_fed_by_steps_and_disarmed_by_a_good_end(device: Path) -> None:
    driver = Driver(set=10, get=10, boot=0)
    dog = Dog(device, driver)
    dog.beat(99.0)
    assert driver.asked == [] and dog.written == b""  # loading is not watched
    dog.watchdog.ready("loaded")
    assert driver.asked == [("set", 10), ("get", 0), ("boot", 0)]
    for now in (100.0, 100.5, 101.0, 101.2, 102.1):
        dog.beat(now)
    dog.watchdog.stopping()
    assert dog.written == b"\0\0\0"
    dog.watchdog.ended()
    assert dog.written == b"\0\0\0V"
    dog.beat(200.0)
    dog.watchdog.ended()
    assert dog.written == b"\0\0\0V"
    assert dog.log == [f"{device} resets this machine after 10 s without an answered sample"]


def test_an_error_leaves_it_armed(device: Path) -> None:
    dog = Dog(device, Driver(set=10, get=10))
    dog.watchdog.ready("loaded")
    dog.watchdog.stopping()  # and `ended` never comes
    assert b"V" not in dog.written


@given(
    asked=st.integers(1, 14),
    granted=st.integers(1, 60),
    steps=st.lists(st.floats(0.01, 0.25), min_size=1, max_size=400),
)
def test_fed_in_time_but_rarely_whatever_the_driver_grants(
    tmp_path_factory: pytest.TempPathFactory, asked: int, granted: int, steps: list[float]
) -> None:
    file = tmp_path_factory.mktemp("dog") / "watchdog"
    file.touch()
    dog = Dog(file, Driver(set=granted, get=granted), asked)
    dog.watchdog.ready("loaded")
    fed = [dog.now]
    for step in steps:
        before = len(dog.written)
        dog.beat(dog.now + step)
        if len(dog.written) > before:
            fed.append(dog.now)
    interval = min(1.0, granted / 4)
    pauses = [later - earlier for earlier, later in pairwise(fed[1:])]
    assert all(interval - 1e-6 <= pause <= interval + 0.25 + 1e-6 for pause in pauses)
    assert all(pause < granted for pause in pauses)
    dog.watchdog.ended()


def test_a_driver_with_a_time_out_of_its_own(device: Path) -> None:
    dog = Dog(device, Driver(get=4))
    dog.watchdog.ready("loaded")
    assert "after 4 s" in dog.log[0]
    dog = Dog(device, Driver())
    dog.watchdog.ready("loaded")
    assert "the time-out of its driver" in dog.log[0]
    dog.beat(101.0)
    assert dog.written == b"\0"


def test_a_refused_time_out_disarms_and_says_what_to_do(device: Path) -> None:
    dog = Dog(device, Driver(set=OSError(errno.EINVAL, "Invalid argument")), timeout=14)
    with pytest.raises(GruardError, match=r"14 s \(Invalid argument\).*--watchdog-timeout"):
        dog.watchdog.ready("loaded")
    assert dog.written == b"V"


@pytest.mark.parametrize(("status", "told"), [(0, False), (CARD_RESET, True), (0x21, True)])
def test_the_last_reset_is_told(device: Path, status: int, told: bool) -> None:
    dog = Dog(device, Driver(set=10, get=10, boot=status))
    dog.watchdog.ready("loaded")
    assert any("the last reset" in line for line in dog.log) == told


def test_a_device_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(GruardError, match="cannot be opened"):
        Dog(tmp_path / "gone", Driver()).watchdog.ready("loaded")


def test_a_device_in_use_is_explained(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*arguments: object) -> int:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(GruardError, match="RuntimeWatchdogSec="):
        Dog(device, Driver()).watchdog.ready("loaded")


def test_a_device_that_breaks_is_told_once_and_ends_nothing() -> None:
    dog = Dog(Path("/dev/full"), Driver(set=10, get=10))
    dog.watchdog.ready("loaded")
    for now in (101.0, 103.0, 105.0):
        dog.beat(now)
    dog.watchdog.ended()
    assert [line for line in dog.log if "fed" in line] == [
        "/dev/full: cannot be fed (No space left on device)"
    ]
    assert "cannot be disarmed" in dog.log[-1]


def test_what_can_be_refused_is_refused_before_loading(device: Path) -> None:
    with pytest.raises(GruardError, match="is no watchdog device"):
        require_usable(device, 1.0, 14)
    with pytest.raises(GruardError, match="10 s apart"):
        require_usable(Path("/dev/null"), 10.0, 14)
    require_usable(Path("/dev/null"), 7.0, 14)
    require_usable(Path("/dev/null"), None, 1)


def test_two_watchdogs_are_refused() -> None:
    with pytest.raises(GruardError, match="systemd watches this process already"):
        require_unwatched({"WATCHDOG_USEC": "30000000"})
    require_unwatched({})


@pytest.mark.parametrize(
    ("content", "reset"), [(b"32\n", True), (b"33", True), (b"0\n", False), (b"\xff junk", False)]
)
def test_sysfs_tells_without_arming(tmp_path: Path, content: bytes, reset: bool) -> None:
    (tmp_path / "watchdog0").mkdir()
    assert not was_watchdog_reset(tmp_path)
    (tmp_path / "watchdog0" / "bootstatus").write_bytes(content)
    assert was_watchdog_reset(tmp_path) == reset
    assert not was_watchdog_reset(tmp_path / "nowhere")


# The whole command, on a terminal as the device: it takes writes and knows no watchdog's ioctl.


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    ours, theirs = pty.openpty()
    yield ours, os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def heard(fd: int) -> bytes:
    os.set_blocking(fd, False)
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize(
    ("number", "disarmed"),
    [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGKILL, False)],
)
def test_only_a_good_end_of_the_command_disarms(
    terminal: tuple[int, str], number: signal.Signals, disarmed: bool
) -> None:
    fd, device = terminal
    with start("run", "x.gruard", "--source", "-", "--watchdog", device) as process:
        ask(process, b"a,b\n")
        ask(process, b"1,2\n")
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
    assert heard(fd).endswith(b"V") == disarmed


def test_the_end_of_the_source_disarms(terminal: tuple[int, str]) -> None:
    fd, device = terminal
    done = gruard("run", "x", "--source", "-", "--watchdog", device, stdin="a,b\n1,2\n")
    assert done.returncode == 0 and heard(fd) == b"\0V"
    assert f"{device} resets this machine after the time-out of its driver" in done.stderr


def test_systemd_and_a_watchdog_of_our_own_are_one_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = tmp_path / "out.jsonl"
    words = ("run", "x", "--source", "-", "--watchdog", "/dev/null", "--sink", str(sink))
    monkeypatch.setitem(ENVIRONMENT, "WATCHDOG_USEC", "30000000")
    assert "systemd watches" in plain_error(gruard(*words, stdin="a,b\n1,2\n"))
    assert not sink.exists()


@pytest.mark.parametrize("timeout", ["0", "15", "x"])
def test_the_time_out_is_bounded(timeout: str) -> None:
    done = gruard("run", "x", "--source", "-", "--watchdog-timeout", timeout)
    assert done.returncode == 2 and "--watchdog-timeout" in done.stderr
