"""Sinks against real pipes, real files and a really full device."""

import json
import os
from dataclasses import replace
from pathlib import Path

import faulty_worker
import numpy as np
import pytest

from edge_runtime.errors import GruardError
from edge_runtime.record import Record, Sample
from edge_runtime.sinks.sink import Existing, JsonLines, SinkClosedError, open_json_lines
from tests.apparatus.file_limit import files_below


def record(index: int) -> Record:
    return faulty_worker.model_record(Sample(index, None, np.zeros(1, np.float32)))


def test_each_record_is_a_line_that_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = open_json_lines(str(path))
    for index in range(3):
        sink.write(record(index))
        lines = path.read_text().splitlines()
        assert [json.loads(line)["index"] for line in lines] == list(range(index + 1))
    sink.close()
    assert sink.dropped == 0


def test_a_diagnosis_is_written_and_its_absence_is_null(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = open_json_lines(str(path))
    sink.write(replace(record(0), kind="level", probability=0.1 + 0.2, sensor=True))
    sink.write(replace(record(1), kind="machine", probability=0.75, sensor=False))
    sink.write(record(2))
    sink.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = [tuple(line[name] for name in ("kind", "probability", "sensor")) for line in lines]
    assert found == [("level", 0.3, True), ("machine", 0.75, False), (None, None, None)]


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("precious\n")
    with pytest.raises(GruardError, match="--force"):
        open_json_lines(str(path))
    assert path.read_text() == "precious\n"
    sink = open_json_lines(str(path), Existing.OVERWRITTEN)
    sink.write(record(0))
    sink.close()
    assert len(path.read_text().splitlines()) == 1


LINE = record(7).to_json() + "\n"


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ("", ""),
        (LINE, LINE),
        (LINE + LINE[:-1], LINE),  # torn by a power cut
        (LINE + LINE[:4], LINE),
        (LINE[:30], ""),
        (LINE + LINE[:30] + "\0" * 50, LINE),
        (LINE + "\0" * 50, LINE),
        ("somebody's own words", "somebody's own words\n"),
        (LINE * 400 + LINE[:30], LINE * 400),
        ("\0" * 200_000, "\0" * 200_000 + "\n"),  # no record was so long
    ],
)
def test_a_file_goes_on_with_a_line_of_its_own(tmp_path: Path, found: str, kept: str) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(found)
    sink = open_json_lines(str(path), Existing.CONTINUED)
    sink.write(record(0))
    sink.close()
    assert path.read_text() == kept + record(0).to_json() + "\n"


def test_a_file_that_is_not_there_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    open_json_lines(str(path), Existing.CONTINUED).close()
    assert path.read_text() == ""


@pytest.mark.parametrize(("name", "text"), [("no/out", "create it first"), ("", "--sink")])
def test_a_place_that_cannot_be_written_is_the_users_to_mend(
    tmp_path: Path, name: str, text: str
) -> None:
    with pytest.raises(GruardError, match=text):
        open_json_lines(str(tmp_path / name), Existing.OVERWRITTEN)
    with pytest.raises(GruardError, match=r"/proc/out cannot be written .*; name another --sink"):
        open_json_lines("/proc/out", Existing.OVERWRITTEN)


@pytest.mark.parametrize("existing", [Existing.OVERWRITTEN, Existing.CONTINUED])
def test_a_full_device_drops_and_counts(existing: Existing) -> None:
    sink = open_json_lines("/dev/full", existing)
    for index in range(3):
        sink.write(record(index))
    sink.close()
    assert sink.dropped == 3


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with files_below(1000):
        sink = open_json_lines(str(path))
        for index in range(20):
            sink.write(record(index))
        sink.close()
    lines = path.read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(20 - sink.dropped))
    assert 0 < sink.dropped < 20 and path.stat().st_size < 1000


@pytest.mark.parametrize("reader_may_leave", [True, False])
def test_a_reader_that_left(reader_may_leave: bool) -> None:
    reading, writing = os.pipe()
    sink = JsonLines(writing, reader_may_leave)
    sink.write(record(0))
    os.close(reading)
    if reader_may_leave:
        with pytest.raises(SinkClosedError):
            sink.write(record(1))
    else:
        sink.write(record(1))
    assert sink.dropped == (0 if reader_may_leave else 1)
    sink.close()


def test_stdout_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    sink = open_json_lines("-")
    sink.write(record(5))
    sink.close()
    os.fstat(1)
    assert json.loads(capfd.readouterr().out)["index"] == 5
