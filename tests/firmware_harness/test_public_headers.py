"""What an integrator includes: two headers, also from C++."""

import shutil
import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "core"
PROGRAM = """
#include "gruard_detector.h"
#include <cstdio>
static gruard_model model;
static gruard_detector detector;
int main() {
    if (!sizeof model || !sizeof detector) return 1;
    std::printf("%08x %d", (unsigned)gruard_crc(0, "123456789", 9), gruard_open(&model, "", 0));
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_a_cpp_program_runs_the_core(tmp_path: Path) -> None:
    (tmp_path / "main.cpp").write_text(PROGRAM)
    strict = ["-Wall", "-Wextra", "-Werror", f"-I{CORE}"]
    sources = [source for source in CORE.glob("*.c") if not source.stem.startswith("kernel_")]
    objects = []
    for source in (*sources, CORE / "kernel_portable.c"):
        objects.append(str(tmp_path / f"{source.stem}.o"))
        command = ["gcc", "-std=c99", "-O1", *strict, "-c", str(source), "-o", objects[-1]]
        subprocess.run(command, check=True)
    program = str(tmp_path / "program")
    subprocess.run(
        ["g++", *strict, str(tmp_path / "main.cpp"), *objects, "-lm", "-o", program], check=True
    )
    told = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert told.split()[0] == "cbf43926" and told.split()[1] in ("2", "3")
