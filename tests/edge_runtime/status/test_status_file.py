"""The status file is always whole, and a disk that fails or hangs costs a run nothing."""

import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_snapshot import SNAPSHOT

from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.status import snapshot
from edge_runtime.status.snapshot import (
    Snapshot,
    StatusFile,
    place_of_service,
    read_status,
    service_file,
    write_status,
)

PATIENCE = 60
ROOT = str(Path(__file__).parents[3])
READER = """
import sys
from pathlib import Path
from typing import Any
from edge_runtime.status.snapshot import read_status
seen = []
while True:
    snapshot = read_status(Path(sys.argv[1]))  # raises when it is not whole
    if not seen:
        print("reading", flush=True)
    if not seen or seen[-1] != snapshot.counts.records:
        seen.append(snapshot.counts.records)
        if len(seen) == 100:
            print("enough", flush=True)
    if snapshot.process.ended:
        break
assert seen == sorted(seen)
"""


def numbered(number: int, ended: bool = False) -> Snapshot:
    counts = replace(SNAPSHOT.counts, records=number)
    trail = (0.5,) * (number % 121)  # so that the files have many lengths
    process = replace(SNAPSHOT.process, ended=ended)
    return replace(SNAPSHOT, counts=counts, trail=trail, process=process)


@pytest.mark.long
def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_status(path, numbered(0))
    command = [sys.executable, "-c", READER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as reader:
        assert reader.stdout and reader.stdout.readline() == "reading\n"
        number = 0
        while number < 4000 or not select.select([reader.stdout], [], [], 0)[0]:
            number += 1
            write_status(path, numbered(number))
        write_status(path, numbered(number, ended=True))
        assert reader.stdout.readline() == "enough\n"
        assert reader.wait(PATIENCE) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_a_scratch_file_of_somebody_else_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".status.json.{os.getpid()}").symlink_to(victim)
    path = tmp_path / "status.json"
    write_status(path, SNAPSHOT)
    assert victim.read_text() == "precious" and read_status(path) == SNAPSHOT


def test_everybody_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    before = os.umask(0o022)
    write_status(path, SNAPSHOT)
    os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_no_file_is_no_snapshot_and_another_file_is_refused(tmp_path: Path) -> None:
    assert read_status(tmp_path / "none") is None
    assert read_status(tmp_path / "none" / "none") is None
    other = tmp_path / "records.jsonl"
    for content in (b"{}\n{}\n", b"\xff\xfe", b"[" * 2_000_000):
        other.write_bytes(content)
        with pytest.raises(GruardError, match="not a status file"):
            read_status(other)
    with pytest.raises(GruardError, match="cannot be read"):
        read_status(tmp_path)


def test_a_recording_is_not_overwritten_by_a_slip(tmp_path: Path) -> None:
    recording = tmp_path / "day.csv"
    recording.write_text("a,b\n1,2\n")
    with pytest.raises(GruardError, match="not a status file"):
        StatusFile(recording, print)
    with pytest.raises(GruardError, match="there is no folder"):
        StatusFile(tmp_path / "no" / "status.json", print)
    assert recording.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: bytes(len(data)),
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"process", b"prozess"),
        lambda data: data.replace(b"}", b"]", 1),
    ],
)
def test_what_damage_left_of_a_status_file_is_replaced(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "status.json"
    write_status(path, SNAPSHOT)
    path.write_bytes(damage(path.read_bytes()))
    log: list[str] = []
    file = StatusFile(path, log.append)
    file.publish(SNAPSHOT)
    file.close()
    assert read_status(path) == SNAPSHOT and "it is replaced" in log[0]


def test_a_disk_that_fails_is_told_once_and_so_is_its_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, log = threading.Semaphore(0), []
    errors = [OSError(28, "No space left on device"), OSError(30, "Read-only file system"), None]

    def write(path: Path, snapshot: Snapshot) -> None:
        if error := errors.pop(0):
            raise error
        write_status(path, snapshot)

    def attempt(log: LimitedLog, *words: Any, real=LimitedLog.attempt_write) -> None:
        real(log, *words)
        written.release()

    monkeypatch.setattr(snapshot, "write_status", write)
    monkeypatch.setattr(LimitedLog, "attempt_write", attempt)
    file = StatusFile(tmp_path / "status.json", log.append)
    for number in range(3):
        file.publish(numbered(number))
        assert written.acquire(timeout=PATIENCE)
    file.close()
    told = read_status(tmp_path / "status.json")
    assert told is not None and told.counts.records == 2
    assert len(log) == 2
    assert "cannot be written (No space left on device)" in log[0]
    assert "written again" in log[1]


def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    back, hanging = threading.Event(), threading.Event()
    written = []

    def hang(path: Path, snapshot: Snapshot) -> None:
        hanging.set()
        assert back.wait(PATIENCE)
        written.append(snapshot.counts.records)

    monkeypatch.setattr(snapshot, "write_status", hang)
    monkeypatch.setattr(snapshot, "FAREWELL", 0.0)
    file = StatusFile(tmp_path / "status.json", print)
    file.publish(numbered(0))
    assert hanging.wait(PATIENCE)
    for number in range(1, 1000):
        file.publish(numbered(number))  # returns, or this test hangs
    file.close()
    back.set()
    monkeypatch.setattr(snapshot, "FAREWELL", PATIENCE)
    file.close()
    assert written == [0, 1]


def test_the_place_systemd_sets_aside() -> None:
    assert service_file({}) is None
    assert service_file({"RUNTIME_DIRECTORY": ""}) is None
    assert service_file({"RUNTIME_DIRECTORY": "/run/a:/run/b"}) == Path("/run/a/status.json")


def test_the_one_service_of_a_machine_is_found(tmp_path: Path) -> None:
    assert place_of_service(tmp_path) == tmp_path / "status.json"
    (tmp_path / "pump").mkdir()
    (tmp_path / "pump" / "status.json").touch()
    assert place_of_service(tmp_path) == tmp_path / "pump" / "status.json"
    (tmp_path / "status.json").touch()
    with pytest.raises(GruardError, match=r"several services run here, name one: .*pump"):
        place_of_service(tmp_path)
