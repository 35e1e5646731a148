"""A run of the whole command on a source of a test's: its records as they come, and its log."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_runtime.sources.lines import StreamLines
from edge_runtime.sources.source import TimeLimit

HERE = Path(__file__).parent
PERIOD = 0.1
PATIENCE = 60.0  # seconds; only a failing test ever waits for them
A_LOOK = 0.2  # seconds for a record before the next message is sent

Record = dict[str, Any]


class LiveRun:
    """`gruard run` with a fake model on `source`; channels a and b, alarm when a is above 100."""

    def __init__(self, source: str, log: Path, environment: Mapping[str, str]) -> None:
        self._log = log
        arguments = ["run", "x.gruard", "--source", source, "--json", "--deadline", "30"]
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "fake_gruard.py"), "none@0", *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={
                    **os.environ,
                    "PYTHONPATH": str(HERE.parents[1]),
                    "FAKE_PERIOD": str(PERIOD),
                    **environment,
                },
            )
        assert self.process.stdout
        self._lines = StreamLines(self.process.stdout.fileno(), "the run")
        self.records: list[Record] = []

    def until(
        self, wanted: Callable[[Record], bool], meanwhile: Callable[[], None] = lambda: None
    ) -> Record:
        """The next record that is `wanted`; `meanwhile` is called over and over until it comes."""
        limit = TimeLimit(PATIENCE)
        while limit.left():
            meanwhile()
            if (record := self._next()) and wanted(record):
                return record
        raise AssertionError(f"no such record; the log is\n{self.log}")

    @property
    def log(self) -> str:
        """What it said on stderr so far."""
        return self._log.read_text()

    def logged(self, words: str) -> None:
        """Wait until the log has `words`."""
        limit = TimeLimit(PATIENCE)
        while words not in self.log:
            assert limit.left(), f"nobody said {words!r}; the log is\n{self.log}"
            self._next()

    def _next(self) -> Record | None:
        line = self._lines.next(A_LOOK)
        if line is None:
            return None
        self.records.append(json.loads(line))
        return self.records[-1]

    def stop(self) -> dict[str, Any]:
        """End it in good order: its summary, after checks that every run has to pass."""
        self.logged("model loaded")  # before that SIGTERM just ends it
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, (self.process.returncode, self.log)
        lines = self.log.splitlines()
        assert "Traceback" not in self.log, self.log
        assert [record["index"] for record in self.records] == [*range(len(self.records))]
        summary: dict[str, Any] = json.loads(lines[-1])
        return summary


@contextmanager
def live_run(source: str, folder: Path, **environment: str) -> Iterator[LiveRun]:
    """A run that has ended, one way or the other, when the test has."""
    run = LiveRun(source, folder / "log", environment)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


def is_gap(record: Record) -> bool:
    return "GAP" in record["flags"]


def is_answer(record: Record) -> bool:
    return not is_gap(record)


def is_alarm(record: Record) -> bool:
    return bool(record["alarm"]) and is_answer(record)
