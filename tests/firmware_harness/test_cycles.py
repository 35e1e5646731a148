"""The estimate of cycles: prices by Arm's manuals, and every instruction of a step is priced."""

from pathlib import Path

import pytest

from edge_runtime.bundle.reader import read_bundle
from firmware_harness.boards import M4, M55, Board
from firmware_harness.cost import SUBJECTS, duty, measure, slow_cycles
from firmware_harness.cycles import Cycles, price


@pytest.mark.parametrize(
    ("board", "name", "operands", "cycles"),
    [
        (M4, "smlad", "r2, r9, r8, r2", 1), (M4, "ldr.w", "r0, [r1]", 2),
        (M4, "ldmia.w", "r1!, {r9, sl, fp}", 4), (M4, "stmdb", "sp!, {r1, r4-r11, lr}", 11),
        (M4, "vldmia", "r0, {s8-s15}", 9), (M4, "vpush", "{d8-d9}", 5),
        (M4, "vdiv.f32", "s0, s1, s2", 14), (M4, "vmla.f32", "s0, s1, s2", 3),
        (M4, "strd", "r0, r1, [sp]", 3), (M4, "udiv", "r0, r1, r2", 12),
        (M55, "vmlava.s8", "r4, q3, q1", 2), (M55, "vldrb.u8", "q1, [r0], #16", 2),
        (M55, "ldmia.w", "r0!, {r4, r6, r8, sl}", 3), (M55, "ldr", "r0, [r1]", 1),
        (M55, "letp", "lr, 1b", 1),
    ],
)  # fmt: skip
def test_prices(board: Board, name: str, operands: str, cycles: int) -> None:
    assert price(board, name, operands, loaded=False, taken=False) == cycles


def test_a_load_overlaps_the_load_before_and_a_jump_refills() -> None:
    assert price(M4, "ldr", "r0, [r1]", loaded=True, taken=False) == 1
    assert price(M4, "bne.n", "", loaded=False, taken=True) == 3
    assert price(M55, "le", "lr, 1b", loaded=False, taken=True) == 0


def test_wait_states_cost_at_jumps_and_lines_of_tables() -> None:
    cycles = Cycles(at_once=1000, jumps=10, instructions=800)
    assert cycles.with_waits(0, 1600) == 1000
    assert cycles.with_waits(4, 1600) == 1000 + 4 * (10 + 100)
    assert duty(80_000) == 1


@pytest.mark.firmware
@pytest.mark.parametrize("name", ["Cortex-M4, SMLAD", "Cortex-M55, MVE"])
def test_the_priced_instructions_are_those_that_were_counted(
    tiny_bundle: Path, cross_tools: None, name: str
) -> None:
    """Two ways of counting: by the emulator's clock, and one by one."""
    bundle = read_bundle(tiny_bundle)
    subject = next(each for each in SUBJECTS if each.name == name)
    cost = measure(bundle, subject, bundle.arrays("golden.npz")["rows"][:12])
    assert cost.cycles.instructions == pytest.approx(cost.step, rel=0.03)
    assert cost.cycles.at_once > cost.cycles.instructions
    assert slow_cycles(cost) > cost.cycles.at_once
