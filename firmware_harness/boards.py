"""The boards that QEMU emulates, under QEMU's names, and the core's kernels that they run."""

from dataclasses import dataclass
from pathlib import Path

from edge_runtime.native.layout import DSP as PAIRED
from edge_runtime.native.layout import MVE as QUADS
from edge_runtime.native.layout import ROWS, Layout

CORE = Path(__file__).parents[1] / "core"
FIRMWARE = Path(__file__).parent / "firmware"
BOARDS, APP, LIBRARY = FIRMWARE / "boards", FIRMWARE / "app", FIRMWARE / "library"


@dataclass(frozen=True)
class Kernel:
    """One arithmetic of the core. source: its file. layout: of the weights, as it reads them."""

    source: str
    layout: Layout

    @property
    def core_sources(self) -> list[Path]:
        """The core's C files, with only this kernel."""
        return [
            path
            for path in sorted(CORE.glob("*.c"))
            if not path.name.startswith("kernel_") or path.name == self.source
        ]


PORTABLE = Kernel("kernel_portable.c", ROWS)
DSP = Kernel("kernel_dsp.c", PAIRED)
MVE = Kernel("kernel_mve.c", QUADS)


@dataclass(frozen=True)
class Board:
    """name: also of QEMU's machine. flags: for the compiler. tick: of its counter, nanoseconds.

    kernels: the fastest first; a bundle uses the first one that can run it.
    """

    name: str
    processor: str
    flags: tuple[str, ...]
    tick: float
    kernels: tuple[Kernel, ...]


M4 = Board(
    "mps2-an386",
    "Cortex-M4F",
    ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    40.0,
    (DSP, PORTABLE),
)
# The vector unit flushes denormal floats to zero, so the compiler must not vectorise.
M55 = Board(
    "mps3-an547",
    "Cortex-M55",
    ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard", "-fno-tree-vectorize"),
    50.0,
    (MVE, PORTABLE),
)
ALL = {board.name: board for board in (M4, M55)}
# The same order of operations everywhere: no fused multiply-add, no reassociation.
ARITHMETIC = ("-ffp-contract=off", "-fno-math-errno")
