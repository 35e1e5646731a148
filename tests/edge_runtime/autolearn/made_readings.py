"""Readings of a small machine: two channels to learn from, one that counts and one that stands."""

import random
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.readings.recorder import open_recorder
from edge_runtime.sources.source import Reading

CHANNELS = ("flow", "heat", "count", "fixed")
START = 1.7e9
FAULT = 40.0
"""How much hotter the machine is when it is at fault."""


def rows(count: int, begin: int = 0, fault: int | None = None) -> Iterator[tuple[float, ...]]:
    """Time and readings of each second; from row `fault` on the heat is too high."""
    for row in range(begin, begin + count):
        chance = random.Random(row)
        load = 5.0 if row // 20 % 2 else 8.0
        heat = (
            3 * load + chance.gauss(0, 0.1) + (FAULT if fault is not None and row >= fault else 0)
        )
        yield START + row, load + chance.gauss(0, 0.1), heat, float(row), 7.0


def csv_text(count: int, begin: int = 0, fault: int | None = None) -> str:
    """The same as lines of CSV, without a header."""
    return "".join(
        ",".join(f"{cell:.3f}" for cell in row) + "\n" for row in rows(count, begin, fault)
    )


HEADER = f"time,{','.join(CHANNELS)}\n"


def record(folder: Path, count: int, lost: float = 0.0) -> None:
    """Record them into `folder`, but for a share that was lost on the way."""
    recorder = open_recorder(folder, CHANNELS, 10**7, print)
    chance = random.Random(1)
    for time, *values in rows(count):
        if chance.random() >= lost:
            recorder.add(Reading.of(time, values), time - START)
    recorder.close()
