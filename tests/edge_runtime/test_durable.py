"""Replacing a file: whole or not at all, and nothing left behind."""

import os
import stat
from pathlib import Path

import pytest

from edge_runtime.files import Disk, replace_file, write_new


def test_the_new_content_and_mode_are_there(tmp_path: Path) -> None:
    file = tmp_path / "unit"
    file.write_text("old")
    replace_file(file, "new μ\n".encode(), 0o600)
    assert file.read_text(encoding="utf-8") == "new μ\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_the_old_one_and_no_scratch(tmp_path: Path) -> None:
    file = tmp_path / "unit"
    file.mkdir()
    with pytest.raises(OSError):
        replace_file(file, b"new")
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(OSError):
        replace_file(tmp_path / "no" / "unit", b"new")


class WatchedDisk(Disk):
    """Notes what is synced; a rename is interrupted when told so."""

    def __init__(self, interrupted: bool = False) -> None:
        self.synced: list[str] = []
        self.interrupted = interrupted

    def sync(self, path: Path) -> None:
        self.synced.append(path.name)
        super().sync(path)

    def rename(self, old: Path, new: Path) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        super().rename(old, new)


def test_the_bytes_are_synced_before_the_name_and_neither_where_it_need_not_last(
    tmp_path: Path,
) -> None:
    disk, file = WatchedDisk(), tmp_path / "file"
    replace_file(file, b"1", disk=disk)
    assert disk.synced == [f".file.{os.getpid()}", tmp_path.name]
    replace_file(file, b"2", disk=disk, durable=False)
    assert len(disk.synced) == 2 and file.read_bytes() == b"2"


def test_an_interruption_leaves_the_old_one_and_no_scratch(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        replace_file(file, b"new", disk=WatchedDisk(interrupted=True))
    assert list(tmp_path.iterdir()) == [file] and file.read_bytes() == b"old"


def test_the_mode_is_as_told_and_a_link_is_not_followed(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    other.write_text("precious")
    file.symlink_to(other)
    before = os.umask(0o077)
    try:
        write_new(file, b"new")
    finally:
        os.umask(before)
    assert file.read_bytes() == b"new" and not file.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert other.read_text() == "precious"
