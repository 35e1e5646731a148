"""The run folder: the same bytes for the same arrays, whole or not at all, refused if damaged."""

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.errors import GruardError
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.run import Config, Run, json_bytes, npz_bytes
from edge_runtime.learning.split import Split
from edge_runtime.sources.csvcell import MONTH_FIRST
from train.run_folder import (
    PARTS,
    read_config,
    read_run,
    save_config,
    save_rows,
    write_atomically,
)

FullDisk = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_copy(tiny_run: Run, tmp_path: Path) -> Path:
    """A copy of the small finished run folder, to be harmed."""
    return Path(shutil.copytree(tiny_run.path, tmp_path / "run"))


@pytest.fixture
def pristine(tiny_run: Run) -> Path:
    return tiny_run.path


def test_bytes_depend_on_the_arrays_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"b": np.arange(6.0).reshape(2, 3).T, "a/0": np.zeros(0, np.int8), "c": np.float32(1)}
    first = npz_bytes(arrays)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert npz_bytes(dict(reversed(arrays.items()))) == first
    assert npz_bytes({**arrays, "c": np.float32(2)}) != first
    with np.load(io.BytesIO(first), allow_pickle=False) as stored:
        assert sorted(stored.files) == sorted(arrays)
        for name, array in arrays.items():
            assert stored[name].dtype == array.dtype and stored[name].shape == array.shape
            np.testing.assert_array_equal(stored[name], array)


def test_what_was_said_of_the_columns_comes_back(tmp_path: Path) -> None:
    said = Columns("Zeit", None, MONTH_FIRST, ("litres",))
    for columns in (NOTHING_SAID, said):
        save_config(tmp_path, Config("pump", 1.0, (), {}, 0, "", columns=columns))
        assert read_config(tmp_path).columns == columns
    older = json.loads((tmp_path / "config.json").read_text())
    del older["columns"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    assert read_config(tmp_path).columns == NOTHING_SAID


def test_json_is_stable() -> None:
    assert json_bytes({"b": 1, "a": [0.1]}) == json_bytes({"a": [0.1], "b": 1})
    assert json_bytes({"a": 1}).endswith(b"\n")


def test_writing_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    for data in (b"first" * 100, b"second"):
        write_atomically(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


WRITE = """
from pathlib import Path
from edge_runtime.errors import GruardError
from train.run_folder import write_atomically
try:
    write_atomically(Path(sys.argv[1]), bytes(100_000))
except GruardError as error:
    print(error)
"""


@pytest.mark.parametrize("before", [b"old", None])
def test_a_full_disk_leaves_what_was_there_before(
    tmp_path: Path, on_a_full_disk: FullDisk, before: bytes | None
) -> None:
    file = tmp_path / "weights.npz"
    if before:
        file.write_bytes(before)
    ended = on_a_full_disk(50_000, WRITE, file)
    assert ended.stdout == f"{file}: cannot be written (File too large)\n" and not ended.stderr
    assert list(tmp_path.iterdir()) == ([file] if before else [])
    assert not before or file.read_bytes() == before
    assert on_a_full_disk(200_000, WRITE, file).stdout == ""
    assert file.stat().st_size == 100_000


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GruardError, match=r"gone/file: cannot be written \(No such file"):
        write_atomically(tmp_path / "gone" / "file", b"x")


def test_rows_and_labels_come_back_in_order(run_copy: Path) -> None:
    def recording(start: int, labels: bool) -> Recording:
        values = np.arange(start, start + 4, dtype=np.float32)[:, np.newaxis]
        marks = np.array([0, 1, 1, 0], np.int8) if labels else None
        return Recording("x", ("a",), None, values, marks, None)

    many = tuple(recording(10 * i, False) for i in range(12))
    split = Split(many, many[:1], many[1:2], (recording(500, True), recording(600, True)))
    save_rows(run_copy, split)
    run = read_run(run_copy)
    assert [int(rows[0, 0]) for rows in run.rows["train"]] == [10 * i for i in range(12)]
    assert [int(rows[0, 0]) for rows in run.rows["test"]] == [500, 600]
    assert [list(labels) for labels in run.labels["test"]] == [[0, 1, 1, 0]] * 2
    assert not any(run.labels[part] for part in PARTS[:3])


def test_the_hash_is_that_of_the_weights(run_copy: Path, tiny_run: Run) -> None:
    assert read_run(run_copy).weights_sha256 == tiny_run.weights_sha256
    name = next(iter(tiny_run.weights))
    changed = {**tiny_run.weights, name: tiny_run.weights[name] + 1}
    (run_copy / "weights.npz").write_bytes(npz_bytes(changed))
    assert read_run(run_copy).weights_sha256 != tiny_run.weights_sha256


def test_an_unfinished_run_says_how_to_finish(run_copy: Path) -> None:
    (run_copy / "weights.npz").rename(run_copy / "checkpoint.npz")
    with pytest.raises(GruardError, match="run the same train command again to resume"):
        read_run(run_copy)


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_what_is_no_run_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(GruardError, match=rf"{name}: not a finished run; give the --out folder"):
        read_run(tmp_path / name)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *product(["weights.npz", "rows.npz", "config.json"], ["empty", "cut", "text"]),
        *product(["rows.npz", "config.json"], ["gone"]),  # no weights: an unfinished run
    ],
)
def test_a_damaged_run_is_refused_by_name(run_copy: Path, file: str, damage: str) -> None:
    path = run_copy / file
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "text": b"hello"}[damage])
    with pytest.raises(GruardError, match=rf"{file}: unreadable .*; train again"):
        read_run(run_copy)


@pytest.mark.parametrize(
    "config", ["5", "[]", "null", "{}", '{"channels": [1]}', '{"channels": 3}']
)
def test_a_config_of_another_shape_is_refused(run_copy: Path, config: str) -> None:
    (run_copy / "config.json").write_text(config)
    with pytest.raises(GruardError, match=r"config\.json: unreadable"):
        read_run(run_copy)


def test_a_config_with_an_unknown_or_missing_key_is_refused(run_copy: Path) -> None:
    config = json.loads((run_copy / "config.json").read_text())
    for changed in ({**config, "colour": 1}, {k: v for k, v in config.items() if k != "seed"}):
        (run_copy / "config.json").write_text(json.dumps(changed))
        with pytest.raises(GruardError, match=r"config\.json: unreadable"):
            read_run(run_copy)


@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_flipped_bit_is_refused_or_does_no_harm(
    pristine: Path, run_copy: Path, share: float, bit: int
) -> None:
    original = (pristine / "weights.npz").read_bytes()
    data = bytearray(original)
    data[int(share * len(data))] ^= 1 << bit
    (run_copy / "weights.npz").write_bytes(data)
    try:
        weights = read_run(run_copy).weights
    except GruardError as error:
        assert "weights.npz: unreadable" in str(error)
        return
    # A bit of the archive's own bookkeeping (a date, an attribute) carries nothing.
    assert npz_bytes(weights) == original
