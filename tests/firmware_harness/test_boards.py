"""The list of boards: what the page says of each, how a missing tool is reported, and that an
emulated processor has no more than its own."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_model

from edge_runtime.errors import GruardError
from firmware_harness import semihosting
from firmware_harness.boards import ALL, BOARDS, M3, M4, PORTABLE, RV32, RV32F, Board
from firmware_harness.building import Built
from firmware_harness.toolchain import call, missing_packages, need

PAGE = Path(__file__).parents[2] / "docs" / "firmware.md"
KERNELS = {"kernel_portable.c": "portable C", "kernel_dsp.c": "SMLAD", "kernel_mve.c": "MVE"}


def test_the_page_has_every_board_with_what_it_can() -> None:
    section = PAGE.read_text().split("<!-- boards:begin -->")[1].split("<!-- boards:end -->")[0]
    rows = [re.split(r" *\| *", line)[1:-1] for line in section.strip().splitlines()[2:]]
    told = {
        name: (processor, kernel, guards == "yes") for name, processor, _, kernel, guards in rows
    }
    assert told == {
        board.name: (board.processor, KERNELS[board.kernels[0].source], not board.without)
        for board in ALL.values()
    }


def test_every_kernel_of_a_board_has_portable_c_behind_it() -> None:
    assert all(board.kernels[-1] is PORTABLE for board in ALL.values())


def test_no_file_is_left_without_a_board() -> None:
    folders = {path.name for path in BOARDS.iterdir() if path.is_dir()}
    assert folders == {board.place for board in ALL.values()}
    sources = {path for board in ALL.values() for path in board.sources}
    assert sources == set(BOARDS.glob("*.c"))


@pytest.mark.parametrize(
    ("board", "packages"),
    [
        (M4, {"gcc-arm-none-eabi", "libnewlib-arm-none-eabi", "qemu-system-arm", "qemu-utils"}),
        (RV32, {"gcc-riscv64-unknown-elf", "picolibc-riscv64-unknown-elf", "qemu-system-misc"}),
    ],
)
def test_missing_tools_are_named_with_their_packages(
    board: Board, packages: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert packages <= set(missing_packages(board))
    for tool in (board.toolchain.compiler, board.toolchain.emulator):
        with pytest.raises(GruardError, match=f"{tool} is not installed; apt install"):
            need(tool)


def test_a_missing_c_library_is_named_with_its_package(cross_tools: None, tmp_path: Path) -> None:
    with pytest.raises(GruardError, match="apt install libnewlib-arm-none-eabi"):
        call(M4.toolchain.compiler, ["-specs=nowhere.specs", "-c", "nothing.c"], tmp_path)


@pytest.mark.firmware
@pytest.mark.parametrize(("made_for", "lesser"), [(M4, M3), (RV32F, RV32)])
def test_a_processor_without_fpu_stops_at_its_instructions(
    made_for: Board, lesser: Board, built_for: Callable[[Board], Built]
) -> None:
    """So what an emulated processor replays, it replays with its own instructions."""
    built = built_for(made_for)
    wrong = replace(built, board=replace(made_for, machine=lesser.machine))
    with pytest.raises(GruardError, match="the replay ended with code 62"):
        semihosting.replay(wrong, tiny_model.machine_rows(3, 1), (1.0, 1.0))
