"""Instructions of the network and of a whole step on emulated 64-bit Arm, by kernel of the core.

    python -m benchmarks.arm_cost [--units 32 --units 64 …] [--out docs/engine.md]

The core is cross-compiled, and QEMU's user mode logs every instruction that it executes. What
`FEW` and `MANY` repetitions differ by is counted, so that start and end are left out. The counts
repeat exactly. They are not time: a processor executes several instructions at once, and some take
longer. Needs Debian's gcc-aarch64-linux-gnu and qemu-user-static.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.pages import fill_page, markdown, page_option
from benchmarks.step import made_bundle
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.golden import ROWS as GOLDEN_ROWS
from edge_runtime.detector.kernels import CORE_KERNEL_ID
from edge_runtime.detector.thresholds import threshold_of
from edge_runtime.native.blob import pack, program_of
from edge_runtime.native.layout import NEON, ROWS, Layout
from firmware_harness.boards import CORE
from firmware_harness.cost import macs
from firmware_harness.toolchain import call

MAIN = Path(__file__).with_name("arm_cost.c")
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
# As setup.py has it; linked statically, because no libraries for Arm are here.
FLAGS = ("-std=gnu99", "-O3", "-ffp-contract=off", "-fno-math-errno", "-DGRUARD_HOST", "-static")
FEW, MANY = 4, 12
MARK = "Trace "  # of a line of QEMU's log


@dataclass(frozen=True)
class Processor:
    """A kernel of the core on one of QEMU's processors."""

    name: str
    kernel: str
    layout: Layout
    cpu: str


PROCESSORS = (
    Processor("portable C", "portable", ROWS, "cortex-a72"),
    Processor("NEON", "neon", NEON, "cortex-a72"),
    Processor("NEON with dot products", "neon", NEON, "max"),
)


def instructions(bundle: Bundle, processor: Processor, part: str) -> int:
    """Return the instructions of one `graph` or one `step` of `bundle`, on average.

    Raises GruardError when a tool is missing or fails.
    """
    with tempfile.TemporaryDirectory(prefix="gruard-") as name:
        folder = Path(name)
        program = program_of(bundle, processor.layout)
        blob = pack(bundle, threshold_of(bundle, CORE_KERNEL_ID), program)
        (folder / "blob").write_bytes(blob)
        rows = bundle.arrays("golden.npz")[GOLDEN_ROWS]
        (folder / "rows").write_bytes(np.asarray(rows, "<f4").tobytes())
        sources = [file for file in CORE.glob("*.c") if not file.name.startswith("kernel_")]
        sources += [CORE / f"kernel_{processor.kernel}.c", MAIN]
        call(COMPILER, [*FLAGS, f"-I{CORE}", *sources, "-o", "cost", "-lm"], folder)
        few, many = (_executed(processor, part, times, folder) for times in (FEW, MANY))
    return round((many - few) / (MANY - FEW))


def _executed(processor: Processor, part: str, times: int, folder: Path) -> int:
    """Return the instructions of a whole run: one block of the log each."""
    log = folder / "log"
    logged = ["-singlestep", "-d", "exec,nochain", "-D", str(log)]
    program = [str(folder / "cost"), "blob", "rows", part, str(times)]
    call(EMULATOR, ["-cpu", processor.cpu, *logged, *program], folder)
    with log.open() as lines:
        return sum(line.startswith(MARK) for line in lines)


def line(bundle: Bundle, units: int, processor: Processor) -> list[str]:
    """A line of the table."""
    click.echo(f"{bundle.path.name}: {processor.name}", err=True)
    network = instructions(bundle, processor, "graph")
    step = instructions(bundle, processor, "step")
    per_mac = f"{network / macs(bundle):.2f}"
    return [f"H = {units}", processor.name, f"{network:,}", per_mac, f"{step:,}"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--units", multiple=True, default=(32, 64, 128), show_default=True, type=int)
@page_option("arm")
def main(units: tuple[int, ...], out: Path | None) -> None:
    """Count the instructions of a step on emulated 64-bit Arm."""
    body = list[list[str]]()
    with tempfile.TemporaryDirectory() as folder:
        for count in units:
            bundle = made_bundle(count, Path(folder))
            body += [line(bundle, count, processor) for processor in PROCESSORS]
    head = ["network", "kernel", "instructions: network", "a multiply-accumulate", "whole step"]
    table = markdown(head, body)
    click.echo(table)
    if out:
        fill_page(out, table, "arm")


if __name__ == "__main__":
    main()
