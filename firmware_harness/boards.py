"""The boards: emulated by QEMU under the same names."""

from dataclasses import dataclass
from pathlib import Path

FIRMWARE = Path(__file__).parent / "firmware"
CORE, BOARDS, APP = FIRMWARE / "core", FIRMWARE / "boards", FIRMWARE / "app"


@dataclass(frozen=True)
class Board:
    """name: of QEMU's machine, too. flags: for the compiler. kernel: file of the core."""

    name: str
    processor: str
    flags: tuple[str, ...]
    kernel: str = "kernel_portable.c"

    @property
    def core_sources(self) -> list[Path]:
        """The core's C files, of the kernels the board's own alone."""
        return [
            path
            for path in sorted(CORE.glob("*.c"))
            if not path.name.startswith("kernel_") or path.name == self.kernel
        ]


M4 = Board(
    "mps2-an386",
    "Cortex-M4F",
    ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
)
# The vector unit's floats lose their denormals, so no float may get there.
M55 = Board(
    "mps3-an547",
    "Cortex-M55",
    ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard", "-fno-tree-vectorize"),
)
ALL = {board.name: board for board in (M4, M55)}
# One order of operations for all: no fused multiply-add, nothing reassociated.
ARITHMETIC = ("-ffp-contract=off", "-fno-math-errno")
