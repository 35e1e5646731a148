"""The whole life of a detector in one command: `gruard run --learn`."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_readings import HEADER, csv_text

from edge_runtime.readings.parts import count_rows
from edge_runtime.updates.store import Store

ROOT = Path(__file__).parents[3]
PATIENCE = 120  # seconds; only a failing test ever waits for them
LEARN = 180  # rows in --learn 3m
FAULTY = 330
Record = dict[str, Any]


def command(store: Path, source: str, *options: str) -> list[str]:
    words = ["run", "--learn", "3m", "--store", str(store), "--source", source, "--deadline", "30"]
    return [sys.executable, "-m", "edge_runtime", *words, *options]


def played(store: Path, file: Path, *options: str) -> "tuple[list[Record], str]":
    """The records and the log of a run on a file."""
    done = subprocess.run(
        command(store, str(file), *options), cwd=ROOT, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def is_learning(record: Record) -> bool:
    return "LEARNING" in record["flags"]


@pytest.mark.slow
def test_a_file_is_learned_from_and_then_answered_by_what_was_learned(tmp_path: Path) -> None:
    file, store = tmp_path / "day.csv", tmp_path / "pump"
    head = HEADER.replace("fixed", "state")
    text = csv_text(400, fault=FAULTY).replace(",7.000\n", ",runs\n")
    file.write_text(head + text)
    records, log = played(store, file)
    begun = [is_learning(record) for record in records]
    assert all(record["tier"] == 3 and not record["valid"] for record in records[:LEARN])
    assert begun == sorted(begun, reverse=True) and LEARN <= sum(begun) <= LEARN + 3
    assert {record["tier"] for record in records[sum(begun) :]} == {1}
    assert not any(record["alarm"] for record in records[:FAULTY])
    assert any(record["alarm"] and "heat" in record["blamed"] for record in records[FAULTY:])
    assert len(records) == 400 and "pump-1 answers from here on" in log
    slot = Store(store).slots.find("pump-1").bundle
    assert slot and slot.manifest.channel_names == ("flow", "heat")
    # The same command again has nothing to learn, and still records.
    before = count_rows(store / "readings")
    again, log = played(store, file)
    assert not any(map(is_learning, again)) and "learning" not in log
    assert count_rows(store / "readings") == before + 400
    assert {record["tier"] for record in again[30:]} == {1}  # after the warm-up


class Life:
    """A service that is killed and started again, on lines that a test feeds it."""

    def __init__(self, folder: Path) -> None:
        self.store, self._log_file, self.row = folder / "pump", folder / "log", 0
        self.readings = self.store / "readings"
        self.process: subprocess.Popen[bytes] | None = None
        self.records: list[Record] = []

    def start(self) -> None:
        with self._log_file.open("w") as log:
            self.process = subprocess.Popen(
                command(self.store, "-"), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log,
            )  # fmt: skip
        self.records, self._rest = [], b""
        self._feed(HEADER)

    def _feed(self, text: str) -> None:
        assert self.process and self.process.stdin
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    def until(
        self, happened: Callable[[], bool], fault: int | None = None, most: int = 600
    ) -> None:
        """Feed rows, each after the record of the last one, until something happened."""
        end = time.monotonic() + PATIENCE
        fed = 0
        while not happened():
            assert time.monotonic() < end and self.process and self.process.poll() is None, self.log
            if fed < most:
                self._feed(csv_text(1, self.row, fault))
                self.row, fed = self.row + 1, fed + 1
            self._take(0.02 if fed < most else 0.2)

    def _take(self, seconds: float) -> None:
        assert self.process and self.process.stdout
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return
        *lines, self._rest = (self._rest + os.read(self.process.stdout.fileno(), 65536)).split(
            b"\n"
        )
        self.records += map(json.loads, lines)

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0 and "Traceback" not in self.log, self.log

    def says(self, words: str) -> Callable[[], bool]:
        return lambda: words in self.log


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    yield made
    if made.process and made.process.poll() is None:
        made.kill()


def learners(store: Path) -> list[str]:
    """The command lines of what learns for `store` at this moment."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "autolearn" in text and str(store) in text:
            found.append(text)
    return found


@pytest.mark.long
def test_a_power_cut_at_any_time_costs_nothing_but_time(life: Life) -> None:
    life.start()
    life.until(lambda: life.readings.is_dir() and count_rows(life.readings) >= 100)
    life.kill()
    kept = count_rows(life.readings)
    assert all(map(is_learning, life.records)) and life.records

    life.start()
    life.until(life.says("in the background"))
    told = re.search(r"learning ([\d,]+) rows", life.log)
    # A reading of the new start may be counted already.
    assert told and kept <= int(told[1].replace(",", "")) < 2 * kept
    life.kill()
    life_end = time.monotonic() + PATIENCE
    while learners(life.store):
        assert time.monotonic() < life_end, "the learner outlives its run"
    assert all(map(is_learning, life.records))
    assert Store(life.store).pointers().current is None

    life.start()
    life.until(life.says("was learned and installed"))
    life.kill()

    life.start()
    life.until(lambda: any(record["tier"] == 1 for record in life.records))
    assert not any(map(is_learning, life.records)) and "learning" not in life.log
    life.kill()

    life.start()
    fault = life.row + 60
    life.until(lambda: any(record["alarm"] for record in life.records), fault)
    assert "heat" in next(record for record in life.records if record["alarm"])["blamed"]
    life.stop()
