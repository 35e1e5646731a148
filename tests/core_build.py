"""The C core built for a test, by any compiler and for any processor, and blobs for it to read."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_runtime.bundle.reader import Bundle
from edge_runtime.native.blob import pack, program_of
from edge_runtime.native.layout import ROWS, Layout

FIRMWARE = Path(__file__).parents[1] / "firmware_harness" / "firmware"
CORE, HOST = FIRMWARE / "core", FIRMWARE / "host"
# One order of operations, as setup.py has it; a warning is an error.
FLAGS = (
    "-std=gnu99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fno-math-errno",
    f"-I{CORE}",
)  # fmt: skip
SANITISED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiled(
    compiler: str,
    package: str,
    out: Path,
    flags: Sequence[str],
    main: Sequence[Path] = (HOST / "driver.c",),
    kernel: str = "portable",
) -> Path:
    """The core with `main` as the program (or library) `out`; skips without the compiler.

    package: Debian's, which has the compiler. kernel: `kernel_*.c`, none where `main` brings it.
    """
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is missing: apt-get install {package}")
    parts = sorted(file for file in CORE.glob("*.c") if not file.name.startswith("kernel_"))
    kernels = [CORE / f"kernel_{kernel}.c"] if kernel else []
    command = [compiler, *FLAGS, *flags, *map(str, (*main, *parts, *kernels)), "-o", str(out)]
    done = subprocess.run([*command, "-lm"], capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr or "No such file" in done.stderr:
        pytest.skip(f"headers or libraries are missing: apt-get install {package}\n{done.stderr}")
    assert done.returncode == 0, done.stderr
    return out


def blob_of(bundle: Bundle, layout: Layout = ROWS) -> bytes:
    """`bundle` packed with its own threshold."""
    threshold = next(iter(bundle.manifest.thresholds.values()))
    return pack(bundle, threshold, program_of(bundle, layout))
