"""Detectors and series for the benchmark's own tests; importable from worker processes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.judge import ContenderOutcome
from benchmarks.series import Series, TestRecording
from edge_runtime.learning.recording import Recording

ROWS, EVENT = 200, slice(120, 140)


def tiny_series(name: str) -> Series:
    """Two channels of noise; the first one is 9 higher inside the only event."""
    rng = np.random.default_rng(0)
    clean, values = rng.normal(size=(2, ROWS, 2)).astype(np.float32)
    labels = np.zeros(ROWS, np.int8)
    labels[EVENT] = 1
    values[EVENT, 0] += 9
    train = Recording("clean", ("a", "b"), None, clean, None, 1.0)
    return Series(name, (train,), (TestRecording("faulty", values, labels),), (), 1.0)


@dataclass(frozen=True)
class Fake:
    """The first channel as the score, an alarm above 5. log: a line for every run."""

    name: str
    log: Path
    seeded: bool = False

    def run(self, series: Series, seed: int, scratch: Path) -> Mapping[str, ContenderOutcome]:
        """One outcome; `scratch` must be there and empty."""
        assert scratch.is_dir() and not list(scratch.iterdir())
        (scratch / "rubbish.json").write_text("{")
        with self.log.open("a") as log:
            log.write(f"{series.name} {self.name} {seed}\n")
        scores = [test.values[:, 0].astype(np.float64) for test in series.tests]
        return {self.name: ContenderOutcome(scores, [score > 5 for score in scores], 3, 12, 0.5)}


@dataclass(frozen=True)
class Broken(Fake):
    """Fails while the file `log` is not there."""

    def run(self, series: Series, seed: int, scratch: Path) -> Mapping[str, ContenderOutcome]:
        """ValueError, or what Fake does."""
        if not self.log.exists():
            raise ValueError("it cannot be done")
        return super().run(series, seed, scratch)


@dataclass(frozen=True)
class Dying(Fake):
    """Takes its process with it, as a lack of memory does."""

    def run(self, series: Series, seed: int, scratch: Path) -> Mapping[str, ContenderOutcome]:
        """Nothing, ever."""
        os._exit(1)


@dataclass(frozen=True)
class Waiting(Fake):
    """Says in the pipe `started` that it runs, then waits for the pipe `gate` while it is there."""

    started: Path = Path()
    gate: Path = Path()

    def run(self, series: Series, seed: int, scratch: Path) -> Mapping[str, ContenderOutcome]:
        """What Fake does, once it is let."""
        if self.gate.is_fifo():
            self.started.write_text("it runs")
            self.gate.read_text()
        return super().run(series, seed, scratch)
