"""Journals for tests, on a clock that stands still, and the log that they tell."""

import threading
from collections.abc import Callable
from pathlib import Path

from edge_runtime.journal.journal import Journal, open_journal

ROOMY = 10_000_000
PATIENCE = 60.0  # seconds; only a failing test ever waits for them


def frozen() -> float:
    """A clock that stands still, so that nothing is synced but at the start and the end."""
    return 1000.0


class Log:
    """Lines that were told; a test waits for one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.changed = threading.Condition()

    def __call__(self, line: str) -> None:
        with self.changed:
            self.lines.append(line)
            self.changed.notify_all()

    def wait_for(self, text: str) -> None:
        with self.changed:
            found = self.changed.wait_for(
                lambda: any(text in line for line in self.lines), PATIENCE
            )
        assert found, f"{text!r} is not in {self.lines}"


def journal_in(folder: Path, log: Callable[[str], None] = print, capacity: int = ROOMY) -> Journal:
    return open_journal(folder, capacity, log, frozen)
