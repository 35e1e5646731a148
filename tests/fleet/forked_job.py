"""A job for the tests of the fork server; the folder's file `what` says which."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from fleet.forks import serve


def job(folder: Path) -> None:
    """Write the parent's pid, then do what the folder says."""
    (folder / "server").write_text(f"{os.getppid()}")
    match (folder / "what").read_text():
        case "raise":
            raise ValueError("boom")
        case "leave a process":
            child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
            (folder / "child").write_text(f"{child.pid}")
        case "hang":
            signal.pause()
        case "kill the server":
            (folder / "child").write_text(f"{os.getpid()}")
            os.kill(os.getppid(), signal.SIGKILL)
            os.read(0, 1)  # until stdin ends, as a real job


if __name__ == "__main__":
    serve(job)
