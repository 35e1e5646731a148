"""`gruard record` and `gruard readings` as a user meets them: processes, signals, full disks."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from gruard_command import ENVIRONMENT, FAKE, PATIENCE

from edge_runtime.readings.parts import part_of
from edge_runtime.sources.csvfile import read_table
from edge_runtime.sources.source import TimeLimit

MODBUS = str(Path(__file__).parents[1] / "modbus_server.py")
GRUARD = [sys.executable, "-m", "edge_runtime"]
ROWS = "time,a,b\n" + "".join(f"{1764590000 + row},{row % 7},0.{row % 10}\n" for row in range(60))


def gruard(*words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [*GRUARD, *words],
        input=stdin, capture_output=True, text=True, env=ENVIRONMENT, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def start(*words: str, before: Sequence[str] = (), **environment: str) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*before, *GRUARD, *words],
        stdin=pipe, stdout=pipe, stderr=pipe, env={**ENVIRONMENT, **environment},
    )  # fmt: skip


def feed(process: "subprocess.Popen[bytes]", text: str) -> None:
    assert process.stdin
    process.stdin.write(text.encode())
    process.stdin.flush()


def until_written(folder: Path) -> None:
    """Wait until a part has rows."""
    limit = TimeLimit(PATIENCE)
    while not any(part_of(path.name) and path.stat().st_size for path in folder.glob("*")):
        assert limit.left(), "nothing was written"


def end(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    _, stderr = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in stderr, stderr
    return process.returncode, stderr.decode()


@pytest.fixture
def day(tmp_path: Path) -> str:
    path = tmp_path / "day.csv"
    path.write_text(ROWS)
    return str(path)


def test_a_recording_comes_back_as_the_file_that_training_and_run_read(
    day: str, tmp_path: Path
) -> None:
    pump, out = str(tmp_path / "pump"), str(tmp_path / "out.csv")
    done = gruard("record", "--source", day, "--out", pump, "--json")
    summary = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 0 and (summary["readings"], summary["lost"]) == (60, 0)
    assert gruard("readings", pump, "--out", out).returncode == 0
    one, other = read_table(day), read_table(out)
    assert one.channels == other.channels and (one.values == other.values).all()
    assert one.times is not None and other.times is not None
    assert one.times.tolist() == other.times.tolist()
    run = subprocess.run(
        [sys.executable, FAKE, "none@0", "run", "x", "--source", out,
         "--deadline", "30"],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert run.returncode == 0 and len(run.stdout.splitlines()) == 60


def test_the_same_command_goes_on_and_other_channels_are_refused(day: str, tmp_path: Path) -> None:
    pump = str(tmp_path / "pump")
    for _ in range(2):
        assert gruard("record", "--source", day, "--out", pump).returncode == 0
    assert len(gruard("readings", pump).stdout.splitlines()) == 121
    other = gruard("record", "--source", day, "--out", pump, "--channels", "a")
    assert other.returncode == 2 and "lacks b; name another folder" in other.stderr


@pytest.mark.long
def test_a_stretch_of_time(day: str, tmp_path: Path) -> None:
    pump = str(tmp_path / "pump")
    gruard("record", "--source", day, "--out", pump)

    def times(*words: str) -> list[int]:
        done = gruard("readings", pump, *words)
        assert done.returncode == 0, done.stderr
        return [int(float(row.split(",")[0])) - 1764590000 for row in done.stdout.split("\n")[1:-1]]

    assert times("--from", "9s") == [*range(50, 60)]
    assert times("--from", "-9s", "--to", "4s") == [*range(50, 55)]
    assert times("--to", "1764590003") == [0, 1, 2]
    start_ = "2025-12-01T11:53:30"
    assert times("--from", start_, "--to", "2025-12-01T12:53:32+01:00") == [10, 11]
    one = gruard("readings", pump, "--channels", "b", "--from", "0s").stdout
    assert one == "time,b\n1764590059.0,0.9\n"
    for words, told in (
        (("--from", "yesterday"), "is not a time"),
        (("--from", "2030-01-01"), "those there are 2025-12-01T11:53:20.000Z to"),
        (("--channels", "z"), "missing channels: z"),
    ):
        done = gruard("readings", pump, *words)
        assert done.returncode == 2 and told in done.stderr and not done.stdout


def test_a_reader_that_leaves_and_a_file_that_is_there(day: str, tmp_path: Path) -> None:
    pump, out = str(tmp_path / "pump"), tmp_path / "out.csv"
    gruard("record", "--source", day, "--out", pump)
    out.write_text("mine")
    assert gruard("readings", pump, "--out", str(out)).returncode == 2
    assert out.read_text() == "mine"
    assert gruard("readings", pump, "--out", str(out), "--force").returncode == 0
    process = subprocess.Popen(
        [*GRUARD, "readings", pump], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    assert process.stdout
    process.stdout.close()
    assert process.stderr and b"Broken" not in process.stderr.read()
    assert process.wait(PATIENCE) == 0
    process.stderr.close()


def test_a_damaged_part_is_told_and_the_rest_is_given(day: str, tmp_path: Path) -> None:
    pump = tmp_path / "pump"
    for _ in range(3):
        gruard("record", "--source", day, "--out", str(pump))
    (part,) = pump.glob("*.gz")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    done = gruard("readings", str(pump))
    assert done.returncode == 0 and 1 < len(done.stdout.splitlines()) < 181
    assert "damaged bytes" in done.stderr and "are missing" in done.stderr


def test_a_folder_without_a_whole_reading_is_told(day: str, tmp_path: Path) -> None:
    pump = tmp_path / "pump"
    gruard("record", "--source", day, "--out", str(pump))
    (part,) = pump.glob("*.gz")
    part.write_bytes(b"rot")
    done = gruard("readings", str(pump))
    assert done.returncode == 2 and done.stderr == f"gruard: {pump}: has no reading that is whole\n"


def test_a_process_that_is_killed_costs_its_last_seconds(tmp_path: Path) -> None:
    """SIGKILL while it writes without pause; the same command goes on."""
    pump = tmp_path / "pump"
    command = ("record", "--source", "-", "--out", str(pump))
    process = start(*command)
    feed(process, "time,a,b\n")
    fed = 0
    while not any(part_of(path.name) and path.stat().st_size > 20_000 for path in pump.glob("*")):
        feed(process, "".join(f"{row},{row % 97},1\n" for row in range(fed, fed + 1000)))
        fed += 1000
    process.kill()
    process.communicate()
    rows = gruard("readings", str(pump)).stdout.splitlines()[1:]
    assert rows == [f"{row}.0,{row % 97}.0,1.0" for row in range(len(rows))] and len(rows) > 1000
    done = gruard(*command, stdin="time,a,b\n-1,2,3\n")
    assert done.returncode == 0
    assert gruard("readings", str(pump)).stdout.splitlines()[1:] == [*rows, "-1.0,2.0,3.0"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
)
def test_a_signal_ends_it_in_good_order(tmp_path: Path, number: int, code: int) -> None:
    pump = tmp_path / "pump"
    process = start("record", "--source", "-", "--out", str(pump), "--json")
    feed(process, "a,b\n1,2\n3,4\n")
    until_written(pump)
    feed(process, "5,6\n")
    process.send_signal(number)
    returned, stderr = end(process)
    summary = json.loads(stderr.splitlines()[-1])
    assert returned == code and summary["lost"] == 0
    assert len(gruard("readings", str(pump)).stdout.splitlines()) == 1 + summary["readings"]
    assert summary["readings"] >= 1


def test_the_service_manager_hears_of_it(day: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        process = start(
            "record", "--source", day, "--out", str(tmp_path / "pump"),
            NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="30000000",
        )  # fmt: skip
        assert end(process)[0] == 0
        heard = [manager.recv(4096).decode() for _ in range(3)]
    assert [message.partition("\n")[0] for message in heard] == [
        "READY=1", "WATCHDOG=1", "STOPPING=1"
    ]  # fmt: skip


def test_two_recordings_in_one_folder_are_refused(tmp_path: Path) -> None:
    pump = tmp_path / "pump"
    process = start("record", "--source", "-", "--out", str(pump))
    feed(process, "a,b\n1,2\n")
    until_written(pump)
    other = gruard("record", "--source", "-", "--out", str(pump), stdin="a,b\n3,4\n")
    assert other.returncode == 2 and "another process records here" in other.stderr
    assert gruard("readings", str(pump)).returncode == 0  # to read is always allowed
    assert end(process)[0] == 0


@pytest.mark.slow
def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    """A disk of a megabyte that others have filled; it goes on when they make room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this machine gives no namespace to mount a disk in")
    mount = (
        'mount -t tmpfs -o size=1m none "$0" && head -c 990000 /dev/zero > "$0/other"; '
        '{ read room < "$0.orders"; rm "$0/other"; } & exec "$@"'
    )
    orders = tmp_path / "disk.orders"
    os.mkfifo(orders)
    pump = str(disk / "pump")
    process = start(
        "record", "--source", "-", "--out", pump, "--json",
        before=["unshare", "-rm", "sh", "-c", mount, str(disk)],
    )  # fmt: skip
    assert process.stderr
    feed(process, "time,a,b\n" + "".join(f"{row},1,2\n" for row in range(12_000)))
    for words in ("cannot be written (No space left on device)", "are written again"):
        line = ""
        while words not in line:
            line = process.stderr.readline().decode()
            assert line, "it ended"
        if words.startswith("cannot"):
            orders.write_text("room\n")
    returned, stderr = end(process)
    summary = json.loads(stderr.splitlines()[-1])
    assert summary["readings"] + summary["lost"] == 12_000 and summary["readings"] >= 10_000
    assert returned == (1 if summary["lost"] else 0)


def test_a_plc(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    device = subprocess.Popen([sys.executable, MODBUS, str(port)], stdout=subprocess.PIPE)
    assert device.stdout and device.stdout.readline() == b"listening\n"
    pump = tmp_path / "pump"
    registers = "flow:holding:40001:int16,level:input:1:int16:scale=0.5"
    source = f"modbus://127.0.0.1:{port}/1?registers={registers}"
    asked = gruard("record", "--source", source, "--out", str(pump))
    assert asked.returncode == 2 and "add --period" in asked.stderr
    process = start("record", "--source", source, "--period", "0.02", "--out", str(pump))
    until_written(pump)
    process.terminate()
    assert end(process)[0] == 0
    device.kill()
    device.communicate()
    rows = gruard("readings", str(pump)).stdout.splitlines()
    assert rows[0] == "time,flow,level" and len(rows) > 1
    assert {row.partition(",")[2] for row in rows[1:]} == {"500.0,-1.0"}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("mqtt://localhost/x", "--channels a,b,c"),
        ("mqtt://localhost/x/+", "add --period"),
        ("serial:/dev/ttyNONE", "?columns=a,b,c"),
        ("iio:device0?root=/nowhere", "add --period"),
        ("python:x.py", "add --period"),
        ("/nowhere.csv", "no such file"),
        ("what:ever", "is unknown"),
    ],
)
def test_what_cannot_be_recorded_is_told_with_what_to_do(
    source: str, told: str, tmp_path: Path
) -> None:
    done = gruard("record", "--source", source, "--out", str(tmp_path / "pump"))
    assert done.returncode == 2 and told in done.stderr
    assert not (tmp_path / "pump").exists()


def kept(folder: Path) -> list[str]:
    return gruard("readings", str(folder)).stdout.splitlines()[1:]


@pytest.mark.long
def test_a_run_keeps_its_readings(day: str, tmp_path: Path) -> None:
    pump = tmp_path / "kept"
    run = [
        sys.executable, FAKE, "none@0", "run", "x.gruard", "--source", day,
        "--deadline", "30", "--keep-readings", str(pump),
    ]  # fmt: skip
    for folder_has in (60, 120):
        done = subprocess.run(
            run, capture_output=True, text=True, env=ENVIRONMENT, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0 and len(done.stdout.splitlines()) == 60
        assert len(kept(pump)) == folder_has
    (pump / "channels.json").unlink()
    for part in pump.glob("*.gz"):
        part.unlink()
    gruard("record", "--source", day, "--out", str(pump), "--channels", "b")
    done = subprocess.run(
        run, capture_output=True, text=True, env=ENVIRONMENT, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 60
    assert "readings are not kept" in done.stderr and "has a besides" in done.stderr


def test_a_run_marks_its_alarms(tmp_path: Path) -> None:
    from edge_runtime.readings.parts import MARK, members

    pump = tmp_path / "kept"
    for alarm in ("0", "500"):
        rows = tmp_path / f"{alarm}.csv"
        rows.write_text("time,a,b\n" + "".join(f"{row},{alarm},1\n" for row in range(20)))
        subprocess.run(
            [sys.executable, FAKE, "none@0", "run", "x", "--source",
             str(rows), "--deadline", "30", "--keep-readings", str(pump)],
            capture_output=True, env=ENVIRONMENT, timeout=PATIENCE, check=True,
        )  # fmt: skip
        (part,) = pump.glob("*.gz")
        data = part.read_bytes()
        found = [member for member in members(data) if not member.text]
        assert (len(found) > 0) == (alarm == "500") == data.endswith(MARK)
    assert len(kept(pump)) == 40
