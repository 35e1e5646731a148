"""What a user names is a file, one for each use; nothing else is opened, and nothing waits."""

import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_runtime.commands.main import gruard
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.files import open_input, output, refuse_one_file_twice
from edge_runtime.sources.open_source import open_source

ROWS = "time,a\n0,1\n1,2\n"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    (tmp_path / "hard.csv").hardlink_to(path)
    (tmp_path / "soft.csv").symlink_to(path)
    return path


def special(folder: Path, name: str) -> Path:
    path = folder / name
    if name == "pipe":
        os.mkfifo(path)
    if name == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is a directory, not a file; name a CSV file"),
        ("socket", "is a socket, not a file; name a CSV file"),
        ("/dev/zero", "is a device, not a file; write serial:/dev/zero for a serial port"),
    ],
)
def test_a_source_that_is_no_file_is_refused(tmp_path: Path, name: str, words: str) -> None:
    path = special(tmp_path, name)
    with pytest.raises(GruardError, match=f"{path}: {words}"):
        open_source(str(path), ("a",), 1.0, Complaints())


@pytest.mark.parametrize("name", ["", "pipe", "socket", "/dev/zero"])
def test_nothing_but_a_file_is_opened(tmp_path: Path, name: str) -> None:
    path = special(tmp_path, name)
    with pytest.raises(GruardError, match=rf"{path}: is a .*, not a file; do better"):
        open_input(path, "do better")
    with (
        pytest.raises(GruardError, match="not a file; name another --out"),
        output(str(path), True),
    ):
        pass


def test_a_scratch_file_of_somebody_else_is_not_written_through(tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out.csv"
    victim.write_text("precious")
    (tmp_path / f".out.csv.{os.getpid()}").symlink_to(victim)
    with output(str(out), False) as stream:
        stream.write("row\r\n")
    assert victim.read_text() == "precious" and out.read_bytes() == b"row\r\n"
    assert sorted(tmp_path.iterdir()) == [out, victim]


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind is looked at before the file is opened, and once more after that."""
    really = os.open

    def exchange(path: Path, flags: int, mode: int) -> int:
        rows.unlink()
        os.mkfifo(rows)
        return really(path, flags, mode)

    monkeypatch.setattr(os, "open", exchange)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(GruardError, match="is a named pipe, not a file"):
        open_input(rows, "")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    "words",
    [
        ("--sink", "rows.csv", "--force"),
        ("--sink", "hard.csv", "--append"),
        ("--sink", "x/../soft.csv", "--force"),
        ("--sink", "-", "--status", "hard.csv"),
        ("--sink", "new.json", "--status", "./new.json"),
    ],
)
def test_a_run_on_one_file_twice_is_refused(
    rows: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(rows.parent)
    Path("x").mkdir()
    arguments = ["run", "x.gruard", "--source", "rows.csv", *words]
    with pytest.raises(GruardError, match="are one file; name another --s"):
        CliRunner().invoke(gruard, arguments, catch_exceptions=False)
    assert rows.read_text() == ROWS and not Path("new.json").exists()


def test_a_replay_onto_its_recording_is_refused(rows: Path) -> None:
    link = str(rows.with_name("soft.csv"))
    with pytest.raises(GruardError, match=r"DATA .* and --out .* are one file; name another --out"):
        CliRunner().invoke(
            gruard, ["replay", "x", str(rows), "--out", link, "--force"], catch_exceptions=False
        )
    assert rows.read_text() == ROWS


def test_a_redirected_descriptor_counts_as_its_file(rows: Path) -> None:
    """`gruard run --source - < rows.csv >> rows.csv` would never end."""
    with rows.open() as stdin, rows.open("a") as stdout:
        for pair in (
            [("--source", stdin.fileno()), ("--sink", stdout.fileno())],
            [("--source", stdin.fileno()), ("--sink", str(rows))],
            [("--source", str(rows)), ("--sink", stdout.fileno())],
        ):
            with pytest.raises(GruardError, match="are one file; name another --sink"):
                refuse_one_file_twice(pair)


def test_devices_and_ends_of_different_pipes_are_not_one_file() -> None:
    first, second = os.pipe(), os.pipe()
    with open("/dev/null") as null:  # noqa: PTH123
        refuse_one_file_twice([("--source", null.fileno()), ("--sink", "/dev/null")])
    refuse_one_file_twice([("--source", first[0]), ("--sink", second[1])])
    with pytest.raises(GruardError, match="are one file"):
        refuse_one_file_twice([("--source", first[0]), ("--sink", first[1])])
    for fd in (*first, *second):
        os.close(fd)
