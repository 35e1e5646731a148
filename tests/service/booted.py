"""A real systemd as PID 1 of namespaces of its own, to be asked and harmed."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from systemd_tree import TREE

BOOT = Path(__file__).with_name("boot.sh")
PATIENCE = 90.0  # seconds; only a failing test waits for them


class Booted:
    """Boots when entered, is gone with everything it started when left.

    files: folder whose content is added to the tree. scratch: an empty folder.
    """

    def __init__(self, files: Path, scratch: Path) -> None:
        self._words = ["bash", str(BOOT), str(TREE.path), str(scratch), str(files)]

    def __enter__(self) -> "Booted":
        self._cgroup = Path(tempfile.mkdtemp(prefix="gruard-test-", dir=_cgroup_mount()))
        self._outer = subprocess.Popen(
            [*self._words, str(self._cgroup)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            until(self._is_up, "systemd to boot")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._outer.kill()  # and with it PID 1, and with that everything in its namespace
        self._outer.wait(PATIENCE)
        until(self._cgroup_removed, "the last process to end")

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command inside."""
        return subprocess.run(
            ["nsenter", "--target", str(self._init()), "--all", "--", *words],
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip

    def __call__(self, *words: str) -> str:
        """The output of a command that must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Make a file inside."""
        self("python3", "-c", "import sys; open(sys.argv[1], 'w').write(sys.argv[2])", path, text)

    def gruard(self, *words: str) -> str:
        """The output of the command `gruard`."""
        return self("python3", "-m", "edge_runtime", *words)

    def property(self, unit: str, name: str) -> str:
        """What systemd says of a unit."""
        return self("systemctl", "show", "--value", "--property", name, unit).strip()

    def journal(self, unit: str) -> str:
        """What a unit wrote and what was said of it."""
        return self("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def end(self) -> int:
        """Wait until PID 1 has ended; negative is the signal that ended it."""
        return self._outer.wait(PATIENCE)

    def _init(self) -> int:
        file = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        return int(file.read_text().split()[0])

    def _is_up(self) -> bool:
        if self._outer.poll() is not None:
            assert self._outer.stdout
            told = self._outer.stdout.read().decode(errors="replace")
            raise RuntimeError(f"namespaces for systemd cannot be made here: {told}")
        with suppress(OSError, IndexError):
            if Path(f"/proc/{self._init()}/comm").read_text() == "systemd\n":
                state = self.run("systemctl", "is-system-running").stdout.strip()
                return state in ("running", "degraded")
        return False

    def _cgroup_removed(self) -> bool:
        with suppress(OSError):
            for folder, _, _ in os.walk(self._cgroup, topdown=False):
                Path(folder).rmdir()
        return not self._cgroup.exists()


def until(happened: Callable[[], bool], what: str) -> None:
    """Wait for what only another process can bring about."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, f"waited {PATIENCE:.0f} s in vain for {what}"
        time.sleep(0.1)


def _cgroup_mount() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise RuntimeError("systemd needs a cgroup2 file system, and none is mounted here")
