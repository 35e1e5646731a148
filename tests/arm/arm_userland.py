"""Debian's Python for Arm under qemu-user, with the wheels of a device: made once, below build/arm.

    python -m tests.arm.arm_userland

Only emulation of single programs is used: no virtual machine, no root file system to boot, and no
entry in the host's binfmt table.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import debian_tree
from tests.debian_tree import ROOT, Tree

TREES = ROOT / "build" / "arm"
PACKAGES = "python3,python3-numpy,python3-click,libstdc++6"


@dataclass(frozen=True)
class Arm:
    """One architecture, in the words of Debian, QEMU, the compiler and Python's wheels."""

    name: str
    debian: str
    qemu: str
    triplet: str
    wheel: str

    @property
    def tree(self) -> Path:
        """Where its files are kept."""
        return TREES / self.name

    @property
    def python(self) -> Path:
        """Debian's Python for it."""
        return self.tree / "usr" / "bin" / "python3.11"


ARMS = {
    arm.name: arm
    for arm in (
        Arm(
            "aarch64", "arm64", "qemu-aarch64-static", "aarch64-linux-gnu",
            "manylinux_2_34_aarch64",
        ),
        Arm(
            "armv7", "armhf", "qemu-arm-static", "arm-linux-gnueabihf", "manylinux_2_34_armv7l"
        ),
    )
}  # fmt: skip


def run(
    arm: Arm, words: Sequence[str], path: Sequence[Path] = (), **options: object
) -> "subprocess.CompletedProcess[str]":
    """Python for `arm` with `words` as its arguments.

    path: of its modules beside Debian's; else the interpreter's wheel and the checkout.
    """
    script = arm.tree / "gruard-python"
    command = python(arm, script, path or (arm.tree / "wheels", ROOT))
    # The host runs this script, so that Python can start itself anew, as gruard does for a worker.
    script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    script.chmod(0o755)
    return subprocess.run(
        [str(script), *words],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        capture_output=True, text=True, check=False, **options,
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


def python(arm: Arm, executable: Path, path: Sequence[Path]) -> list[str]:
    """Python for `arm` with modules in `path`; it takes `executable` for its own program."""
    libraries = arm.tree / "usr" / "lib" / arm.triplet
    guest = {
        # Where Debian's post-installation scripts, which never run here, would put links.
        "LD_LIBRARY_PATH": f"{libraries / 'blas'}:{libraries / 'lapack'}",
        "PYTHONHOME": str(arm.tree / "usr"),
        "PYTHONPATH": ":".join(map(str, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    told = [word for name, value in guest.items() for word in ("-E", f"{name}={value}")]
    return [arm.qemu, "-0", str(executable), "-L", str(arm.tree), *told, str(arm.python)]


def ready(arm: Arm) -> None:
    """Make the tree of `arm` unless it is there. RuntimeError names what is missing."""
    debian_tree.require_tools("Arm", {"mmdebstrap": "mmdebstrap", arm.qemu: "qemu-user-static"})
    debian_tree.ready(Tree(arm.tree, arm.debian, PACKAGES, arm.wheel))


if __name__ == "__main__":
    try:
        with ThreadPoolExecutor() as pool:  # it is downloading that takes the time
            list(pool.map(ready, ARMS.values()))
    except RuntimeError as error:
        sys.exit(str(error))
