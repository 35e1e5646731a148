"""The compiled module refuses what does not fit, buffer by buffer, and goes on as before.

What does not fit into the core at all is refused before it is packed.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import native_core  # noqa: F401
import numpy as np
import pytest
from native_models import HASTY, THRESHOLD, changed, faulty_rows, linear

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import pack, program_of
from edge_runtime.native.engine import RECORD, NativeDetector, core_module
from edge_runtime.native.layout import DSP, MOST_PAIRED, ROWS, layout_of
from edge_runtime.native.multiplier import NOTHING, Multiplier, multiplier

CHANNELS = 3
ROW = np.zeros(CHANNELS, np.float32)
SHIFTED = np.frombuffer(bytes(4 * CHANNELS + 1), np.uint8)[1:]  # at an odd address
LOCKED = np.zeros(1, RECORD)
LOCKED.flags.writeable = False
REFUSED: dict[str, Callable[[Any], object]] = {
    "step: a part of a number": lambda core: core.step(b"123"),
    "step: an odd address": lambda core: core.step(SHIFTED),
    "step: two rows": lambda core: core.step(np.zeros((2, CHANNELS), np.float32)),
    "step: no buffer": lambda core: core.step(1.0),
    "step_fallback: no row": lambda core: core.step_fallback(b""),
    "run: one argument": lambda core: core.run(ROW),
    "run: no whole row": lambda core: core.run(ROW[1:], np.zeros(1, RECORD)),
    "run: fewer records": lambda core: core.run(ROW, np.zeros(0, RECORD)),
    "run: read-only records": lambda core: core.run(ROW, LOCKED),
    "roll: one argument": lambda core: core.roll(ROW),
    "roll: no buffer": lambda core: core.roll(ROW, 1, 2, 3, 4, None),
    "roll: empty buffers": lambda core: core.roll(ROW, *(bytearray() for _ in range(4)), None),
    "set_threshold: a word": lambda core: core.set_threshold("high", 1.0),
    "run_graph: a word": lambda core: core.run_graph("often"),
    "stand_at: another number": lambda core: core.stand_at(ROW[1:]),
    "stand_at: no buffer": lambda core: core.stand_at(None),
    "resume: one argument": lambda core: core.resume(1),
    "resume: no centre": lambda core: core.resume(1, 1, None, ROW),
    "resume: no baselines": lambda core: core.resume(1, 1, ROW, None),
    "resume: another number": lambda core: core.resume(1, 1, ROW, ROW[1:]),
}


@pytest.mark.parametrize("call", REFUSED)
def test_a_call_that_does_not_fit_is_refused_and_changes_nothing(call: str) -> None:
    bundle = linear(CHANNELS)
    rows = faulty_rows(bundle, 40, seed=3)
    harmed, healthy = NativeDetector(bundle), NativeDetector(bundle)
    assert np.array_equal(harmed.run(rows[:20]), healthy.run(rows[:20]))
    with pytest.raises((ValueError, TypeError, BufferError)):
        REFUSED[call](harmed._core)
    assert np.array_equal(harmed.run(rows[20:]), healthy.run(rows[20:]))


@pytest.mark.parametrize("blob", [(), (b"", b""), (None,), (b"GRUA",)], ids=repr)
def test_a_core_over_something_else_is_refused(blob: tuple[object, ...]) -> None:
    with pytest.raises((ValueError, TypeError)):
        core_module().Core(*blob)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: {"alarm": replace(m.alarm, n=33)}, "debounces over at most 32"),
        (lambda m: {"alarm": replace(m.alarm, clear_after=1 << 25)}, "clear_after is"),
        (lambda m: {"tiers": replace(HASTY, warmup=(1 << 24) + 1)}, "warmup is 16777217"),
        (lambda m: {"tiers": replace(HASTY, window=1 << 31)}, "tiers.window is beyond"),
        (lambda m: {"tiers": replace(HASTY, hour=1 << 31)}, "tiers.hour is beyond"),
        (
            lambda m: {"forecast": replace(m.forecast, highway=m.forecast.highway[:1] * 65)},
            "a highway over more than 64 samples",
        ),
    ],
    ids=["n", "clear_after", "warmup", "window", "hour", "highway"],
)
def test_constants_that_the_core_cannot_count_to_are_refused(
    change: Callable[[Any], dict[str, object]], told: str
) -> None:
    bundle = linear(CHANNELS)
    beyond = changed(bundle, **change(bundle.manifest))
    with pytest.raises(GruardError, match=f"made.gruard: .*{told}"):
        pack(beyond, THRESHOLD, program_of(beyond))


def test_more_operators_than_the_core_counts_are_refused(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.native.blob._MOST_OPERATORS", 3)
    with pytest.raises(GruardError, match=r"tiny-1\.gruard: \d+ operators, too many"):
        program_of(read_bundle(tiny_bundle))


def test_a_factor_is_at_most_half_a_bit_of_31_off() -> None:
    assert multiplier(0.0) == multiplier(2.0**-40) == NOTHING
    assert multiplier(1.0) == Multiplier(1 << 30, 1)
    assert multiplier(1 - 2.0**-40) == Multiplier(1 << 30, 1)  # rounded up to the next power of 2


def test_a_kernel_of_an_unknown_layout_is_refused() -> None:
    assert layout_of(ROWS.number) is ROWS
    with pytest.raises(GruardError, match="layout 9 of the C core is unknown; build it again"):
        layout_of(9)


def test_sums_that_packed_rows_cannot_hold_are_refused() -> None:
    bias = np.zeros(2, np.int64)
    assert DSP.arrange(np.full((2, MOST_PAIRED), -127, np.int8), bias)
    for weights in (np.zeros((2, MOST_PAIRED + 1), np.int8), np.full((2, 8), -128, np.int8)):
        with pytest.raises(GruardError, match="does not fit into packed rows"):
            DSP.arrange(weights, bias)
