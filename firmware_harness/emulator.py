"""QEMU, which is killed when it hangs, and when the harness is."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.errors import GruardError
from firmware_harness.boards import Board
from firmware_harness.toolchain import need


def command(board: Board, image: Path, arguments: Sequence[str]) -> list[str]:
    """QEMU's command line for `image` on `board`; it ends with the thread that starts it."""
    return [
        need("setpriv"), "--pdeathsig", "KILL", need("qemu-system-arm"), "-M", board.name,
        "-display", "none", "-monitor", "none", "-kernel", str(image), *arguments,
    ]  # fmt: skip


def run_to_end(
    board: Board, image: Path, arguments: Sequence[str], folder: Path, limit: float
) -> int:
    """Exit code of `image`, run in `folder`; GruardError when it takes over `limit` seconds."""
    try:
        done = subprocess.run(
            command(board, image, arguments),
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
