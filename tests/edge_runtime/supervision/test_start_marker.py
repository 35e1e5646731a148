"""The start marker: what the last run came to, whatever happened to it or to its file."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from gruard_command import ENVIRONMENT, PATIENCE, ask, gruard, plain_error, start
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import GruardError
from edge_runtime.plain import LARGEST_INTEGER
from edge_runtime.supervision.starts import (
    MARKER,
    WRITE_EVERY,
    Mark,
    StartedAfter,
    StartMarker,
    read_state,
    started_after,
    write_state,
)

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=40)
MARKS = st.builds(
    Mark,
    NAMES,
    st.integers(0, 1 << 22),
    st.none() | st.integers(0, LARGEST_INTEGER),
    st.booleans(),
)


class Life:
    """Runs one after the other on one state folder; the boot and the clock are the test's."""

    def __init__(self, folder: Path, boot_id: str = "boot-1") -> None:
        self.folder, self.now, self.log = folder, 0.0, []
        self.boot_id_file = folder / "boot_id"
        self.boot(boot_id)

    def boot(self, boot_id: str) -> None:
        self.boot_id_file.write_text(boot_id + "\n")

    def start(self, watchdog_reset: bool = False) -> StartMarker:
        log = self.log.append
        return StartMarker(self.folder, watchdog_reset, lambda: self.now, log, self.boot_id_file)

    @property
    def mark(self) -> Mark | None:
        return read_state(self.folder / MARKER, Mark)


def test_a_whole_life(tmp_path: Path) -> None:
    life = Life(tmp_path)
    first = life.start()
    assert first.started_after is StartedAfter.FIRST_START
    first.ended()
    second = life.start()  # gruard was stopped and started
    assert second.started_after is StartedAfter.CLEAN_STOP
    second.beat(7, str)
    third = life.start()  # killed: its last word is that it had just started
    assert third.started_after is StartedAfter.CRASH
    third.ended()
    life.boot("boot-2")
    fourth = life.start()
    assert fourth.started_after is StartedAfter.GOOD_REBOOT
    life.boot("boot-3")
    fifth = life.start()
    assert fifth.started_after is StartedAfter.POWER_LOSS
    life.boot("boot-4")
    assert life.start(watchdog_reset=True).started_after is StartedAfter.WATCHDOG_RESET
    # The watchdog's reset belongs to the boot, not to every start in it.
    assert life.start(watchdog_reset=True).started_after is StartedAfter.CRASH
    assert [line.partition(": ")[2] for line in life.log[1:]] == [
        "clean stop", "crash", "reboot in good order", "power loss or reset", "watchdog reset",
        "crash",
    ]  # fmt: skip


def test_the_file_is_written_at_most_once_a_minute(tmp_path: Path) -> None:
    life = Life(tmp_path)
    marker = life.start()
    assert life.mark == Mark("boot-1", os.getpid(), None, clean=False)
    for index, now in enumerate((0.0, WRITE_EVERY - 0.1, WRITE_EVERY, 2 * WRITE_EVERY - 0.1)):
        life.now = now
        marker.beat(index, str)
        assert life.mark.sample == (None if now < WRITE_EVERY else 2)
    marker.stopping()
    assert not life.mark.clean
    marker.ended()
    assert life.mark == Mark("boot-1", os.getpid(), 3, clean=True)
    life.start()
    assert life.log[-1] == "started after: clean stop; the last run had answered sample 3"


@given(mark=MARKS)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, mark: Mark) -> None:
    file = tmp_path_factory.mktemp("marker") / MARKER
    write_state(file, mark)
    assert read_state(file, Mark) == mark
    assert [path.name for path in file.parent.iterdir()] == [MARKER]  # no scratch file is left


@given(mark=st.none() | MARKS, boot_id=st.text(max_size=40), dog=st.booleans())
def test_every_case_has_one_verdict(mark: Mark | None, boot_id: str, dog: bool) -> None:
    verdict = started_after(mark, boot_id, dog)
    if mark is None or not mark.boot_id or not boot_id:
        assert verdict is StartedAfter.UNKNOWN
        return
    assert verdict not in (StartedAfter.UNKNOWN, StartedAfter.FIRST_START)
    in_this_boot = verdict in (StartedAfter.CLEAN_STOP, StartedAfter.CRASH)
    assert in_this_boot == (mark.boot_id == boot_id)
    if not in_this_boot:
        assert (verdict is StartedAfter.WATCHDOG_RESET) == dog
    if verdict is not StartedAfter.WATCHDOG_RESET:
        assert verdict.bad != mark.clean


@given(
    junk=st.binary(max_size=300)
    | st.builds(lambda data: json.dumps(data).encode(), st.dictionaries(
        st.sampled_from(["boot_id", "pid", "sample", "clean", "more"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()),
    ))
)  # fmt: skip
def test_a_corrupted_marker_is_unknown_and_no_error(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    life = Life(tmp_path_factory.mktemp("state"))
    (life.folder / MARKER).write_bytes(junk)
    readable = read_state(life.folder / MARKER, Mark)
    verdict = life.start().started_after
    assert readable is not None or verdict is StartedAfter.UNKNOWN
    assert life.start().started_after is StartedAfter.CRASH  # it was mended


@given(cut=st.integers(0, 200), at=st.integers(0, 200), bit=st.integers(0, 7))
def test_a_torn_or_flipped_marker_is_never_an_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, at: int, bit: int
) -> None:
    life = Life(tmp_path_factory.mktemp("state"))
    life.start().ended()
    file = life.folder / MARKER
    content = bytearray(file.read_bytes())
    content[at % len(content)] ^= 1 << bit
    file.write_bytes(content[:cut])
    assert life.start().started_after in StartedAfter


@pytest.mark.parametrize("content", [b"[" * 5000, b"9" * 5000, b'{"pid": ' + b"9" * 4000 + b"}"])
def test_a_huge_or_deep_marker_is_unknown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARKER).write_bytes(content)
    assert read_state(tmp_path / MARKER, Mark) is None


def test_a_folder_in_the_markers_place_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / MARKER).mkdir()
    life = Life(tmp_path)
    marker = life.start()
    assert marker.started_after is StartedAfter.UNKNOWN
    life.now = WRITE_EVERY
    marker.beat(1, str)
    marker.ended()
    told = [line for line in life.log if "cannot be written" in line]
    assert len(told) == 2 and "is a directory, not a file" in told[0]  # once a minute


def test_a_disk_that_became_read_only_is_told_once_a_minute_and_so_is_its_return(
    tmp_path: Path,
) -> None:
    life = Life(tmp_path)
    marker = life.start()
    (tmp_path / MARKER).unlink()
    (tmp_path / MARKER).mkdir()
    for _ in range(3):
        marker.ended()
    (tmp_path / MARKER).rmdir()
    marker.ended()
    told = [line.partition(": ")[2] for line in life.log[1:]]
    assert len(told) == 2 and "cannot be written" in told[0] and told[1] == "is written again"


@pytest.mark.parametrize(
    ("make", "kind"),
    [(os.mkfifo, "a named pipe"), (lambda path: path.symlink_to("/dev/zero"), "a device")],
)
def test_a_special_file_in_the_markers_place_is_neither_waited_for_nor_replaced(
    tmp_path: Path, make: Callable[[Path], None], kind: str
) -> None:
    make(tmp_path / MARKER)
    life = Life(tmp_path)
    marker = life.start()
    marker.ended()
    assert marker.started_after is StartedAfter.UNKNOWN
    assert any(f"cannot be written (is {kind}, not a file)" in line for line in life.log)
    assert not (tmp_path / MARKER).is_file()


def test_an_unreadable_boot_id_makes_it_unknown(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.start().ended()
    life.boot_id_file.unlink()
    assert life.start().started_after is StartedAfter.UNKNOWN


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GruardError, match="create it first"):
        StartMarker(tmp_path / "no", False, float, print)


# The whole command.


def summary(*arguments: str) -> "dict[str, object]":
    done = gruard("run", "x", "--source", "-", "--json", *arguments, stdin="a,b\n1,2\n")
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stderr.splitlines()[-1])
    return told


@pytest.mark.long
def test_the_summary_tells_how_the_last_run_ended(tmp_path: Path) -> None:
    assert summary()["started_after"] is None
    state = ("--state", str(tmp_path))
    assert summary(*state)["started_after"] == "first start"
    with start("run", "x", "--source", "-", *state) as process:
        ask(process, b"a,b\n")
        ask(process, b"1,2\n")
        process.kill()
        process.communicate(timeout=PATIENCE)
    assert summary(*state)["started_after"] == "crash"
    with start("run", "x", "--source", "-", *state) as process:
        ask(process, b"a,b\n")
        ask(process, b"1,2\n")
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=PATIENCE)
    assert b"last run     clean stop" in told
    assert summary(*state)["started_after"] == "clean stop"


def test_a_service_keeps_it_in_its_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "STATE_DIRECTORY", f"{tmp_path}:/another")
    assert summary()["started_after"] == "first start"
    assert read_state(tmp_path / MARKER, Mark).clean


def test_a_missing_state_folder_is_refused(tmp_path: Path) -> None:
    words = ("run", "x", "--source", "-", "--state", str(tmp_path / "no"))
    assert "create it first" in plain_error(gruard(*words, stdin="a,b\n1,2\n"))
