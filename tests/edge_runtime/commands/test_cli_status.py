"""`gruard status` and `gruard top` as a user meets them: real runs, signals and terminals."""

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from gruard_command import ENVIRONMENT, PATIENCE, ROWS, ask, gruard, plain_error, real_gruard, start
from made_snapshot import SNAPSHOT

from edge_runtime.status.snapshot import Snapshot, read_status, write_status
from tests.apparatus.mosquitto import Broker


def until(path: Path, told: Callable[[Snapshot], bool]) -> Snapshot:
    """The first snapshot that tells it; the file is written by a thread of the run."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        snapshot = read_status(path)
        if snapshot is not None and told(snapshot):
            return snapshot
        time.sleep(0.01)
    raise AssertionError("the status file never told it")


def status(path: Path) -> tuple[int, str]:
    """Exit code and state; the words are checked to go with it."""
    words = real_gruard("status", str(path))
    done = real_gruard("status", str(path), "--json")
    verdict = json.loads(done.stdout)
    assert words.returncode == done.returncode == verdict["code"]
    assert words.stdout.splitlines()[0].split(" for ")[0] == verdict["text"].split(" for ")[0]
    return done.returncode, verdict["state"]


def run_one_row(path: Path, row: bytes, plan: str = "none@0") -> "subprocess.Popen[bytes]":
    process = start("run", "x.gruard", "--source", "-", "--status", str(path), plan=plan)
    ask(process, b"a,b\n")
    ask(process, row)
    until(path, lambda snapshot: snapshot.answer is not None)
    return process


@pytest.fixture
def samples_are_an_hour_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no gap comes between two looks at a run, however slow this machine is."""
    monkeypatch.setitem(ENVIRONMENT, "FAKE_PERIOD", "3600")


@pytest.mark.usefixtures("samples_are_an_hour_apart")
@pytest.mark.parametrize(
    ("row", "plan", "code", "state"),
    [
        (b"1,2\n", "none@0", 0, "healthy"),
        (b"500,2\n", "none@0", 1, "alarm"),
        (b"1,2\n", "load:fail", 3, "fallback"),
    ],
)
def test_a_living_run_and_its_end(
    tmp_path: Path, row: bytes, plan: str, code: int, state: str
) -> None:
    path = tmp_path / "status.json"
    with run_one_row(path, row, plan) as process:
        assert status(path) == (code, state)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and status(path) == (3, "ended")
    last = read_status(path)
    assert last is not None and last.process.pid == process.pid and last.counts.records == 1
    assert (last.model.name, last.model.version) == ("fake", 1)


@pytest.mark.usefixtures("samples_are_an_hour_apart")
def test_a_run_without_a_sample_says_what_it_waits_for_and_goes_on_saying_so(
    tmp_path: Path,
) -> None:
    path, sensor = tmp_path / "status.json", tmp_path / "sensor.py"
    sensor.write_text("def open_sensor(channels, period):\n    raise OSError('no such bus')\n")
    with start("run", "x", "--source", f"python:{sensor}", "--status", str(path)) as process:
        first = until(path, lambda told: told.model.phase == "serving")
        until(path, lambda told: told.process.told > first.process.told)  # it turns by itself
        done = real_gruard("status", str(path))
        process.terminate()
        process.communicate(timeout=PATIENCE)
    line = done.stdout.splitlines()[0]
    assert done.returncode == 3 and line.startswith("waiting for the first sample since ")
    assert "OSError: no such bus" in line


def test_every_thread_of_a_run_shows_in_status_metrics_and_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's list of threads is the judge: none may be there that nobody watches."""
    monkeypatch.setitem(
        ENVIRONMENT, "OPENBLAS_NUM_THREADS", "1"
    )  # numpy's own are no threads of ours
    path, sensor = tmp_path / "status.json", tmp_path / "sensor.py"
    sensor.write_text(
        "import time\nfrom edge_runtime.sources.source import Reading\n"
        "class Sensor:\n    live = True\n"
        "    def read(self, timeout):\n        time.sleep(0.01)\n"
        "        return Reading(None, [1.0, 2.0])\n"
        "    def close(self):\n        pass\n"
        "def open_sensor(channels, period):\n    return Sensor()\n"
    )
    arguments = ("--status", str(path), "--metrics", "0", "--journal", str(tmp_path / "journal"))
    broker = Broker(tmp_path)
    sinks = ("--sink", broker.address(), "--sink", str(tmp_path / "out.jsonl"))
    source = ("--source", f"python:{sensor}")
    with start("run", "x", *source, *sinks, *arguments, "--json") as process:
        assert process.stderr
        address = process.stderr.readline().decode().split()[-1]
        told = until(path, lambda told: told.answer is not None)
        names = {thread.name.partition(" ")[0] for thread in told.threads if thread.alive}
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        in_kernel = [(task / "comm").read_text().strip() for task in tasks]
        with urlopen(address, timeout=PATIENCE) as page:
            served = page.read().decode()
        process.terminate()
        _, stderr = process.communicate(timeout=PATIENCE)
    broker.kill()
    assert names >= {"status", "metrics", "journal", "source", "sink"}
    assert sum("plant/pump, " in thread.name for thread in told.threads) == 2
    alive = sum(thread.alive for thread in told.threads)
    assert len(in_kernel) == alive + 1, (in_kernel, told.threads)  # and the loop itself
    for thread in told.threads:
        assert f'gruard_thread_alive{{thread="{thread.name}"}} 1\n' in served
    summary = json.loads(stderr.splitlines()[-1])
    assert [thread["name"] for thread in summary["threads"]] == [t.name for t in told.threads]
    assert all(thread["restarts"] == 0 for thread in summary["threads"])


def test_a_stopped_and_a_killed_run_are_told(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    with run_one_row(path, b"500,2\n") as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert status(path) == (3, "stopped")
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert status(path) == (3, "gone")
    assert status(path) == (3, "gone")


def test_a_terminated_run_has_ended_in_good_order(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    with run_one_row(path, b"1,2\n") as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert status(path) == (3, "ended")


def test_a_service_needs_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(ROWS)
    monkeypatch.setitem(ENVIRONMENT, "RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    assert gruard("run", "x", "--source", str(rows)).returncode == 0
    done = real_gruard("status")
    assert done.returncode == 3 and "ended in good order" in done.stdout


def test_without_a_file_nothing_runs(tmp_path: Path) -> None:
    assert status(tmp_path / "none.json") == (3, "missing")


def test_what_is_no_status_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "day.csv"
    other.write_text(ROWS)
    assert "not a status file" in plain_error(real_gruard("status", str(other)))
    refused = gruard("run", "x", "--source", "-", "--status", str(other))
    assert "not a status file" in plain_error(refused) and other.read_text() == ROWS


def test_a_special_file_in_the_place_of_the_status_is_refused_without_waiting(
    tmp_path: Path,
) -> None:
    fifo = tmp_path / "status.json"
    os.mkfifo(fifo)
    said = "is a named pipe, not a file"
    assert said in plain_error(real_gruard("status", str(fifo)))
    assert said in plain_error(gruard("run", "x", "--source", "-", "--status", str(fifo)))
    assert fifo.is_fifo()


def test_a_run_serves_metrics() -> None:
    with start("run", "x", "--source", "-", "--metrics", "0") as process:
        assert process.stderr
        line = process.stderr.readline().decode()
        assert line.startswith("gruard: metrics at http://127.0.0.1:")
        ask(process, b"a,b\n")
        ask(process, b"1,2\n")
        with urlopen(line.split()[-1], timeout=PATIENCE) as page:
            assert b'gruard_info{bundle="fake"' in page.read()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_a_taken_port_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    sink = tmp_path / "out.jsonl"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = gruard("run", "x", "--source", "-", "--sink", str(sink), "--metrics", address)
    assert "in use" in plain_error(done) and not sink.exists()


def test_a_reader_needs_no_numpy() -> None:
    code = (
        "import sys\n"
        "from edge_runtime.status import health, screen, snapshot\n"
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert done.stdout == "False\n"


def test_top_refuses_what_is_no_terminal(tmp_path: Path) -> None:
    assert "this is none; use gruard status" in plain_error(real_gruard("top", str(tmp_path)))


@pytest.mark.parametrize("leave", [b"q", b"\x03", signal.SIGTERM])
def test_top_follows_the_terminal_and_gives_it_back(
    tmp_path: Path, leave: bytes | signal.Signals
) -> None:
    path = tmp_path / "status.json"
    write_status(path, replace(SNAPSHOT, process=replace(SNAPSHOT.process, ended=True)))
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-m", "edge_runtime", "top", str(path)]
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=ENVIRONMENT,
        preexec_fn=own_terminal,
    ) as process:
        shown = b""
        while b"q quits" not in shown:
            shown += os.read(ours, 65536)
        assert b"ended in good order" in shown and termios.tcgetattr(theirs) != before
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 12, 30, 0, 0))
        while not re.search(r"q quits   .{19}…".encode(), shown):
            shown += os.read(ours, 65536)
        os.write(ours, leave) if isinstance(leave, bytes) else process.send_signal(leave)
        while b"\x1b[?1049l" not in shown:
            shown += os.read(ours, 65536)
        assert process.wait(PATIENCE) == 0
    assert b"Traceback" not in shown and b"\x1b[?25h" in shown
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def own_terminal() -> None:
    """In the child: a session whose terminal is stdin, so that Ctrl-C there reaches it."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
