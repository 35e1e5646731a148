"""sd_notify against a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.supervision.liveness import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The NOTIFY_SOCKET value and the manager's end of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        name = f"@gruard-test-{os.getpid()}" if request.param == "abstract" else f"{tmp_path}/n"
        channel.bind(name.replace("@", "\0"))
        channel.setblocking(False)
        yield name, channel


def heard(channel: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(channel.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_a_whole_run(manager: tuple[str, socket.socket]) -> None:
    name, channel = manager
    now = [50.0]
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "4000000"}, lambda: now[0])
    notifier.ready("loaded")
    for second in range(5):
        now[0] = 50.0 + second
        notifier.beat(second, lambda second=second: f"sample {second}")
    notifier.stopping()
    assert heard(channel) == [
        "READY=1\nSTATUS=loaded",
        "WATCHDOG=1\nSTATUS=sample 0",
        "WATCHDOG=1\nSTATUS=sample 2",
        "WATCHDOG=1\nSTATUS=sample 4",
        "STOPPING=1",
    ]


@pytest.mark.parametrize(
    "watchdog",
    [{}, {"WATCHDOG_USEC": "junk"}, {"WATCHDOG_USEC": "0"},
     {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}],
)  # fmt: skip
def test_no_watchdog_is_fed_that_is_not_ours(
    manager: tuple[str, socket.socket], watchdog: dict[str, str]
) -> None:
    name, channel = manager
    Notifier({"NOTIFY_SOCKET": name, **watchdog}, lambda: 0.0).beat(0, lambda: "alive")
    assert heard(channel) == ["STATUS=alive"]


def test_our_own_watchdog_pid_is_fed(manager: tuple[str, socket.socket]) -> None:
    name, channel = manager
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "9", "WATCHDOG_PID": str(os.getpid())}
    Notifier(environment, lambda: 0.0).beat(0, lambda: "alive")
    assert heard(channel) == ["WATCHDOG=1\nSTATUS=alive"]


def test_without_a_manager_nothing_is_done() -> None:
    notifier = Notifier({}, lambda: 0.0)
    notifier.ready("x")
    notifier.beat(0, lambda: pytest.fail("no status is needed"))
    notifier.stopping()


def test_a_manager_that_vanished_is_no_reason_to_stop(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}, lambda: 0.0).ready("x")
