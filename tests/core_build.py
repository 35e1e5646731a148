"""The C core built for a test, by any compiler and for any processor, and blobs for it to read."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_runtime.bundle.reader import Bundle
from edge_runtime.native.blob import pack, program_of
from edge_runtime.native.layout import ROWS, Layout

ROOT = Path(__file__).parents[1]
CORE, HOST = ROOT / "core", ROOT / "firmware_harness" / "firmware" / "host"
# One order of operations, as setup.py has it; a warning is an error.
FLAGS = (
    "-std=gnu99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fno-math-errno",
    f"-I{CORE}",
)  # fmt: skip
SANITISED = (
    "-O1",
    "-g",
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize-recover=all",
)


def compiled(
    compiler: str,
    package: str,
    out: Path,
    flags: Sequence[str],
    main: Sequence[Path] = (HOST / "driver.c",),
    kernel: str = "portable",
    without: Sequence[str] = (),
) -> Path:
    """The core with `main` as the program (or library) `out`; skips without the compiler.

    package: Debian's, which has the compiler. kernel: of `kernel_*.c`, none where `main` brings it;
    without: other files of the core that it brings.
    """
    if not _works(compiler, flags):
        pytest.skip(f"{compiler}, its headers or its libraries are missing: apt install {package}")
    parts = [f for f in sorted(CORE.glob("*.c")) if f.stem not in without]
    parts = [file for file in parts if not file.name.startswith("kernel_")]
    kernels = [CORE / f"kernel_{kernel}.c"] if kernel else []
    command = [compiler, *FLAGS, *flags, *map(str, (*main, *parts, *kernels)), "-o", str(out)]
    done = subprocess.run([*command, "-lm"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def _works(compiler: str, flags: Sequence[str]) -> bool:
    """Whether a program of two lines can be built, so that no fault of the core looks like this."""
    if not shutil.which(compiler):
        return False
    source = "#include <math.h>\nint LLVMFuzzerTestOneInput(void) { return 0; }\n"
    if not any("fuzzer" in flag for flag in flags):
        source += "int main(void) { return 0; }\n"
    command = [compiler, *flags, "-x", "c", "-", "-o", os.devnull, "-lm"]
    return not subprocess.run(command, input=source.encode(), capture_output=True).returncode


def blob_of(bundle: Bundle, layout: Layout = ROWS) -> bytes:
    """`bundle` packed with its own threshold."""
    threshold = next(iter(bundle.manifest.thresholds.values()))
    return pack(bundle, threshold, program_of(bundle, layout))
