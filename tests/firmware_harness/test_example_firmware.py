"""The example of `emit --for cmake`, built as its README.md says, with a sensor at its UART."""

import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from harness_command import harness

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.record import Float32, Record, Sample
from firmware_harness.boards import M4
from firmware_harness.packing import packed
from tests.apparatus.harm import flip_bit

ROWS = np.round(tiny_model.machine_rows(160, seed=5), 3)
HANG = 60.0
"""Seconds without a line after which the board counts as hung; a step takes milliseconds."""


@pytest.fixture(scope="module")
def image(tiny_bundle: Path, cross_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("example") / "detector"
    return made_example(tiny_bundle, out)


def made_example(bundle: Path, out: Path, *options: str) -> Path:
    """The example's image, with `options` of make."""
    emitted = harness("emit", bundle, "--board", "mps2-an386", "--out", out)
    assert emitted.returncode == 0, emitted.stderr
    command = ["make", "-C", out / "example", *options]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0 and "warning" not in made.stderr, made.stderr
    return out / "example" / "example.elf"


class Sensor:
    """What is at the other end of the UART."""

    def __init__(self, board: "subprocess.Popen[bytes]") -> None:
        assert board.stdin and board.stdout
        self._to, self._from = board.stdin, board.stdout
        self._bytes = b""

    def ask(self, line: str) -> str:
        """The board's answer to a line. Fails the test, with its words, when it is no record."""
        self._to.write(line.encode() + b"\n")
        self._to.flush()
        return self.wait()

    def wait(self) -> str:
        """The board's next record. Fails the test, with its words, when there is none."""
        said = self.words()
        if said.split()[1:2] != ["tier"]:
            pytest.fail(f"the board says {said!r}")
        return said

    def words(self) -> str:
        """The board's next line. Fails the test, with what it says instead, when there is none."""
        end = time.monotonic() + HANG
        while b"\n" not in self._bytes:
            with selectors.DefaultSelector() as selector:
                selector.register(self._from, selectors.EVENT_READ)
                ready = selector.select(max(0.0, end - time.monotonic()))
            piece = os.read(self._from.fileno(), 4096) if ready else b""
            if not piece:
                why = "the board is gone" if ready else f"no line within {HANG:.0f} s"
                pytest.fail(f"{why}; it says {self._bytes!r}")
            self._bytes += piece
        answer, _, self._bytes = self._bytes.partition(b"\n")
        return answer.decode().strip()


@contextmanager
def running(image: Path, instruction: int = 0) -> Iterator[Sensor]:
    """instruction: time of one, 2^this nanoseconds: so that a line is not late because we are."""
    words = ["-M", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "stdio"]
    pace = ["-icount", f"shift={instruction},sleep=off"]
    board = subprocess.Popen(
        ["qemu-system-arm", *words, *pace, "-kernel", image],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Sensor(board)
    finally:
        board.kill()
        board.communicate()


def line(row: Float32) -> str:
    return ",".join("" if np.isnan(value) else f"{value * 1000:.0f}" for value in row)


ANSWER = re.compile(
    r"(\d+) tier (\d) (?P<alarm>ALARM|no alarm)(?: in (?P<blamed>[^:]*?))?(?P<unsure>, not valid)?"
    r": score (-?\d+\.\d{3}) (over|under) threshold (\d+\.\d{3})"
)


def told(answer: str) -> tuple[int, int, bool, bool, float]:
    found = ANSWER.fullmatch(answer)
    assert found, answer
    score, side, threshold = float(found[6]), found[7], float(found[8])
    assert side == ("over" if score > threshold else "under") or score == threshold
    return int(found[1]), int(found[2]), not found["unsure"], found["alarm"] == "ALARM", score


def wanted(record: Record) -> tuple[int, int, bool, bool, float]:
    score = pytest.approx(record.score, abs=0.0006)
    return record.index, record.tier, record.valid, record.alarm, score


def test_every_sample_is_answered_as_by_the_runtime(tiny_bundle: Path, image: Path) -> None:
    rows = ROWS.copy()
    rows[90:95, 1] = np.nan
    rows[120:, 2] += 400
    detector = Detector(read_bundle(tiny_bundle))
    records = [detector.step(Sample(i, None, row)) for i, row in enumerate(rows)]
    with running(image) as sensor:
        answers = [sensor.ask(line(row)) for row in rows]
    assert [told(answer) for answer in answers] == [wanted(record) for record in records]
    alarms = [i for i, record in enumerate(records) if record.alarm]
    assert alarms and any(record.tier == 1 for record in records)
    for i in alarms:
        found = ANSWER.fullmatch(answers[i])
        assert found and (found["blamed"] or "") == ", ".join(records[i].blamed)
        assert float(found[8]) == pytest.approx(records[i].threshold, abs=0.0006)


@pytest.mark.parametrize(
    "bad", ["", "1,2", "1,2,3,4", "1,x,3", "1,2,3 ", "1,-,3", "1.5,2,3", "1,2,99999999", "7" * 300]
)
def test_a_line_that_cannot_be_read_is_a_sample_without_readings(
    tiny_bundle: Path, image: Path, bad: str
) -> None:
    rows = ROWS[:6].copy()
    rows[3] = np.nan
    detector = Detector(read_bundle(tiny_bundle))
    records = [detector.step(Sample(i, None, row)) for i, row in enumerate(rows)]
    with running(image) as sensor:
        answers = [sensor.ask(bad if i == 3 else line(row)) for i, row in enumerate(ROWS[:6])]
    assert [told(answer) for answer in answers] == [wanted(record) for record in records]


def test_a_sensor_that_falls_silent_is_answered_all_the_same(image: Path) -> None:
    with running(image, instruction=5) as sensor:
        answers = [sensor.ask(line(ROWS[0])), *(sensor.wait() for _ in range(3))]
        again = sensor.ask(line(ROWS[1]))
    assert [told(answer)[:3] for answer in answers] == [(i, 3, False) for i in range(4)]
    assert told(again)[0] >= 4


def test_a_damaged_bundle_is_refused_and_the_board_says_so(
    tiny_bundle: Path, image: Path, tmp_path: Path
) -> None:
    built = image.read_bytes()
    blob = packed(tiny_bundle, M4).blob
    assert built.count(blob) == 1
    spoiled = tmp_path / "spoiled.elf"
    spoiled.write_bytes(built)
    flip_bit(spoiled, built.index(blob) + len(blob) // 2, 0)
    with running(spoiled) as sensor:
        assert sensor.words() == "REFUSED: the bundle is damaged"


def test_a_build_with_other_arithmetic_refuses_to_start(tiny_bundle: Path, tmp_path: Path) -> None:
    fused = made_example(tiny_bundle, tmp_path / "fused", "EXACT=-std=gnu11 -fno-math-errno")
    with running(fused) as sensor:
        assert sensor.words().startswith("REFUSED: multiply-adds are fused")
