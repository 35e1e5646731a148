"""Wheels of the device, built from the checkout."""

import os
import subprocess
import sys
from pathlib import Path

from edge_runtime import __version__

ROOT = Path(__file__).resolve().parents[1]
TAGS = {
    "x86_64": "manylinux_2_28_x86_64",
    "aarch64": "manylinux_2_28_aarch64",
    "armv7l": "manylinux_2_31_armv7l",
}
"""The platform of the wheel with the engine, by processor."""


def native_wheel(processor: str, folder: Path) -> Path:
    """Build the wheel with the engine for `processor` in `folder`, by Debian's compiler."""
    _build(folder, GRUARD_TARGET=processor)
    return folder / f"gruard-{__version__}-cp311-abi3-{TAGS[processor]}.whl"


def pure_wheel(folder: Path) -> Path:
    """Build the wheel without the engine in `folder`."""
    _build(folder, GRUARD_PURE="1")
    return folder / f"gruard-{__version__}-py3-none-any.whl"


def _build(folder: Path, **variables: str) -> None:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *options, "."]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
