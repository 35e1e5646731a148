"""A separate process that holds a lock, as a stopped command does."""

import subprocess
import sys
from pathlib import Path

_HOLD = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class LockHolder:
    """Holds the lock `file` from `hold` to `release`; the end of a `with` block releases it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._process: subprocess.Popen[str] | None = None

    def hold(self) -> None:
        """Return when the lock is held."""
        self._file.touch()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(self._file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout and self._process.stdout.readline() == "held\n"

    def release(self) -> None:
        """Return when the lock is released."""
        if self._process:
            self._process.communicate()
            self._process = None

    def __enter__(self) -> "LockHolder":
        self.hold()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
