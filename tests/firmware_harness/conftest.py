"""Images for the emulated boards, made once a session; skipped where no tools are installed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_harness.boards import ALL, M4, USUAL, Board
from firmware_harness.building import Built, build
from firmware_harness.packing import packed
from firmware_harness.toolchain import missing_packages

MakeBuilt = Callable[[Board], Built]


def skip_without_tools(*boards: Board) -> None:
    missing = sorted({package for board in boards for package in missing_packages(board)})
    if missing:
        pytest.skip(f"NOT TESTED: apt install {' '.join(missing)}")


@pytest.fixture(scope="session")
def cross_tools() -> None:
    skip_without_tools(*USUAL)


@pytest.fixture(scope="session")
def all_cross_tools() -> None:
    skip_without_tools(*ALL.values())


@pytest.fixture(scope="session")
def built_for(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeBuilt:
    """The tiny bundle on any board, a test build that is made once."""
    made = dict[str, Built]()

    def built(board: Board) -> Built:
        skip_without_tools(board)
        if board.name not in made:
            folder = tmp_path_factory.mktemp(board.name) / "build"
            made[board.name] = build(packed(tiny_bundle, board), board, folder)
        return made[board.name]

    return built


@pytest.fixture(scope="session")
def m4(built_for: MakeBuilt) -> Built:
    """The tiny bundle on the Cortex-M4F."""
    return built_for(M4)


# The others are for make test-firmware.
EACH = [
    pytest.param(board, id=board.name, marks=() if board is M4 else pytest.mark.firmware)
    for board in ALL.values()
]


@pytest.fixture(scope="session", params=[each for each in EACH if not each.values[0].without])
def any_board(request: pytest.FixtureRequest, built_for: MakeBuilt) -> Built:
    """The tiny bundle on each board that has a firmware."""
    return built_for(request.param)


@pytest.fixture(scope="session", params=EACH)
def any_replay(request: pytest.FixtureRequest, built_for: MakeBuilt) -> Built:
    """The tiny bundle on each board, also on those that can only replay."""
    return built_for(request.param)
