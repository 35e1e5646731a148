"""Images for the emulated boards, made once a session; skipped where no tools are installed."""

import shutil
from pathlib import Path

import pytest

from firmware_harness.boards import ALL, M4, M55
from firmware_harness.building import Built, build
from firmware_harness.packing import packed
from firmware_harness.toolchain import PACKAGES

MISSING = sorted({package for tool, package in PACKAGES.items() if shutil.which(tool) is None})


@pytest.fixture(scope="session")
def cross_tools() -> None:
    if MISSING:
        pytest.skip(f"NOT TESTED: apt install {' '.join(MISSING)} libnewlib-arm-none-eabi")


@pytest.fixture(scope="session")
def m4(tiny_bundle: Path, cross_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The tiny bundle on the Cortex-M4F, a test build."""
    return build(packed(tiny_bundle, M4), M4, tmp_path_factory.mktemp("m4") / "build")


@pytest.fixture(
    scope="session", params=[M4.name, pytest.param(M55.name, marks=pytest.mark.firmware)]
)
def any_board(
    request: pytest.FixtureRequest,
    tiny_bundle: Path,
    cross_tools: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Built:
    """The tiny bundle on each of the boards, a test build; on the second for make test-firmware."""
    board = ALL[request.param]
    return build(packed(tiny_bundle, board), board, tmp_path_factory.mktemp(board.name) / "build")
