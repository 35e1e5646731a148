"""`python -m firmware_harness` as a user meets it."""

import subprocess
import sys
from pathlib import Path


def harness(*words: str | Path, **options) -> subprocess.CompletedProcess[str]:  # type: ignore[no-untyped-def]
    command = [sys.executable, "-m", "firmware_harness", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 2 and exactly one line on stderr, with all `parts` in it."""
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and lines[0].startswith("firmware_harness: "), done.stderr
    for part in parts:
        assert part in lines[0]
