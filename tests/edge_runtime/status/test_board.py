"""The board's health from a tree of small files, and what of it is news."""

from pathlib import Path

import pytest

from edge_runtime.status.board import BoardMonitor, changes, now_and_since_boot, read_health
from edge_runtime.status.snapshot import BoardHealth

THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
PATIENCE = 60


def board(root: Path, throttled: str | None = None, *degrees: str) -> Path:
    for zone, text in enumerate(degrees):
        file = root / f"sys/class/thermal/thermal_zone{zone}/temp"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if throttled is not None:
        (root / THROTTLED).parent.mkdir(parents=True, exist_ok=True)
        (root / THROTTLED).write_text(throttled)
    return root


def test_a_board_that_tells_nothing(tmp_path: Path) -> None:
    assert read_health(tmp_path) is None
    assert read_health(board(tmp_path, "rubbish", "", "x", "999999999")) is None


def test_a_raspberry_pi(tmp_path: Path) -> None:
    found = read_health(board(tmp_path, "50005\n", "48312\n", "54270\n"))
    assert found == BoardHealth(54.27, 0x50005)
    assert now_and_since_boot(0x50005) == (["under-voltage", "throttling"],) * 2


def test_another_board_has_a_temperature_alone(tmp_path: Path) -> None:
    assert read_health(board(tmp_path, None, "-5000")) == BoardHealth(-5.0, None)


def test_an_endless_file_is_bounded(tmp_path: Path) -> None:
    assert read_health(board(tmp_path, "0" * 1_000_000, "40000")) == BoardHealth(40.0, 0)


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (None, 0x0, []),
        (None, 0x10001, ["the board reports under-voltage"]),
        (None, 0x40000, ["the board had throttling since the board started"]),
        (0x0, 0x10000, ["the board had under-voltage since the last look"]),
        (0x10001, 0x10000, ["the board reports no under-voltage any more"]),
        (0x10000, 0x10000, []),
        (0x10000, 0x10001, ["the board reports under-voltage"]),
    ],
)
def test_news(before: int | None, after: int, lines: list[str]) -> None:
    known = None if before is None else BoardHealth(50.0, before)
    assert changes(known, BoardHealth(60.0, after)) == lines


def test_a_board_without_bits_has_no_news() -> None:
    assert (
        changes(BoardHealth(50.0, 1), None)
        == changes(BoardHealth(50.0, 1), BoardHealth(50.0, None))
        == []
    )


def test_the_thread_looks_at_once_and_is_not_believed_for_ever(tmp_path: Path) -> None:
    now = 0.0
    looking = BoardMonitor(board(tmp_path, "0"), lambda: now)
    while looking.latest() is None:  # until its thread has run
        assert not looking.thread.ended
    assert looking.latest() == BoardHealth(None, 0)
    now = 1000.0  # a read has hung since
    assert looking.latest() is None
    looking.close()
    assert looking.thread.join(PATIENCE) and looking.thread.ended


def test_without_anything_to_see_the_thread_ends(tmp_path: Path) -> None:
    looking = BoardMonitor(tmp_path)
    assert looking.thread.join(PATIENCE) and looking.latest() is None
