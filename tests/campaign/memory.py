"""Flipped bits in the memory of the running worker: weights, constants, heap."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.campaign.fault import Fault, Happened, expect
from tests.campaign.lab import Lab, Run

START = 200
SAMPLES = 9000
INTERPRETED = ("--kernel", "tflite-builtin")
"""Options of a run whose weights, constants and tensors lie where these faults look for them."""


def _weights(lab: Lab) -> Happened:
    """Flip one bit of a weight in the interpreter's memory."""
    model = lab.bundle.model
    expect(bool(model), "a linear bundle has no weights to flip")
    with lab.run(*INTERPRETED) as run:
        run.feed(lab.rows[:START])
        found = places(run, model)
        expect(bool(found), "the model is not found in memory")
        for place in found:
            flip_in_memory(run, place + len(model) // 2)
        count = until_told(run, "weights changed in memory")
    return f"noticed after {count} samples, the process replaced"


def until_told(run: Run, words: str) -> int:
    """Feed samples until the log contains `words`; return how many that took."""
    rows = run.lab.rows
    for count in range(SAMPLES):
        if run.said(words):
            return count
        run.feed(rows[count % len(rows)][np.newaxis])
    expect(False, f"not noticed within {SAMPLES} samples")
    return SAMPLES


def places(run: Run, pattern: bytes) -> list[int]:
    """Return the addresses of `pattern` in the worker."""
    found = []
    maps = Path(f"/proc/{run.worker}/maps").read_text().splitlines()
    with Path(f"/proc/{run.worker}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            if "w" not in rights or "[v" in line:
                continue
            low, high = (int(part, 16) for part in span.split("-"))
            try:
                memory.seek(low)
                data = memory.read(high - low)
            except (OSError, ValueError):
                continue
            at = data.find(pattern)
            while at >= 0:
                found.append(low + at)
                at = data.find(pattern, at + 1)
    return found


def flip_in_memory(run: Run, address: int, bit: int = 0) -> None:
    """Flip one bit. OSError when the process has just ended."""
    with memory_of(run) as memory:
        flip(memory, address, bit)


@contextlib.contextmanager
def memory_of(run: Run) -> Iterator[int]:
    """A descriptor of the memory of the inference process."""
    memory = os.open(f"/proc/{run.worker}/mem", os.O_RDWR)
    try:
        yield memory
    finally:
        os.close(memory)


def flip(memory: int, address: int, bit: int) -> None:
    """The same, with the descriptor of `memory_of`."""
    byte = os.pread(memory, 1, address)
    if not byte:
        raise ProcessLookupError
    os.pwrite(memory, bytes([byte[0] ^ 1 << bit]), address)


def _constants(lab: Lab) -> Happened:
    """The low mantissa bits of the innovation scales, in every copy in memory."""
    scale = np.array(lab.bundle.manifest.forecast.innovation_scale, np.float32)
    with lab.run(*INTERPRETED) as run:
        run.feed(lab.rows[:START])
        found = places(run, scale.tobytes())
        expect(bool(found), "the constants are not found in memory")
        for place in found:
            flip_in_memory(run, place + 2)
        count = until_told(run, "self-test failed")
    return f"noticed by the golden vectors after {count} samples, the process replaced"


def _noise(lab: Lab) -> Happened:
    """Bits anywhere in the heap of the inference process: 300 of them, one every three samples."""
    rng = np.random.default_rng(0)
    with lab.run() as run:
        run.feed(lab.rows[:START])
        for i in range(300):
            if run.worker is not None:
                _flip_somewhere(run, rng)
            run.feed(lab.rows[START + i : START + i + 1])
            run.feed(lab.rows[START + i : START + i + 1], pace=0.002)
    restarts = run.said("model loaded") - 1
    return f"no record is missing or unmarked; {restarts} restarts"


def _flip_somewhere(run: Run, rng: np.random.Generator) -> None:
    try:
        maps = Path(f"/proc/{run.worker}/maps").read_text().splitlines()
        heap = next(line for line in maps if line.endswith("[heap]"))
        low, high = (int(part, 16) for part in heap.split()[0].split("-"))
        flip_in_memory(run, int(rng.integers(low, high)))
    except (OSError, StopIteration):
        return  # it has just ended


FAULTS = (
    Fault("weights in memory", "a bit of a weight in use", "noticed, process replaced", _weights),
    Fault("constants in memory", "a bit of a constant in use", "noticed, process replaced",
          _constants),
    Fault("heap in memory", "300 bits anywhere in the heap", "no record missing or unmarked",
          _noise),
)  # fmt: skip
