"""A service whose starts do not last waits longer each time, says so, and never gives up."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gruard_command import ENVIRONMENT, PATIENCE, ROWS, ask, gruard, start
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.supervision.liveness import Notifier
from edge_runtime.supervision.starts import BACK_OFF, FILE, LASTED, StartDelay


class StopError(BaseException):
    """A signal arrived."""


class Lives:
    """Starts of one service; the boot and the clock are the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.log, self.slept = folder, 1000.0, list[str](), 0.0
        self.boot_id_file = folder / "boot_id"
        self.boot_id_file.write_text("boot-1\n")
        self.said = list[str]()

    def start(self, until: Callable[[], None] = lambda: None) -> StartDelay:
        """The next start; `until` runs within each wait."""

        def sleep(seconds: float) -> None:
            until()
            self.now += seconds
            self.slept += seconds

        notifier = Notifier({}, lambda: self.now)
        notifier._send = self.said.append  # type: ignore[method-assign]
        self.slept, clock = 0.0, lambda: self.now
        return StartDelay(self.folder, notifier, clock, sleep, self.log.append, self.boot_id_file)

    def fail(self) -> float:
        """A start that raises; what it waited for."""
        with pytest.raises(ValueError), self.start():
            raise ValueError
        return self.slept


def test_the_wait_grows_to_an_hour_and_it_is_never_given_up(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    waited = [lives.fail() for _ in range(8)]
    assert waited == [0.0, *BACK_OFF, BACK_OFF[-1], BACK_OFF[-1]]
    assert lives.log[0] == (
        "the last 2 starts did not last 10 minutes; this one waits 5 s; "
        "restart the service to start now"
    )
    assert sum("waits 3600 s to start" in line for line in lives.said) == 3
    assert lives.said[-1].endswith("STATUS=starts")


def test_the_service_manager_is_told_before_its_time_is_over(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    for _ in range(6):
        lives.fail()
    words = [line for line in lives.said if "STATUS=waits" in line]
    assert all(line.startswith("EXTEND_TIMEOUT_USEC=90000000\n") for line in words)
    assert len(words) >= sum(BACK_OFF) / 10  # one in ten seconds, and each asks for ninety


def test_a_run_that_lasted_owes_nothing(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    for _ in range(4):
        lives.fail()
    with lives.start() as delay:
        pass
    lives.now += LASTED - 1
    delay.beat(1, str)
    assert json.loads((tmp_path / FILE).read_text())["failed"] == 5
    lives.now += 1
    delay.beat(2, str)
    assert json.loads((tmp_path / FILE).read_text())["failed"] == 0
    assert lives.fail() == 0.0 and lives.fail() == BACK_OFF[0] and lives.fail() == BACK_OFF[1]


def test_a_stop_while_it_waits_or_assembles_lets_the_next_start_begin_at_once(
    tmp_path: Path,
) -> None:
    lives = Lives(tmp_path)
    for _ in range(4):
        lives.fail()

    def stop() -> None:
        raise StopError

    with pytest.raises(StopError), lives.start(until=stop):
        raise AssertionError("it did not wait")
    assert lives.fail() == 0.0
    for _ in range(3):
        lives.fail()
    with pytest.raises(StopError), lives.start():
        raise StopError
    assert lives.fail() == 0.0


def test_another_boot_begins_anew(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    for _ in range(4):
        lives.fail()
    lives.boot_id_file.write_text("boot-2\n")
    assert lives.fail() == 0.0


@given(
    junk=st.binary(max_size=200)
    | st.builds(
        lambda data: json.dumps(data).encode(),
        st.fixed_dictionaries(
            {"boot_id": st.just("boot-1"), "failed": st.none() | st.integers() | st.floats()}
        ),
    )
)
def test_a_damaged_count_is_no_error(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    lives = Lives(tmp_path_factory.mktemp("state"))
    (lives.folder / FILE).write_bytes(junk)
    assert lives.fail() in (0.0, *BACK_OFF)
    assert lives.fail() in BACK_OFF


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_where_nothing_can_be_kept_nothing_is_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / FILE)
    lives = Lives(tmp_path)
    assert [lives.fail() for _ in range(4)] == [0.0] * 4
    assert "starts that do not last are not delayed" in lives.log[0]


# The whole command.


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager's end of the notification socket; the state folder is `tmp_path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(PATIENCE)
        monkeypatch.setitem(ENVIRONMENT, "NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setitem(ENVIRONMENT, "STATE_DIRECTORY", str(tmp_path))
        yield channel


@pytest.mark.long
def test_a_service_that_fails_at_once_waits_and_a_stop_makes_it_start_at_once(
    manager: socket.socket, tmp_path: Path
) -> None:
    for _ in range(2):
        assert gruard("run", "x", "--source", str(tmp_path / "none.csv")).returncode == 2
    with start("run", "x", "--source", "-") as process:
        while "STATUS=waits 5 s to start: the last 2 starts" not in manager.recv(4096).decode():
            pass
        process.terminate()
        stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and stdout == b"" and b"Traceback" not in stderr
    assert b"this one waits 5 s" in stderr
    with start("run", "x", "--source", "-") as process:
        ask(process, b"a,b\n")
        assert ask(process, b"1,2\n")
        process.terminate()
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and b"waits" not in stderr
    assert json.loads((tmp_path / FILE).read_text())["failed"] == 0


def test_by_hand_nothing_is_counted(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    arguments = ("run", "x", "--source", str(tmp_path / "rows.csv"), "--state", str(tmp_path))
    assert gruard(*arguments).returncode == 0
    assert not (tmp_path / FILE).exists()
