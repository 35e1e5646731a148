"""What a step costs on a board: instructions, by part and by operator, and memory.

QEMU counts the instructions (-icount); they repeat exactly, and are no cycles: those depend on
the flash's waiting states and on the memory, which nothing here emulates.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.kernels import CORE_KERNEL_ID
from edge_runtime.detector.thresholds import threshold_of
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import pack, program_of
from edge_runtime.native.layout import DSP, ROWS, Layout
from edge_runtime.native.program import KINDS, Program
from edge_runtime.record import Float32
from firmware_harness import tables
from firmware_harness.boards import BOARDS, CORE, FIRMWARE, M4, M55, Board
from firmware_harness.building import FLAGS, LINK
from firmware_harness.emulator import run_to_end
from firmware_harness.toolchain import call

SHIFT = 10  # an instruction takes 2^10 ns of the emulated time, so that the clock counts finely
CLOCK_NS = {"mps2-an386": 40.0, "mps3-an547": 31.25}
PARTS = ("read", "forecast", "feed", "network", "blend", "score", "diagnosis", "record")
Codes = npt.NDArray[np.uint32]
_LIMIT = 300.0
_IMAGE = "cost.elf"


@dataclass(frozen=True)
class Kernel:
    """One arithmetic of the core, by its file, on a board that has the instructions."""

    name: str
    board: Board
    source: str
    layout: Layout


KERNELS = (
    Kernel("Cortex-M4, portable C", M4, "kernel_portable.c", ROWS),
    Kernel("Cortex-M4, SMLAD", M4, "kernel_dsp.c", DSP),
    Kernel("Cortex-M55, portable C", M55, "kernel_portable.c", ROWS),
    Kernel("Cortex-M55, MVE", M55, "kernel_mve.c", ROWS),
)


@dataclass(frozen=True)
class Cost:
    """Instructions of a step: the usual (median) and the largest one, by part and by operator.

    text: code and constants without the bundle's tables, bytes. stack: most of a step. memory: of
    the detector's state.
    """

    step: int
    largest: int
    parts: dict[str, int]
    operators: dict[str, int]
    text: int
    stack: int
    memory: int


def measure(bundle: Bundle, kernel: Kernel, rows: Float32) -> Cost:
    """Run raw `rows` through the detector of `bundle` on the kernel's board and count.

    Raises GruardError when a tool is missing or fails.
    """
    with tempfile.TemporaryDirectory(prefix="gruard-") as name:
        folder = Path(name)
        program = program_of(bundle, kernel.layout)
        blob = pack(bundle, threshold_of(bundle, CORE_KERNEL_ID), program)
        _compile(blob, kernel, folder)
        (folder / "rows.bin").write_bytes(np.asarray(rows, "<f4").tobytes())
        arguments = [
            "-serial", "none", "-semihosting-config", "enable=on,target=native",
            "-icount", f"shift={SHIFT}",
        ]  # fmt: skip
        code = run_to_end(kernel.board, folder / _IMAGE, arguments, folder, _LIMIT)
        if code:
            raise GruardError(f"{kernel.board.name}: measuring ended with code {code}")
        numbers = np.fromfile(folder / "costs.bin", "<u4")
        return _cost(program, kernel, numbers, len(rows), _text(kernel, folder))


def _compile(blob: bytes, kernel: Kernel, folder: Path) -> None:
    made = "#include <stdint.h>\nextern const uint32_t gruard_blob_size;\n"
    made += tables.words("gruard_blob", blob)
    (folder / "built.c").write_text(f"{made}const uint32_t gruard_blob_size = {len(blob)};\n")
    board, cost = kernel.board, FIRMWARE / "cost"
    includes = [f"-I{path}" for path in (CORE, BOARDS, BOARDS / board.name, cost)]
    sources = [*_core(kernel), *sorted(BOARDS.glob("*.c")), folder / "built.c", cost / "cost.c"]
    place = ["-T", str(BOARDS / board.name / "memory.ld"), f"-L{BOARDS}"]
    flags = [*FLAGS, *board.flags, *includes, "-DGRUARD_COST", *LINK, *place]
    call("arm-none-eabi-gcc", [*flags, *sources, "-o", _IMAGE], folder)


def _core(kernel: Kernel) -> list[Path]:
    files = sorted(CORE.glob("*.c"))
    return [f for f in files if not f.name.startswith("kernel_") or f.name == kernel.source]


def _text(kernel: Kernel, folder: Path) -> int:
    """Bytes of the core's own code and constants, each file compiled alone, without the marks."""
    flags = [*FLAGS, *kernel.board.flags, f"-I{CORE}", "-c"]
    call("arm-none-eabi-gcc", [*flags, *_core(kernel)], folder)
    objects = [f"{source.stem}.o" for source in _core(kernel)]
    lines = call("arm-none-eabi-size", objects, folder).splitlines()[1:]
    return sum(int(line.split()[0]) + int(line.split()[1]) for line in lines)


def _cost(program: Program, kernel: Kernel, numbers: Codes, rows: int, text: int) -> Cost:
    empty, parts = int(numbers[0]), int(numbers[1])
    table = numbers[2 : 2 + rows * (1 + parts)].reshape(rows, 1 + parts).astype(np.int64)
    operators = numbers[2 + table.size : -2]
    tick = CLOCK_NS[kernel.board.name] / (1 << SHIFT)

    def instructions(ticks: float) -> int:
        return round((ticks - empty) * tick)

    # A mark costs itself: what the clock's own look takes is not the step's.
    marks = instructions(2 * empty) * parts
    by_kind = dict.fromkeys(KINDS, 0)
    for operator, ticks in zip(program.operators, operators, strict=True):
        by_kind[KINDS[operator[0]]] += instructions(float(ticks))
    return Cost(
        step=instructions(float(np.median(table[:, 0]))) - marks,
        largest=instructions(float(table[:, 0].max())) - marks,
        parts={
            name: instructions(float(np.median(table[:, 1 + i]))) for i, name in enumerate(PARTS)
        },
        operators={kind: count for kind, count in by_kind.items() if count},
        text=text,
        stack=int(numbers[-2]),
        memory=int(numbers[-1]),
    )
