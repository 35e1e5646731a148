"""The laboratory: a real `gruard run`, fed line by line, with its records and its log."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runtime import children, rows_of
from edge_runtime.bundle.reader import Bundle, read_bundle
from tests.apparatus.harm import edit_manifest
from tests.campaign.fault import Json, check_promises, expect

LIMIT = 60.0
"""Seconds that any wait may take before the row counts as failed."""
DEADLINE = "0.4"
"""Seconds for an answer: longer than a busy machine needs, shorter than a silent source takes."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Lab:
    """A bundle, clean rows of its machine in raw units [n, channels], and a scratch folder."""

    path: Path
    bundle: Bundle
    rows: np.ndarray
    scratch: Path

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names in the bundle's order."""
        return self.bundle.manifest.channel_names

    @property
    def period(self) -> float:
        """Seconds between samples."""
        return self.bundle.manifest.period or 1.0

    @property
    def exogenous(self) -> tuple[str, ...]:
        """Channels that are not scored."""
        return tuple(c.name for c in self.bundle.manifest.channels if c.exogenous)

    @property
    def victim(self) -> int:
        """A channel that is scored."""
        scored = (i for i, c in enumerate(self.bundle.manifest.channels) if not c.exogenous)
        return next(scored)

    def line(self, time: float, row: np.ndarray) -> str:
        """Return a CSV line without its line break; a missing reading is an empty cell."""
        cells = ("" if np.isnan(value) else repr(float(value)) for value in row)
        return ",".join([repr(time), *cells])

    def csv(self, count: int) -> str:
        """Return a CSV of `count` clean rows, which repeat as needed."""
        rows = np.resize(self.rows, (count, len(self.channels)))
        lines = [self.line(i * self.period, row) for i, row in enumerate(rows)]
        return "\n".join([",".join(("time", *self.channels)), *lines]) + "\n"

    @contextlib.contextmanager
    def run(
        self,
        *options: str,
        bundle: Path | None = None,
        store: Path | None = None,
        **environment: str,
    ) -> Iterator["Run"]:
        """Yield a supervised run on stdin; end and check it at the end of the block.

        It uses the lab's own bundle, another bundle, or a store.
        """
        watched = ("--store", str(store)) if store else (str(bundle or self.path),)
        run = Run(self, (*watched, "--source", "-", *options), environment)
        try:
            yield run
        finally:
            run.end()
        check_promises(run.records)

    def copy(self, name: str) -> Path:
        """Copy the bundle into a new folder, for damaging it."""
        folder = Path(tempfile.mkdtemp(prefix="copy-", dir=self.scratch))
        return Path(shutil.copytree(self.path, folder / f"{name}.gruard"))

    def version(self, number: int) -> Path:
        """Copy the bundle and change its version to `number`."""
        copy = self.copy(f"version-{number}")
        edit_manifest(copy, lambda manifest: manifest.update(version=number))
        return copy

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another gruard command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "edge_runtime", *words],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip

    def replay(self, rows: np.ndarray) -> list[Json]:
        """Return the records of `rows` in a run without other faults."""
        with self.run() as run:
            run.feed(rows)
        return run.records


def open_lab(path: Path, scratch: Path, rows: int = 1200) -> Lab:
    """Return a laboratory for the bundle at `path`."""
    bundle = read_bundle(path, allow_failed=True)
    return Lab(path, bundle, rows_of(bundle, rows), scratch)


@dataclass
class Run:
    """One supervised run. `records` and `log` grow while it runs."""

    lab: Lab
    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    records: list[Json] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge_runtime", "run", *self.words, "--deadline", DEADLINE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(self.environment),
        )  # fmt: skip
        assert self.process.stdout and self.process.stderr
        pairs = ((self.process.stdout, self._record), (self.process.stderr, self._line))
        self._readers = [threading.Thread(target=_drain, args=pair, daemon=True) for pair in pairs]
        for reader in self._readers:
            reader.start()
        self.send(",".join(("time", *self.lab.channels)))
        self.await_log("model loaded")

    @property
    def worker(self) -> int | None:
        """Process id of the worker, None while there is none."""
        return next(iter(children(self.process.pid)), None)

    def send(self, line: str | bytes) -> None:
        """Write one line to the run's stdin."""
        assert self.process.stdin
        data = line if isinstance(line, bytes) else line.encode()
        self.process.stdin.write(data + b"\n")
        self.process.stdin.flush()

    def feed(
        self, rows: np.ndarray, times: Sequence[float] | None = None, pace: float = 0.0
    ) -> None:
        """Send rows, each after the one before was answered, at least `pace` seconds apart."""
        for i, row in enumerate(rows):
            known = len(self.records)
            # The time of the next slot: a slow feeder may have caused gap records before.
            moment = known * self.lab.period if times is None else times[i]
            self.send(self.lab.line(moment, row))
            if times is None:
                self.await_records(known + 1)
            time.sleep(pace)

    def await_records(self, count: int) -> None:
        """Wait until there are `count` records."""
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self.records) >= count, LIMIT)
        expect(enough, f"only {len(self.records)} records of {count} after {LIMIT:.0f} s")

    def await_log(self, words: str, times: int = 1) -> None:
        """Wait until the log contains `words` in `times` lines."""
        with self._changed:
            said = self._changed.wait_for(lambda: self.said(words) >= times, LIMIT)
        expect(said, f"the log never says {words!r}: {self.log[-3:]}")

    def said(self, words: str) -> int:
        """Return the number of log lines that contain `words`."""
        return sum(words in line for line in self.log)

    def kill_worker(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the worker."""
        pid = self.worker
        expect(pid is not None, "there is no worker")
        assert pid is not None
        os.kill(pid, number)

    def end(self) -> int:
        """Close stdin, wait for the end, and return the exit code."""
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        for reader in self._readers:
            reader.join(LIMIT)
        return code

    def _record(self, line: bytes) -> None:
        self.records.append(json.loads(line))
        self._notify()

    def _line(self, line: bytes) -> None:
        self.log.append(line.decode(errors="replace").rstrip())
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _drain(stream: Any, take: Any) -> None:
    for line in stream:
        take(line)
