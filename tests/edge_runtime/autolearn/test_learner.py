"""What the child makes of the readings: a bundle in the store, or a reason why not."""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_readings import CHANNELS, record

from edge_runtime.autolearn import learner as room
from edge_runtime.autolearn.learner import (
    LearnerOptions,
    NotFitError,
    affordable_rows,
    bundle_name,
    is_unlike_itself,
    is_used,
    main,
    samples,
    write_samples,
)
from edge_runtime.learning.thinning import MOST_ROWS
from edge_runtime.look.facts import Look, SuspectRows, look_at
from edge_runtime.look.recording import read_whole
from edge_runtime.readings.parts import Row
from edge_runtime.sources.csvfile import read_table
from edge_runtime.updates.store import Store

ROWS = 200
PATIENCE = 60  # seconds; only a failing test ever waits for them
ROOT = Path(__file__).parents[3]


def row(at: float, value: float) -> Row:
    return Row(at, [repr(at), repr(value)])


@given(
    lost=st.sets(st.integers(2, 97)),
    jitter=st.lists(st.floats(-0.3, 0.3), min_size=100, max_size=100),
    period=st.sampled_from([0.01, 1.0, 60.0]),
)
def test_every_slot_has_a_line_and_a_lost_reading_is_an_empty_one(
    lost: set[int], jitter: list[float], period: float
) -> None:
    shaken = [0.0, *jitter[1:]]
    there = [k for k in range(100) if k not in lost]
    lines = [*samples((row((k + shaken[k]) * period, float(k)) for k in there), period, 1)]
    cells = [line.split(",") for line in lines]
    times = [float(first) for first, _ in cells]
    steps = [after - before for before, after in pairwise(times)]
    assert all(abs(step - period) < 1e-6 * period or step > 30 * period for step in steps)
    assert [float(value) for _, value in cells if value] == [float(k) for k in there]
    assert len(cells) <= 100


def test_a_day_without_readings_is_a_hole_in_time() -> None:
    rows = [*(row(float(k), 1.0) for k in range(50)), *(row(86400.0 + k, 1.0) for k in range(50))]
    times = [float(line.split(",")[0]) for line in samples(rows, 1.0, 1)]
    assert max(after - before for before, after in pairwise(times)) > 80000.0
    assert len(times) < 150


def options(tmp_path: Path, **others: Any) -> LearnerOptions:
    made = LearnerOptions(tmp_path / "pump 1", tmp_path / "readings", ROWS, 1.0, False)
    return replace(made, **others)


def words(asked: LearnerOptions) -> list[str]:
    found = ["--store", str(asked.store), "--readings", str(asked.readings)]
    return [*found, "--rows", str(asked.rows), "--period", str(asked.period)]


def look(tmp_path: Path) -> Look:
    record(tmp_path / "readings", ROWS)
    write_samples(options(tmp_path), tmp_path / "readings.csv")
    return look_at(read_whole([tmp_path / "readings.csv"]))


def test_the_newest_rows_are_used_and_a_part_being_written_does_not_matter(tmp_path: Path) -> None:
    record(tmp_path / "readings", ROWS)
    (part,) = (tmp_path / "readings").glob("*.csv.gz")
    part.write_bytes(part.read_bytes() + b"\x1f\x8b\x08\0\0\0\0\0torn")
    write_samples(options(tmp_path, rows=50), tmp_path / "readings.csv")
    head, *lines = (tmp_path / "readings.csv").read_text().splitlines()
    assert head == f"time,{','.join(CHANNELS)}" and len(lines) == 50
    assert lines[-1].split(",")[3] == f"{ROWS - 1}.0"


def test_a_large_strange_part_is_unfit_unless_it_stays(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert not is_unlike_itself(found, last_try=False)

    def with_part(rows: int) -> Look:
        made = SuspectRows(
            0, rows, None, None, ("heat",), ("level",), 5.0, f"0..{rows}", "190 rows", False, ""
        )
        return replace(found, findings=(made,), warnings=(made.sentence(), *found.warnings))

    assert not is_unlike_itself(with_part(10), last_try=False)
    with pytest.raises(
        NotFitError, match="50% of the rows are unlike the rest: rows 0 to 100: heat"
    ):
        is_unlike_itself(with_part(100), last_try=False)
    assert is_unlike_itself(with_part(100), last_try=True)
    with pytest.raises(NotFitError, match="repair the sensor"):
        is_unlike_itself(replace(found, warnings=("repair the sensor",)), last_try=False)


def test_rows_that_belong_to_the_machine_are_labelled(tmp_path: Path) -> None:
    record(tmp_path / "readings", ROWS)
    write_samples(options(tmp_path), tmp_path / "readings.csv", healthy=True)
    table = read_table(tmp_path / "readings.csv")
    assert table.channels == CHANNELS and table.labels is not None
    assert not table.labels.any() and len(table.labels) == ROWS


@given(rows=st.integers(1, 60), most=st.integers(1, 60))
def test_pieces_of_the_whole_time_are_used_where_the_memory_is_short(rows: int, most: int) -> None:
    rows, most = 1000 * rows, 1000 * most
    used = [index for index in range(0, rows, 500) if is_used(index, rows, most)]
    assert 500 * len(used) <= most + room.PIECE
    if rows <= most:
        assert len(used) == rows // 500
    else:
        holes = [after - before for before, after in pairwise([0, *used, rows])]
        assert max(holes) <= (rows / most + 2) * room.PIECE


def test_more_memory_is_for_more_rows() -> None:
    assert affordable_rows(4, room.OWN_BYTES + 350 * 4 * 5000) == 5000
    fitted = room.OWN_BYTES + 350 * 4 * MOST_ROWS
    assert affordable_rows(4, fitted) == MOST_ROWS
    assert affordable_rows(4, fitted + 60 * 4 * 5000) == MOST_ROWS + 5000
    assert affordable_rows(4, 0) == room.PIECE
    assert affordable_rows(4, resource.RLIM_INFINITY) > 10**12


@pytest.mark.slow
def test_what_is_learned_from_lossy_readings_is_in_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "readings", ROWS, lost=0.05)
    asked = options(tmp_path)
    assert main(words(asked)) == 0
    assert json.loads(capsys.readouterr().out) == {"promoted": True, "bundle": "pump-1-1"}
    store = Store(asked.store)
    slot = store.slots.read(store.pointers().current or "")
    assert slot.bundle and slot.bundle.manifest.period == 1.0
    assert slot.bundle.manifest.channel_names == ("flow", "heat")
    assert not (asked.store / room.FOLDER).exists()
    record(tmp_path / "readings", 50)
    assert main(words(replace(asked, rows=ROWS + 20))) == 0
    assert json.loads(capsys.readouterr().out)["bundle"] == "pump-1-2"
    assert store.pointers().trial


@pytest.mark.parametrize(
    ("count", "reason"), [(100, "100 usable rows are too few"), (0, "has no readings")]
)
def test_a_recording_that_is_not_fit_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, reason: str
) -> None:
    record(tmp_path / "readings", count)
    assert main(words(options(tmp_path))) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["promoted"] is False and reason in answer["reason"]


def test_a_store_that_cannot_be_written_is_a_failure_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "readings", 10)
    (tmp_path / "pump 1").write_text("a file")
    assert main(words(options(tmp_path))) == 1
    assert "pump 1" in capsys.readouterr().err


def test_a_full_disk_is_a_failure_and_the_next_time_finds_the_store_in_order(
    tmp_path: Path,
) -> None:
    record(tmp_path / "readings", ROWS)
    command = [sys.executable, "-m", "edge_runtime.autolearn.learner", *words(options(tmp_path))]
    done = subprocess.run(
        ["prlimit", "--fsize=4096", *command], cwd=ROOT, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 1 and "File too large" in done.stderr
    assert Store(tmp_path / "pump 1").pointers().current is None
    assert not (tmp_path / "pump 1" / room.FOLDER).exists()


def test_the_bundle_is_called_like_the_store(tmp_path: Path) -> None:
    assert bundle_name(tmp_path / "halle 3/pump (neu)") == "pump-neu"
    assert bundle_name(Path("/")) == "machine"


@pytest.mark.slow
def test_a_learner_that_is_killed_leaves_nothing_that_stops_the_next(tmp_path: Path) -> None:
    record(tmp_path / "readings", ROWS)
    asked = options(tmp_path)
    command = [sys.executable, "-m", "edge_runtime.autolearn.learner", *words(asked)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as learner:
        end = time.monotonic() + PATIENCE
        while not (asked.store / room.FOLDER / "readings.csv").exists():
            assert time.monotonic() < end and learner.poll() is None
            time.sleep(0.01)
        learner.kill()
    assert learner.returncode == -9 and (asked.store / room.FOLDER).exists()
    assert Store(asked.store).pointers().current is None
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert Store(asked.store).pointers().current and not (asked.store / room.FOLDER).exists()
