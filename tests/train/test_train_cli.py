"""`python -m train` as its user meets it: one line for each mistake, and nothing lost."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from train.run_folder import read_run

ROOT = Path(__file__).resolve().parents[2]
Fails = Callable[..., str]
Cells = list[list[object]]


def good_cells(rows: int = 260) -> Cells:
    """Header and rows of a fine recording: a time, two channels that move."""
    rng = np.random.default_rng(0)
    values = np.sin(np.arange(rows) / 5)[:, np.newaxis] + 0.2 * rng.standard_normal((rows, 2))
    return [["time", "flow", "heat"], *([t, *map(float, v)] for t, v in enumerate(values))]


def write_csv(path: Path, cells: Cells) -> Path:
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in cells))
    return path


@pytest.fixture
def pump(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "pump.csv", good_cells())


def test_help_needs_no_tensorflow() -> None:
    blocked = (
        "import runpy, sys; sys.modules.update(dict.fromkeys(['tensorflow', 'keras', 'scipy']));"
        "sys.argv[0] = 'train'; runpy.run_module('train', run_name='__main__')"
    )
    for words in (["--help"], ["fit", "--help"], ["simulate", "-h"], ["watch", "-h"]):
        command = [sys.executable, "-c", blocked, *words]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "Example: python -m train" in ended.stdout or "python -m train fit" in ended.stdout


def test_a_missing_file(train_fails: Fails, tmp_path: Path) -> None:
    line = train_fails("fit", tmp_path / "no.csv", "--out", tmp_path / "run")
    assert line == f"train: {tmp_path}/no.csv: no such file; check the path"
    assert not (tmp_path / "run").exists()


def change(cells: Cells, row: int, column: int, value: object) -> None:
    cells[row][column] = value


def keep(cells: Cells, count: int) -> None:
    del cells[count + 1 :]


def fill(cells: Cells, column: int, value: object, last: int | None = None) -> None:
    for row in cells[1:last]:
        row[column] = value


BAD_FILES: list[tuple[str, Callable[[Cells], object], tuple[str, ...]]] = [
    ("empty", lambda cells: cells.clear(), ("is empty", "the first line must name the columns")),
    ("header only", lambda cells: keep(cells, 0), ("no rows", "add one row per sample")),
    ("no header", lambda cells: cells.pop(0), ("line 1", "must name the columns")),
    (
        "no channel",
        lambda cells: [row.__delitem__(slice(1, 3)) for row in cells],
        ("line 1", "no channel is left", "add a sensor's column"),
    ),
    (
        "text in a channel",
        lambda cells: change(cells, 7, 2, "warm"),
        ("line 8", "'heat'", "'warm' is not a number", "leave the cell empty"),
    ),
    (
        "text columns only",
        lambda cells: ([row.pop() for row in cells], fill(cells, 1, "open")),
        ("line 2", "'flow'", "'open' is not a number", "(and 259 more)"),
    ),
    (
        "short row",
        lambda cells: cells[9].pop(),
        ("line 10", "expected 3 columns", "got 2", "leave a cell empty"),
    ),
    ("long row", lambda cells: cells[9].append(1), ("line 10", "expected 3 columns", "got 4")),
    (
        "twin columns",
        lambda cells: change(cells, 0, 2, "flow"),
        ("line 1", "named flow", "rename all but one"),
    ),
    (
        "too few rows",
        lambda cells: keep(cells, 143),
        ("143 rows are too few", "at least 150", "record the healthy machine for longer"),
    ),
    (
        "no readings",
        lambda cells: [fill(cells, column, "") for column in (1, 2)],
        ("no column is left to learn from (empty: flow, heat)", "add a sensor's column"),
    ),
    (
        "nothing that changes",
        lambda cells: [fill(cells, column, 5) for column in (1, 2)],
        ("no column is left to learn from (constant: flow, heat)",),
    ),
    (
        "time that stands still",
        lambda cells: fill(cells, 0, 3),
        ("line 3", "time does not increase", "sort the rows"),
    ),
    ("no time", lambda cells: change(cells, 20, 0, ""), ("line 21", "'time'", "is not a time")),
    (
        "all anomalous",
        lambda cells: [row.append("label" if i == 0 else 1) for i, row in enumerate(cells)],
        ("no clean rows are left to train", "0 of 260 rows are clean"),
    ),
]


@pytest.mark.parametrize(
    ("harm", "words"), [case[1:] for case in BAD_FILES], ids=[case[0] for case in BAD_FILES]
)
def test_a_bad_file_is_one_line_and_leaves_no_folder(
    train_fails: Fails, tmp_path: Path, harm: Callable[[Cells], object], words: tuple[str, ...]
) -> None:
    cells = good_cells()
    harm(cells)
    file = write_csv(tmp_path / "pump.csv", cells)
    line = train_fails("fit", file, "--out", tmp_path / "run")
    for word in words:
        assert word in line
    assert "pump.csv" in line or "no clean rows" in line
    assert [path.name for path in tmp_path.iterdir()] == ["pump.csv"]


def test_a_file_that_is_not_text(train_fails: Fails, tmp_path: Path) -> None:
    file = tmp_path / "pump.csv"
    file.write_bytes(b"PK\x03\x04" * 100)
    assert "is a spreadsheet or another archive; export it as CSV" in train_fails(
        "fit", file, "--out", tmp_path / "run"
    )
    assert not (tmp_path / "run").exists()


def test_any_bytes_are_some_lines_that_name_the_file(train_fails: Fails, tmp_path: Path) -> None:
    file = tmp_path / "pump.csv"
    for data in (b"\xff\xfe\x00\x01" * 100, b"\x00" * 4096, bytes(range(256)) * 9):
        file.write_bytes(data)
        told = train_fails("fit", file, "--out", tmp_path / "run", problems=10)
        assert all(str(file) in line for line in told.splitlines())


def test_a_folder_without_recordings(train_fails: Fails, tmp_path: Path) -> None:
    line = train_fails("fit", tmp_path, "--out", tmp_path / "run")
    assert "holds no *.csv or *.csv.gz or *.parquet; name another folder" in line


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("channels: {flow: {unti: bar}}", ("channels.yaml: flow", "'unti'", "the keys are unit")),
        ("channels: {flux: {unit: bar}}", ("channels.yaml: channels", "'flux'", "flow, heat")),
        ("perod: 1", ("channels.yaml", "'perod'", "period, channels")),
        ("channels: {flow: {low: 5, high: 1}}", ("flow: low (5) must be smaller than high (1)",)),
        ("period: [", ("channels.yaml", "is not YAML", "repair it")),
        (
            "channels: {flow: {exogenous: true}, heat: {exogenous: true}}",
            ("every channel is exogenous", "leave at least one"),
        ),
        ("period: 3", ("1 s apart", "given as 3 s", "correct one of them")),
    ],
)
def test_wrong_settings_name_file_and_key(
    train_fails: Fails, pump: Path, settings: str, words: tuple[str, ...]
) -> None:
    (pump.parent / "channels.yaml").write_text(settings)
    line = train_fails("fit", pump, "--out", pump.parent / "run")
    for word in words:
        assert word in line
    assert not (pump.parent / "run").exists()


def test_options_that_name_what_is_not_there(train_fails: Fails, pump: Path) -> None:
    out = ("--out", pump.parent / "run")
    for option in ("--time-column", "--label-column"):
        line = train_fails("fit", pump, *out, option, "when")
        assert "there is no column 'when'; the columns are time, flow, heat" in line
    for option in ("--calibrate", "--test"):
        assert "gone.csv: no such file" in train_fails(
            "fit", pump, *out, option, pump.with_name("gone.csv")
        )
    assert "gone.yaml: cannot be read" in train_fails(
        "fit", pump, *out, "--settings", pump.with_name("gone.yaml")
    )
    assert not (pump.parent / "run").exists()


def test_a_finished_run_is_not_replaced_without_force(train_fails: Fails, pump: Path) -> None:
    out = pump.parent / "run"
    out.mkdir()
    (out / "weights.npz").write_bytes(b"precious")
    line = train_fails("fit", pump, "--out", out)
    assert line.startswith(f"train: {out}: a finished training is already there")
    assert "another --out or add --force" in line
    assert [path.read_bytes() for path in out.iterdir()] == [b"precious"]


@pytest.mark.parametrize("out", ["pump.csv", "pump.csv/run"])
def test_an_output_that_cannot_be_a_folder(train_fails: Fails, pump: Path, out: str) -> None:
    before = pump.read_bytes()
    line = train_fails("fit", pump, "--out", pump.parent / out)
    assert "pump.csv: exists" in line and line.endswith("choose another --out")
    assert pump.read_bytes() == before


def test_a_full_disk_is_one_line_and_leaves_no_scraps(
    on_a_full_disk: Callable[..., "subprocess.CompletedProcess[str]"], pump: Path
) -> None:
    action = "runpy.run_module('train', run_name='__main__')"
    out = pump.parent / "run"
    ended = on_a_full_disk(1500, action, "fit", pump, "--out", out)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("train: ")]
    assert line == f"train: {out}/rows.npz: cannot be written (File too large)"
    assert not list(out.iterdir())


@dataclass(frozen=True)
class Interrupted:
    """A training that was interrupted with Ctrl-C and then started again."""

    out: Path
    code: int
    stderr: str
    left: set[str]
    again: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interrupted]:
    folder = tmp_path_factory.mktemp("interrupted")
    cells = [[*row, "still" if i == 0 else 4.5] for i, row in enumerate(good_cells())]
    out = folder / "run"
    command = [sys.executable, "-m", "train", "fit", str(write_csv(folder / "a.csv", cells))]
    command += ["--out", str(out), "--steps", "150", "--gru-units", "4", "--gate-units", "4"]
    command += ["--model", "gated"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    assert child.stderr
    said = b""
    while not (out / "checkpoint.npz").exists():
        ready, _, _ = select.select([child.stderr], [], [], 0.05)
        if ready:
            part = os.read(child.stderr.fileno(), 65536)
            assert part, said.decode()
            said += part
    child.send_signal(signal.SIGINT)
    said += child.stderr.read()
    child.stderr.close()
    code = child.wait()
    left = {path.name for path in out.iterdir()}
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return Interrupted(out, code, said.decode(), left, again)


@pytest.mark.long
def test_ctrl_c_ends_with_130_and_keeps_the_checkpoint(interrupted: Interrupted) -> None:
    assert interrupted.code == 130 and "Traceback" not in interrupted.stderr
    last = interrupted.stderr.splitlines()[-1]
    assert last == "train: interrupted; the same command, without --force, resumes it"
    assert interrupted.left == {"rows.npz", "checkpoint.npz"}


@pytest.mark.long
def test_the_same_command_resumes_and_finishes(interrupted: Interrupted) -> None:
    again = interrupted.again
    assert again.returncode == 0 and again.stdout == ""
    first = next(line for line in again.stderr.splitlines() if line.startswith("step "))
    step = int(first.removeprefix("step ").split("/")[0])
    assert step > 1 and step % 50 == 1
    assert again.stderr.splitlines()[-1].endswith(f"next, python -m convert {interrupted.out}")
    assert read_run(interrupted.out).config.name == "run"
    names = {path.name for path in interrupted.out.iterdir()}
    assert names == {"config.json", "rows.npz", "weights.npz", "metrics.json", "learning.png"}
    history = json.loads((interrupted.out / "metrics.json").read_text())["history"]
    steps = [entry["step"] for entry in history]
    assert steps == sorted(set(steps)) and steps[0] == 0


@pytest.mark.long
def test_a_constant_column_is_set_aside(interrupted: Interrupted) -> None:
    (warning,) = [line for line in interrupted.stderr.splitlines() if "warning" in line]
    assert warning.startswith("warning: columns set aside: constant: still; to keep one")
    run = read_run(interrupted.out)
    assert [channel.name for channel in run.config.channels] == ["flow", "heat"]
    assert all(np.isfinite(array).all() for array in run.weights.values())
