"""Compilers, binary tools and QEMU: each may be missing, fail or hang."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.errors import GruardError
from firmware_harness.boards import Board

PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "arm-none-eabi-size": "binutils-arm-none-eabi",
    "arm-none-eabi-objcopy": "binutils-arm-none-eabi",
    "arm-none-eabi-nm": "binutils-arm-none-eabi",
    "arm-none-eabi-objdump": "binutils-arm-none-eabi",
    "arm-none-eabi-addr2line": "binutils-arm-none-eabi",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-system-arm": "qemu-system-arm",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "qemu-system-riscv32": "qemu-system-misc",
    "qemu-img": "qemu-utils",
    "setpriv": "util-linux",
}
LIBRARIES = {  # of C
    "arm-none-eabi-gcc": "libnewlib-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "picolibc-riscv64-unknown-elf",
}
NO_LIBRARY = ("cannot read spec file", "stdint.h: No such file", "string.h: No such file")
FIRMWARE_TOOLS = (
    "arm-none-eabi-size", "arm-none-eabi-objcopy", "arm-none-eabi-nm", "arm-none-eabi-addr2line",
    "qemu-img",
)  # fmt: skip
TIME_LIMIT = 300  # seconds


def need(tool: str) -> str:
    """Return the path of `tool`; GruardError naming Debian's package when it is not installed."""
    path = shutil.which(tool)
    if path is None:
        raise GruardError(f"{tool} is not installed; apt install {PACKAGES[tool]}")
    return path


def missing_packages(board: Board) -> list[str]:
    """Return Debian's packages that `board` needs and that are not installed."""
    compiler, emulator = board.toolchain.compiler, board.toolchain.emulator
    tools = [compiler, emulator, "setpriv", *([] if board.without else FIRMWARE_TOOLS)]
    missing = {PACKAGES[tool] for tool in tools if shutil.which(tool) is None}
    return sorted(missing | {LIBRARIES[compiler]} if PACKAGES[compiler] in missing else missing)


def call(tool: str, arguments: Sequence[str | Path], folder: Path) -> str:
    """Run `tool` in `folder` and return its output; GruardError with its error if it fails."""
    command = [need(tool), *map(str, arguments)]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise GruardError(f"{tool}: not finished within {TIME_LIMIT} s") from None
    if done.returncode:
        raise GruardError(f"{tool}: {_error_of(tool, done.stderr)}")
    return done.stdout


def _error_of(tool: str, text: str) -> str:
    """Return the first line with an error, else the last line."""
    lines = text.strip().splitlines() or ["failed without a message"]
    if any("will not fit in region" in line or "overflowed by" in line for line in lines):
        return "the firmware is too large for the board's memory; take a smaller model"
    if any(sign in line for line in lines for sign in NO_LIBRARY):
        return f"the C library is not installed; apt install {LIBRARIES[tool]}"
    return next((line for line in lines if "error" in line), lines[-1])


def emulator_command(board: Board, image: Path, arguments: Sequence[str]) -> list[str]:
    """Return QEMU's command line for `image`; QEMU ends with the thread that starts it."""
    return [
        need("setpriv"), "--pdeathsig", "KILL", need(board.toolchain.emulator),
        *board.machine,
        "-display", "none", "-monitor", "none", "-kernel", str(image), *arguments,
    ]  # fmt: skip


def run_to_end(
    board: Board, image: Path, arguments: Sequence[str], folder: Path, limit: float
) -> int:
    """Run `image` in `folder`, return its exit code; GruardError after `limit` seconds."""
    try:
        done = subprocess.run(
            emulator_command(board, image, arguments),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GruardError(
            f"{image.name} on {board.name}: not finished within {limit:.0f} s; it was killed"
        ) from None
    if done.returncode < 0:
        raise GruardError(f"{board.name}: the emulator ended by signal {-done.returncode}")
    return done.returncode
