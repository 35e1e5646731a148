"""What has to be a regular file is opened without waiting, whatever lies there."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.files import open_regular, read_regular


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


SPECIAL = [
    (fifo, "is a named pipe, not a file"),
    (device, "is a device, not a file"),
    (folder, "is a directory, not a file"),
    (unix_socket, "is a socket, not a file"),
]


@pytest.mark.parametrize(("make", "reason"), SPECIAL)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT])
def test_something_else_is_refused_by_its_name(
    tmp_path: Path, make: Callable[[Path], None], reason: str, flags: int
) -> None:
    path = tmp_path / "it"
    make(path)
    with pytest.raises(OSError) as refused:
        open_regular(path, flags)
    assert refused.value.strerror == reason


def test_a_file_is_read_whole_or_refused_and_made_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "it"
    with pytest.raises(FileNotFoundError):
        read_regular(path, 10)
    file = open_regular(path, os.O_WRONLY | os.O_CREAT)
    os.write(file, b"0123456789ab")
    os.close(file)
    assert read_regular(path, 12) == b"0123456789ab"
    with pytest.raises(ValueError, match="is larger than 11 bytes"):
        read_regular(path, 11)
