"""Recordings with faults, and processes to wait for."""

import select
import time
from collections.abc import Callable
from pathlib import Path

from fleet.job import Job

PATIENCE = 60.0  # seconds, of a busy machine
POLL = 0.01  # seconds; what is waited for needs the processor
MakeJob = Callable[..., Job]
Once = Callable[[str, Callable[[Path], object]], Path]


def harmed(recording: Path, target: Path, harm: Callable[[list[str]], list[str]]) -> Path:
    """Write `recording` to `target` with its lines changed by `harm`."""
    target.write_text("".join(harm(recording.read_text().splitlines(keepends=True))))
    return target


def nan_everywhere(lines: list[str]) -> list[str]:
    """The lines without any reading."""
    cells = lines[0].count(",")
    return [lines[0], *(f"{number}{',nan' * cells}\n" for number in range(len(lines) - 1))]


def longer(lines: list[str]) -> list[str]:
    """So many lines that they take some seconds to read."""
    return [lines[0], *lines[1:] * 400]


def appears(folder: Path, pattern: str) -> Path:
    """Wait until `folder` has a file of this pattern; return it."""
    while True:
        if found := next(iter(folder.glob(pattern)), None):
            return found
        time.sleep(POLL)


def learning_process_of(pid: int) -> int:
    """Wait until a thread of the process `pid` has a server that has forked a job; return its pid.

    The server and its jobs have one command line.
    """
    while True:
        for server in _children(pid):
            if b"fleet.job" in Path(f"/proc/{server}/cmdline").read_bytes():
                for child in _children(server):
                    return child
        time.sleep(POLL)


def _children(pid: int) -> list[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def ends(pidfd: int) -> bool:
    """Wait until the process of `pidfd` has ended."""
    return bool(select.select([pidfd], [], [], PATIENCE)[0])
