"""Measure the cost of a step on a board: instructions, by part and by operator, and memory.

QEMU counts the instructions (-icount), and the counts repeat exactly. They are not cycles; those
are estimated (cycles.py), because QEMU emulates no pipeline and no wait states.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.kernels import CORE_KERNEL_ID
from edge_runtime.detector.thresholds import threshold_of
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import pack, program_of
from edge_runtime.native.program import KINDS, Program
from edge_runtime.record import Float32
from firmware_harness import c_files
from firmware_harness.boards import (
    DSP,
    FIRMWARE,
    M4,
    M55,
    MVE,
    PORTABLE,
    Board,
    Kernel,
)
from firmware_harness.building import LINK, compiler_flags
from firmware_harness.cycles import Cycles, estimate
from firmware_harness.toolchain import call, run_to_end

# An instruction takes 2^8 ns of emulated time: the clock ticks about seven times, and wraps around
# after two million instructions.
SHIFT, ROUND = 8, 1 << 24
MOST_A_MAC = 20  # instructions per multiply-accumulate, all other work included
CLOCK_NS = {"mps2-an386": 40.0, "mps3-an547": 31.25}  # of SysTick, the processor's own
PARTS = ("read", "forecast", "feed", "network", "blend", "score", "diagnosis", "record")
Codes = npt.NDArray[np.uint32]
_LIMIT = 300.0
TRACED = 12  # steps whose instructions are priced
CLOCK, RATE, WAITS = 80e6, 1e3, 4  # Hz, steps a second, wait states of flash at that clock
_IMAGE = "cost.elf"


@dataclass(frozen=True)
class Subject:
    """A kernel on a board that supports it."""

    name: str
    board: Board
    kernel: Kernel


SUBJECTS = (
    Subject("Cortex-M4, portable C", M4, PORTABLE),
    Subject("Cortex-M4, SMLAD", M4, DSP),
    Subject("Cortex-M55, portable C", M55, PORTABLE),
    Subject("Cortex-M55, MVE", M55, MVE),
)


@dataclass(frozen=True)
class Cost:
    """Instructions of a step: median of the steps without an alarm, in total, by part and by
    operator; and the maximum. A step with an alarm also computes its kind and channels.

    cycles: estimated. tables: bytes of the network's weights and tables, which a step reads.
    text: bytes of code and constants without the bundle's tables. stack: largest use of a step,
    bytes. memory: bytes of the detector's state.
    """

    step: int
    largest: int
    parts: dict[str, int]
    operators: dict[str, int]
    cycles: Cycles
    tables: int
    text: int
    stack: int
    memory: int


def measure(bundle: Bundle, subject: Subject, rows: Float32) -> Cost:
    """Run raw `rows` through the detector of `bundle` and count instructions.

    Raises GruardError when a tool is missing or fails, or the network is too large for the clock.
    """
    limit = int(ROUND * CLOCK_NS[subject.board.name] / (1 << SHIFT)) // MOST_A_MAC
    if macs(bundle) > limit:
        raise GruardError(
            f"{bundle.path}: a step of {macs(bundle):,} multiply-accumulates cannot be counted on "
            f"{subject.board.name}, whose clock would wrap around; at most {limit:,}"
        )
    with tempfile.TemporaryDirectory(prefix="gruard-") as name:
        folder = Path(name)
        program = program_of(bundle, subject.kernel.layout)
        blob = pack(bundle, threshold_of(bundle, CORE_KERNEL_ID), program)
        _compile(blob, subject, folder)
        arguments = ["-serial", "none", "-semihosting-config", "enable=on,target=native"]
        (folder / "rows.bin").write_bytes(np.asarray(rows[:TRACED], "<f4").tobytes())
        cycles = estimate(subject.board, folder / _IMAGE, folder, arguments)
        (folder / "rows.bin").write_bytes(np.asarray(rows, "<f4").tobytes())
        arguments += ["-icount", f"shift={SHIFT}"]
        code = run_to_end(subject.board, folder / _IMAGE, arguments, folder, _LIMIT)
        if code:
            raise GruardError(f"{subject.board.name}: measuring ended with code {code}")
        numbers = np.fromfile(folder / "costs.bin", "<u4")
        return _cost(program, subject, numbers, len(rows), _text(subject, folder), cycles)


def _compile(blob: bytes, subject: Subject, folder: Path) -> None:
    made = "#include <stdint.h>\nextern const uint32_t gruard_blob_size;\n"
    made += c_files.words("gruard_blob", blob)
    (folder / "built.c").write_text(f"{made}const uint32_t gruard_blob_size = {len(blob)};\n")
    board, cost = subject.board, FIRMWARE / "cost"
    sources = [
        *subject.kernel.core_sources,
        *board.sources,
        folder / "built.c",
        cost / "cost.c",
    ]
    flags = [*compiler_flags(board), f"-I{cost}", "-DGRUARD_COST", *LINK, *board.script]
    call(board.toolchain.compiler, [*flags, *sources, "-o", _IMAGE], folder)


def _text(subject: Subject, folder: Path) -> int:
    """Return the bytes of the core's code and constants, compiled without the cost marks."""
    toolchain = subject.board.toolchain
    flags = [*compiler_flags(subject.board), "-c"]
    call(toolchain.compiler, [*flags, *subject.kernel.core_sources], folder)
    objects = [f"{source.stem}.o" for source in subject.kernel.core_sources]
    lines = call(toolchain.prefix + "size", objects, folder).splitlines()[1:]
    return sum(int(line.split()[0]) + int(line.split()[1]) for line in lines)


def _cost(
    program: Program, subject: Subject, numbers: Codes, rows: int, text: int, cycles: Cycles
) -> Cost:
    empty, parts = int(numbers[0]), int(numbers[1])
    table = numbers[2 : 2 + rows * (2 + parts)].reshape(rows, 2 + parts).astype(np.int64)
    steps = table[:, 1:]
    alarms = table[:, 0] > 0
    usual = np.median(steps if alarms.all() else steps[~alarms], axis=0)
    operators = numbers[2 + table.size : -2]
    tick = CLOCK_NS[subject.board.name] / (1 << SHIFT)

    def instructions(ticks: float) -> int:
        return round((ticks - empty) * tick)

    # Subtract the cost of the marks themselves, which read the clock twice.
    marks = instructions(2 * empty) * parts
    by_kind = dict.fromkeys(KINDS, 0)
    for operator, ticks in zip(program.operators, operators, strict=True):
        by_kind[KINDS[operator[0]]] += instructions(float(ticks))
    return Cost(
        step=instructions(float(usual[0])) - marks,
        largest=instructions(float(steps[:, 0].max())) - marks,
        parts={name: instructions(float(usual[1 + i])) for i, name in enumerate(PARTS)},
        operators={kind: count for kind, count in by_kind.items() if count},
        cycles=cycles,
        tables=len(program.constants) + 4 * len(program.integers),
        text=text,
        stack=int(numbers[-2]),
        memory=int(numbers[-1]),
    )


def slow_cycles(cost: Cost) -> int:
    """Return the cycles of a step from a flash with `WAITS` wait states."""
    return cost.cycles.with_waits(WAITS, cost.tables)


def duty(cycles: int) -> float:
    """Return the share of time that steps of so many cycles take at `RATE` on `CLOCK`."""
    return cycles * RATE / CLOCK


def macs(bundle: Bundle) -> int:
    """Return the multiply-accumulates of the network's products in a step."""
    graph = bundle.graph
    products = (o.inputs[1] for o in graph.operators if o.name == "FULLY_CONNECTED")
    return sum(int(np.prod(graph.tensors[index].shape)) for index in products)


def cost_text(found: Mapping[str, Cost], network_macs: int) -> str:
    """Return the results of `measure` for each kernel as text."""
    lines = [f"{network_macs:,} multiply-accumulates a step", ""]
    for name, cost in found.items():
        network = cost.parts["network"]
        each = f", {network / network_macs:.2f} a multiply-accumulate" if network_macs else ""
        lines += [
            name,
            f"  step       {cost.step:,} instructions, {cost.largest:,} at most",
            f"  network    {network:,}{each}",
            f"  cycles     about {cost.cycles.at_once:,}; {slow_cycles(cost):,} with {WAITS} wait "
            f"states; {duty(slow_cycles(cost)):.0%} of the time at 1 kHz on 80 MHz",
            f"  parts      {_listed(cost.parts)}",
            f"  operators  {_listed(cost.operators)}",
            f"  memory     {cost.text:,} bytes of code, {cost.memory:,} of state, "
            f"{cost.stack:,} of stack",
        ]
    return "\n".join(lines)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
