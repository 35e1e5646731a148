"""A build that would not give the proven bits is refused: by the compiler, or at its start."""

import shutil
import subprocess
from pathlib import Path

import pytest
from harness_command import harness

CORE = Path(__file__).parents[2] / "core"
SOURCES = [path for path in sorted(CORE.glob("*.c")) if path.name != "crc.c"]  # integers only
ARM = ("kernel_dsp.c", "kernel_mve.c")
COMPILERS = {"kernel_neon.c": "aarch64-linux-gnu-gcc"}
CPUS = {"kernel_dsp.c": "-mcpu=cortex-m4", "kernel_mve.c": "-mcpu=cortex-m55"}
FLOAT = ("-mfloat-abi=hard", "-mthumb")
OPTIONS = (
    "-ffast-math", "-Ofast", "-ffinite-math-only", "-freciprocal-math", "-fno-signed-zeros",
    "-fassociative-math -fno-signed-zeros -fno-trapping-math",
)  # fmt: skip
MAIN = """
#include <stdio.h>
#include "gruard_blob.h"
#include "gruard_detector.h"
#include "gruard_selftest.h"
#ifdef FLUSH
#include <xmmintrin.h>
#endif
static gruard_model model;
static gruard_detector detector;
static float memory[GRUARD_BLOB_MEMORY / sizeof(float)];
int main(void) {
#ifdef FLUSH
    _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
#endif
    if (gruard_open(&model, gruard_blob, GRUARD_BLOB_BYTES)) return 1;
    const char *reason = gruard_selftest(&model, &detector, memory, sizeof memory - SHORT);
    puts(reason ? reason : "passed");
    return 0;
}
"""


def said(program: str, *words: str | Path) -> str:
    """The compiler's errors over one file; skips without the compiler."""
    if shutil.which(program) is None:
        pytest.skip(f"NOT TESTED: {program} is missing")
    command = [program, "-std=gnu11", "-fsyntax-only", "-Wno-psabi", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True).stderr


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_file_of_the_core_refuses_fast_math(source: Path) -> None:
    words: tuple[str, ...] = (COMPILERS.get(source.name, "gcc"),)
    if source.name in ARM:
        words = ("arm-none-eabi-gcc", CPUS[source.name], *FLOAT)
    assert "error" not in said(*words, source)
    assert "#error" in said(*words, "-ffast-math", source)


@pytest.mark.parametrize("options", OPTIONS)
def test_each_part_of_fast_math_is_refused(options: str) -> None:
    assert "gruard: -ffast-math" in said("gcc", *options.split(), CORE / "score.c")


@pytest.mark.parametrize(
    ("program", "options", "message"),
    [
        ("arm-none-eabi-gcc", "-mbig-endian", "big-endian"),
        ("gcc", "-mx32", "x32 is not supported"),
        ("gcc", "-m32 -mfpmath=387", "float32 must be computed in float32"),
        ("avr-gcc", "-mmcu=atmega2560", "8 and 16 bits"),
    ],
)
def test_foreign_processors_are_refused(program: str, options: str, message: str) -> None:
    for source in ("score.c", "graph.c"):
        assert message in said(program, *options.split(), CORE / source)


@pytest.fixture(scope="module")
def library(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("library") / "detector"
    assert harness("emit", tiny_bundle, "--out", out).returncode == 0
    subprocess.run(["make", "-s", "-C", out, "CC=cc", "CFLAGS=-O1"], check=True)
    return out


def result(library: Path, scratch: Path, *words: str | Path, short: int = 0) -> str:
    """What the self-test says on this machine; words: further sources and options."""
    main, program = scratch / "main.c", scratch / "main"
    main.write_text(MAIN)
    command = ["cc", f"-I{library}", f"-DSHORT={short}", main, *words, library / "libgruard.a"]
    subprocess.run([*command, "-lm", "-o", program], check=True)
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()


def test_a_sound_build_passes_and_one_with_too_little_memory_does_not(
    library: Path, tmp_path: Path
) -> None:
    assert result(library, tmp_path) == "passed"
    assert result(library, tmp_path, short=4) == "too little memory for the detector"


def test_other_bits_for_the_golden_vectors_are_noticed(library: Path, tmp_path: Path) -> None:
    text = (library / "gruard_golden.c").read_text()
    word = text.rindex("0x", 0, text.index("};")) + 6  # a digit of the last reading
    flipped = tmp_path / "golden.c"
    flipped.write_text(text[:word] + format(int(text[word], 16) ^ 1, "x") + text[word + 1 :])
    assert result(library, tmp_path, flipped).startswith("the golden vectors give other bits")


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler here")
def test_flushed_denormals_are_noticed(library: Path, tmp_path: Path) -> None:
    if "x86" not in subprocess.run(["cc", "-dumpmachine"], capture_output=True, text=True).stdout:
        pytest.skip("NOT TESTED: only x86 has this switch")
    assert result(library, tmp_path, "-DFLUSH").startswith("the float unit flushes denormals")


def test_fused_multiply_add_is_noticed_here(library: Path, tmp_path: Path) -> None:
    if " fma " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("NOT TESTED: this processor has no fused multiply-add")
    test = library / "gruard_selftest.c"
    fused = ("-O2", "-mfma", "-ffp-contract=fast", test)
    assert result(library, tmp_path, *fused).startswith("multiply-adds are fused")
