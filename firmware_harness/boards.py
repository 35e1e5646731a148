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
class Toolchain:
    """prefix: of the compiler's and the binary tools' names. library: flags for its C library.
    emulator: QEMU's program."""

    prefix: str
    library: tuple[str, ...]
    emulator: str

    @property
    def compiler(self) -> str:
        return self.prefix + "gcc"


ARM = Toolchain("arm-none-eabi-", ("-specs=nano.specs", "-specs=nosys.specs"), "qemu-system-arm")
RISCV = Toolchain("riscv64-unknown-elf-", ("-specs=picolibc.specs",), "qemu-system-riscv32")


@dataclass(frozen=True)
class Board:
    """machine: QEMU's words for it. flags: for the compiler. start: C files for start and
    peripherals. place: folder of its memory.ld and place.h.

    kernels: the fastest first; a bundle uses the first one that can run it.
    tick: of the firmware's counter, nanoseconds. without: why it has no firmware, and so neither
    line, watchdog nor flips, but only replays; empty if it has one.
    """

    name: str
    processor: str
    toolchain: Toolchain
    machine: tuple[str, ...]
    flags: tuple[str, ...]
    start: tuple[str, ...]
    place: str
    kernels: tuple[Kernel, ...] = (PORTABLE,)
    tick: float = 0.0
    without: str = ""

    @property
    def sources(self) -> list[Path]:
        return [BOARDS / name for name in self.start]

    @property
    def includes(self) -> list[str]:
        """The compiler's options for the board's headers."""
        return [f"-I{BOARDS}", f"-I{BOARDS / self.place}"]

    @property
    def script(self) -> list[str]:
        """The linker's options for the memory layout."""
        return [f"-L{BOARDS}", "-T", str(BOARDS / self.place / "memory.ld")]


def _mps(
    image: str,
    processor: str,
    flags: tuple[str, ...],
    kernels: tuple[Kernel, ...],
    tick: float = 40.0,
    place: str = "mps2",
) -> Board:
    """Return one of Arm's MPS boards, which differ in their FPGA image."""
    start, flags = ("cortex_m.c", "cmsdk.c"), ("-mthumb", *flags)
    return Board(image, processor, ARM, ("-M", image), flags, start, place, kernels, tick)


def _virt(isa: str, abi: str, processor: str) -> Board:
    """Return QEMU's machine virt with a processor that has nothing but `isa`."""
    absent = [f"{letter}=false" for letter in "afd" if letter not in isa.removeprefix("rv32")]
    machine = ("-M", "virt", "-bios", "none", "-cpu", ",".join(["rv32", *absent]))
    flags = (f"-march={isa}", f"-mabi={abi}", "-mcmodel=medany")
    without = "QEMU's virt has no watchdog"
    return Board(
        f"virt-{isa}", processor, RISCV, machine, flags, ("riscv.c",), "virt", without=without
    )


M3 = _mps("mps2-an385", "Cortex-M3", ("-mcpu=cortex-m3",), (PORTABLE,))
M4 = _mps(
    "mps2-an386",
    "Cortex-M4F",
    ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    (DSP, PORTABLE),
)
M7 = _mps(
    "mps2-an500",
    "Cortex-M7F",
    ("-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
    (DSP, PORTABLE),
)
M33 = _mps(
    "mps2-an505",
    "Cortex-M33F",
    ("-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
    (DSP, PORTABLE),
    50.0,
    "mps2-an505",
)
# The vector unit flushes denormal floats to zero, so the compiler must not vectorise.
M55 = _mps(
    "mps3-an547",
    "Cortex-M55",
    ("-mcpu=cortex-m55", "-mfloat-abi=hard", "-fno-tree-vectorize"),
    (MVE, PORTABLE),
    50.0,
    "mps3-an547",
)
M0 = Board(
    "microbit",
    "Cortex-M0",
    ARM,
    ("-M", "microbit"),
    ("-mthumb", "-mcpu=cortex-m0"),
    ("cortex_m.c",),
    "microbit",
    without="16 kB of memory are too few for it, and QEMU's microbit has no watchdog",
)
RV32F = _virt("rv32imafc", "ilp32f", "RV32IMAFC")
RV32 = _virt("rv32imc", "ilp32", "RV32IMC")
ALL = {board.name: board for board in (M0, M3, M4, M7, M33, M55, RV32F, RV32)}
# What a command takes that is given no board: one for each kernel of its own.
USUAL = (M4, M55)
# The same order of operations everywhere: no fused multiply-add, no reassociation.
ARITHMETIC = ("-ffp-contract=off", "-fno-math-errno")
