"""Debian's Python for Arm under qemu-user, with the wheels of a device: made once, below build/arm.

    python tests/arm/arm_userland.py

Only emulation of single programs is used: no virtual machine, no root file system to boot, and no
entry in the host's binfmt table.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TREES = ROOT / "build" / "arm"
SUITE = "bookworm"
PACKAGES = "python3,python3-numpy,python3-click,libstdc++6"
TOOLS = {"mmdebstrap": "mmdebstrap"}  # program: Debian package


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


def run(arm: Arm, words: Sequence[str], **options: object) -> "subprocess.CompletedProcess[str]":
    """Python for `arm` with `words` as its arguments, the checkout on its path."""
    libraries = arm.tree / "usr" / "lib" / arm.triplet
    guest = {
        # Where Debian's post-installation scripts, which never run here, would put links.
        "LD_LIBRARY_PATH": f"{libraries / 'blas'}:{libraries / 'lapack'}",
        "PYTHONPATH": f"{arm.tree / 'wheels'}:{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    told = [word for name, value in guest.items() for word in ("-E", f"{name}={value}")]
    python = str(arm.tree / "usr" / "bin" / "python3.11")
    return subprocess.run(
        [arm.qemu, "-L", str(arm.tree), *told, python, *words],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        capture_output=True, text=True, check=False, **options,
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


def ready(arm: Arm) -> None:
    """Make the tree of `arm` unless it is there. RuntimeError names what is missing."""
    _require_tools(arm)
    recipe, stamp = _recipe(arm), arm.tree / "gruard-recipe"
    if stamp.is_file() and stamp.read_text() == recipe:
        return
    started = time.monotonic()
    shutil.rmtree(arm.tree, ignore_errors=True)
    arm.tree.parent.mkdir(parents=True, exist_ok=True)
    _say(f"{arm.name}: downloading Debian {SUITE} ({PACKAGES}) for {arm.debian}")
    _call(
        ["mmdebstrap", "--quiet", "--variant=extract", f"--include={PACKAGES}",
         f"--architectures={arm.debian}", SUITE, str(arm.tree), *_mirror()],
        arm,
    )  # fmt: skip
    _say(f"{arm.name}: downloading {_interpreter()} for {arm.wheel} with pip")
    with tempfile.TemporaryDirectory() as folder:
        _call(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet",
             "--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--platform",
             arm.wheel, "--dest", folder, _interpreter()],
            arm,
        )  # fmt: skip
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(arm.tree / "wheels")
    stamp.write_text(recipe)
    _say(f"{arm.name}: ready in {arm.tree} after {time.monotonic() - started:.0f} s")


def _require_tools(arm: Arm) -> None:
    wanted = {**TOOLS, arm.qemu: "qemu-user-static"}
    missing = sorted({package for tool, package in wanted.items() if not shutil.which(tool)})
    if missing:
        raise RuntimeError(
            f"Arm is tested with tools that are not installed: apt-get install {' '.join(missing)}"
        )


def _mirror() -> list[str]:
    """Where this machine's own apt gets the suite from; elsewhere mmdebstrap knows one itself."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {SUITE}"]
    told = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    return told[:1]


def _recipe(arm: Arm) -> str:
    """What the tree is made of; another recipe makes a new tree."""
    return "\n".join((SUITE, PACKAGES, arm.wheel, _interpreter())) + "\n"


def _interpreter() -> str:
    """The pinned TFLite interpreter, the same as on the workstation."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    (pinned,) = (line for line in lines if line.startswith("tflite-runtime=="))
    return pinned


def _call(command: Sequence[str], arm: Arm) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-8:]
        raise RuntimeError(f"{arm.name}: {command[0]} failed:\n" + "\n".join(last))


def _say(sentence: str) -> None:
    print(sentence, flush=True)


if __name__ == "__main__":
    try:
        for each in ARMS.values():
            ready(each)
    except RuntimeError as error:
        sys.exit(str(error))
