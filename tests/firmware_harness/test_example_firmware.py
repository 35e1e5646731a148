"""The example of `emit --for cmake`, built as its README.md says, with a sensor at its UART."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from harness_command import harness
from uart_sensor import check_sentence, running

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.record import Float32, Record, Sample
from firmware_harness.boards import M4
from firmware_harness.packing import packed
from tests.apparatus.harm import flip_bit

ROWS = np.round(tiny_model.machine_rows(160, seed=5), 3)


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


def line(row: Float32) -> str:
    return ",".join("" if np.isnan(value) else f"{value * 1000:.0f}" for value in row)


def check(answers: list[str], records: list[Record]) -> None:
    """Fail unless `answers` are the lines of `records`."""
    assert len(answers) == len(records)
    for answer, record in zip(answers, records, strict=True):
        index, word, tier, sentence = answer.split(" ", 3)
        assert (int(index), word, int(tier)) == (record.index, "tier", record.tier)
        check_sentence(sentence, record)


def test_every_sample_is_answered_as_by_the_runtime(tiny_bundle: Path, image: Path) -> None:
    rows = ROWS.copy()
    rows[90:95, 1] = np.nan
    rows[120:, 2] += 400
    detector = Detector(read_bundle(tiny_bundle))
    records = [detector.step(Sample(i, None, row)) for i, row in enumerate(rows)]
    with running(image) as sensor:
        answers = [sensor.ask(line(row)) for row in rows]
    check(answers, records)
    assert any(record.alarm for record in records) and any(record.tier == 1 for record in records)


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
    check(answers, records)


def test_a_sensor_that_falls_silent_is_answered_all_the_same(image: Path) -> None:
    with running(image, instruction=5) as sensor:
        answers = [sensor.ask(line(ROWS[0])), *(sensor.wait() for _ in range(3))]
        again = sensor.ask(line(ROWS[1]))
    begin = [answer.split(":")[0] for answer in answers]
    assert begin == [f"{i} tier 3 no alarm, not valid" for i in range(4)]
    assert int(again.split()[0]) >= 4


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
