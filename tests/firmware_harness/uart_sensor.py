"""The other end of an emulated board's UART: a sensor that asks, and what the board says."""

import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_runtime.record import Record

HANG = 60.0
"""Seconds without a line after which the board counts as hung; a step takes milliseconds."""
SENTENCE = re.compile(
    r"(?P<alarm>ALARM|no alarm)(?: in (?P<blamed>[^:]*?))?(?P<unsure>, not valid)?"
    r": score (?P<score>-?\d+\.\d{3}) (?P<side>over|under) threshold (?P<threshold>-?\d+\.\d{3})"
)


def check_sentence(sentence: str, record: Record) -> None:
    """Fail unless `sentence`, of gruard_describe(), says what `record` has."""
    found = SENTENCE.fullmatch(sentence)
    assert found, sentence
    assert found["alarm"] == ("ALARM" if record.alarm else "no alarm")
    assert (found["blamed"] or "") == (", ".join(record.blamed) if record.alarm else "")
    assert (found["unsure"] is None) == record.valid
    assert record.score is not None and record.threshold is not None
    assert float(found["score"]) == pytest.approx(record.score, abs=0.0006)
    assert float(found["threshold"]) == pytest.approx(record.threshold, abs=0.0006)
    assert found["side"] == ("over" if record.score > record.threshold else "under")


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
