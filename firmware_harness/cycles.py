"""An estimate of a step's cycles: its instructions, one by one, priced by rules.

QEMU executes one instruction at a time and names its address; objdump says what lies there. The
prices are those of Arm's manuals as far as they are published, see docs/firmware.md. They know
nothing of a particular chip: what its flash costs is a parameter.
"""

import bisect
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import GruardError
from firmware_harness.boards import M55, Board
from firmware_harness.toolchain import call, emulator_command

LINE = 16  # bytes that a flash gives at once
_EXECUTED = re.compile(r"\[[0-9a-f]+/([0-9a-f]{8})/")
_CODE = re.compile(r"\s*([0-9a-f]+):\t([0-9a-f ]+)\t(\S+)\s*(.*)")
_MEASURING = ("main", "cost_")  # functions that are not the core's
_DIVISION, _INTEGER_DIVISION, _CHAINED, _REFILL = 14, 12, 3, 2
_LOOP_ENDS = ("le", "letp")
_MANY = ("ldm", "pop", "stm", "push", "vldm", "vstm", "vpush", "vpop")


@dataclass(frozen=True)
class Cycles:
    """Estimate for one step. at_once: from memory without wait states. jumps: taken branches, each
    of which waits for the flash. instructions: that were executed."""

    at_once: int
    jumps: int
    instructions: int

    def with_waits(self, states: int, table_bytes: int) -> int:
        """Return the cycles with so many wait states for a jump and for each line of tables.

        table_bytes: that the step reads from flash.
        """
        return self.at_once + states * (self.jumps + table_bytes // LINE)


@dataclass(frozen=True)
class _Instruction:
    name: str
    operands: str
    following: int


def estimate(board: Board, image: Path, folder: Path, arguments: list[str]) -> Cycles:
    """Run the cost image in `folder` and return the estimate of its median step.

    Raises GruardError when a tool is missing or the image makes no step.
    """
    code, symbols = _disassembled(image, folder), _symbols(image, folder)
    steps = sorted(_steps(board, image, folder, arguments, code, symbols), key=_at_once)
    if not steps:
        raise GruardError(f"{image.name} on {board.name}: no step was traced")
    return steps[len(steps) // 2]


def _at_once(cycles: Cycles) -> int:
    return cycles.at_once


def _disassembled(image: Path, folder: Path) -> dict[int, _Instruction]:
    found = {}
    for line in call("arm-none-eabi-objdump", ["-d", image], folder).splitlines():
        part = _CODE.match(line)
        if part:
            at, size = int(part[1], 16), len(part[2].replace(" ", "")) // 2
            found[at] = _Instruction(part[3], part[4], at + size)
    return found


def _symbols(image: Path, folder: Path) -> list[tuple[int, str]]:
    lines = (line.split() for line in call("arm-none-eabi-nm", [image], folder).splitlines())
    named = [line for line in lines if len(line) == 3 and line[1] in "tT" and line[2][0] != "$"]
    return sorted((int(line[0], 16) & ~1, line[2]) for line in named)


def _executed(board: Board, image: Path, folder: Path, arguments: list[str]) -> Iterator[int]:
    """Yield the address of each instruction."""
    trace = ["-singlestep", "-d", "exec,nochain", "-D", "/dev/stderr"]
    command = emulator_command(board, image, [*arguments, *trace])
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            part = _EXECUTED.search(line)
            if part:
                yield int(part[1], 16)


def _steps(
    board: Board,
    image: Path,
    folder: Path,
    arguments: list[str],
    code: Mapping[int, _Instruction],
    symbols: list[tuple[int, str]],
) -> Iterator[Cycles]:
    """Yield the cycles of each step: from the entry of gruard_step until its caller goes on."""
    places, names = [at for at, _ in symbols], [name for _, name in symbols]
    entry = places[names.index("gruard_step")]
    total = jumps = count = before = 0
    inside, loaded = False, False
    for at in _executed(board, image, folder, arguments):
        name = names[bisect.bisect_right(places, at) - 1]
        if at == entry:
            inside, total, jumps, count = True, 0, 0, 0
        elif inside and name == "main":
            inside = False
            yield Cycles(total, jumps, count)
        last = code.get(before)
        if inside and last and count:
            taken = at != last.following
            total += price(board, last.name, last.operands, loaded, taken)
            jumps += taken and last.name not in _LOOP_ENDS
            loaded = last.name.startswith(("ldr", "str"))
        measuring = name.startswith(_MEASURING)
        count += inside and not measuring
        before = 0 if measuring else at


def price(board: Board, name: str, operands: str, loaded: bool, taken: bool) -> int:
    """Return the cycles of one instruction. loaded: the one before was a load or a store of a
    word, which it can overlap. taken: the next one is elsewhere."""
    refill = _REFILL if taken else 0
    if board == M55:
        if name in _LOOP_ENDS:
            return 0 if taken else 1  # the loop is kept
        if re.search(r"\bq[0-7]\b", operands):
            return 2  # two beats of 64 bits
    if name.startswith(_MANY):
        words = _registers(operands)
        return 1 + refill + (-(-words // 2) if board == M55 else words)
    if name.startswith(("ldrd", "strd")):
        return 2 if board == M55 else 3
    if name.startswith(("vldr", "vstr")):
        return 1 if board == M55 else 2
    if name.startswith("ldr"):
        return refill + (1 if loaded or board == M55 else 2)
    if name.startswith(("vdiv", "vsqrt")):
        return _DIVISION
    if name.startswith(("udiv", "sdiv")):
        return _INTEGER_DIVISION
    if name.startswith(("vmla.f", "vmls.f", "vnml")):
        return _CHAINED
    return 1 + refill + (1 if name.startswith("tb") else 0)


def _registers(operands: str) -> int:
    """Return the number of 32-bit registers in braces."""
    listed = re.search(r"\{(.*)\}", operands)
    names = {"sl": "r10", "fp": "r11", "ip": "r12", "sp": "r13", "lr": "r14", "pc": "r15"}
    count = 0
    for part in (listed[1] if listed else "").split(","):
        ends = [names.get(name.strip(), name.strip()) for name in part.split("-")]
        width = 2 if ends[0].startswith("d") else 1
        count += width * (int(ends[-1][1:]) - int(ends[0][1:]) + 1)
    return count
