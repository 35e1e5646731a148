"""Build `made_delegate.c` as a library: a simulated accelerator that fails on command."""

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
KERNEL = "made"
FLAGS = ("-std=c11", "-D_DEFAULT_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


def build(folder: Path) -> Path:
    """Build the library in `folder`. OSError without a C compiler, with what to install."""
    if not shutil.which("gcc"):
        raise OSError("gcc is missing: apt-get install gcc libc6-dev")
    library = folder / f"lib{KERNEL}.so.1"
    command = ["gcc", *FLAGS, str(SOURCE), "-o", str(library), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr)
    return library
