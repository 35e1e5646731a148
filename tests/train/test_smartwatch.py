"""The default data: read without trusting the pickle, written as ordinary CSVs, all or nothing."""

import hashlib
import io
import os
import pickle
import subprocess
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.errors import GruardError
from edge_runtime.learning.recording import read_recordings
from train import smartwatch
from train.smartwatch import demo_stream, extract_watch, fetch_wheel, read_watch

REAL_WHEEL = Path(__file__).parents[2] / "data" / smartwatch.WHEEL_NAME
EXERCISES = ["PEN", "ROW"]


def table() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    who = [(y, person, side) for y in (0, 1) for person in (1, 2) for side in (0.0, 1.0)]
    y, subject, side = (np.array(column) for column in zip(*who, strict=True))
    return {
        "X": [rng.normal(size=(60 + i, 6)) for i in range(len(who))],
        "y": y,
        "subject": subject,
        "side": side,
        "y_labels": EXERCISES,
        "X_labels": list(smartwatch.CHANNELS),
    }


def make_wheel(
    folder: Path, pickled: bytes, header: dict[str, Any] = smartwatch.NPY_OBJECT
) -> Path:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, header)
    wheel = folder / smartwatch.WHEEL_NAME
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(smartwatch.MEMBER, content.getvalue() + pickled)
    return wheel


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refuses(wheel: Path, match: str) -> None:
    with pytest.raises(GruardError, match=match) as caught:
        read_watch(wheel, sha256(wheel))
    assert smartwatch.WHEEL_NAME in str(caught.value)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    scalar = np.array(None, dtype=object)
    scalar[()] = table()
    return make_wheel(tmp_path, pickle.dumps(scalar, protocol=2))


def test_every_recording_is_read(wheel: Path) -> None:
    found = read_watch(wheel, sha256(wheel))
    assert [(r.exercise, r.person, r.side) for r in found[:3]] == [
        ("PEN", 1, "left"),
        ("PEN", 1, "right"),
        ("PEN", 2, "left"),
    ]
    for item, values in zip(found, table()["X"], strict=True):
        np.testing.assert_array_equal(item.recording.values, values.astype(np.float32))


DEMO = {"person": 2, "side": "right", "normal": "ROW", "others": ("PEN",), "rows": 2}


def test_extraction_writes_ordinary_recordings(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "watch"
    extract_watch(wheel, folder, sha256(wheel), DEMO)
    assert {path.name for path in folder.iterdir()} == {"PEN", "ROW", "README.txt", "demo.csv"}
    assert read_recordings([folder / "demo.csv"]).recordings[0].labels is not None
    assert "BSD 3-Clause" in (folder / "README.txt").read_text()
    dataset = read_recordings([folder / "ROW"])
    assert [Path(r.name).name for r in dataset.recordings] == [
        "person01-left.csv",
        "person01-right.csv",
        "person02-left.csv",
        "person02-right.csv",
    ]
    assert dataset.channels == smartwatch.CHANNELS
    assert dataset.period == 0.02
    np.testing.assert_array_equal(dataset.recordings[0].values, table()["X"][4].astype(np.float32))
    with pytest.raises(GruardError, match="is there already; remove it"):
        extract_watch(wheel, folder, sha256(wheel))


def test_a_failed_extraction_leaves_nothing(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(smartwatch, "write_recording", full)
    with pytest.raises(OSError, match="No space left"):
        extract_watch(wheel, tmp_path / "out" / "watch", sha256(wheel))
    assert list((tmp_path / "out").iterdir()) == []


def test_the_demo_stream_alternates_and_labels(wheel: Path) -> None:
    found = read_watch(wheel, sha256(wheel))
    stream = demo_stream(found, 2, "right", normal="ROW", others=["PEN", "PEN"], rows=20)
    usual = next(r for r in found if (r.person, r.side, r.exercise) == (2, "right", "ROW"))
    assert stream.labels is not None and stream.times is not None
    np.testing.assert_array_equal(stream.values[stream.labels == 0], usual.recording.values)
    changes = np.flatnonzero(np.diff(stream.labels))
    assert len(changes) == 4 and stream.labels.sum() == 40
    assert stream.labels[0] == stream.labels[-1] == 0
    np.testing.assert_allclose(np.diff(stream.times), 0.02, atol=1e-9)


def test_the_demo_stream_names_what_is_missing(wheel: Path) -> None:
    found = read_watch(wheel, sha256(wheel))
    with pytest.raises(GruardError, match=r"person 3, left arm, exercise ROW; persons: 1 to 2"):
        demo_stream(found, 3, "left", "ROW", ["PEN"], 20)
    with pytest.raises(GruardError, match=r"PEN/person01-left\.csv: has 60 rows, fewer than 99"):
        demo_stream(found, 1, "left", "ROW", ["PEN"], 99)


class Payload:
    """Pickles to a call of os.system that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pickled = pickle.dumps({"X": Payload(trace)})
    pickle.loads(pickled)
    assert trace.exists()  # the payload is real
    trace.unlink()
    refuses(make_wheel(tmp_path, pickled), r"is refused: it asks for posix\.system")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "exec", "__import__"])
def test_builtins_are_refused(tmp_path: Path, name: str) -> None:
    pickled = b"cbuiltins\n" + name.encode() + b"\n."
    refuses(make_wheel(tmp_path, pickled), rf"it asks for builtins\.{name}")


def test_other_codecs_are_refused(tmp_path: Path) -> None:
    pickled = b"c_codecs\nencode\n(Vabc\nVrot13\ntR."
    refuses(make_wheel(tmp_path, pickled), "it asks for the codec rot13")


@pytest.mark.parametrize("pickled", [b"", b"garbage", pickle.dumps({})[:-1], pickle.dumps([1])])
def test_a_damaged_pickle_is_refused(tmp_path: Path, pickled: bytes) -> None:
    refuses(make_wheel(tmp_path, pickled), "is refused")


def test_another_layout_is_refused(tmp_path: Path) -> None:
    numbers = {"descr": "<f8", "fortran_order": False, "shape": (3,)}
    refuses(make_wheel(tmp_path, b"", numbers), "is not a single pickled object")
    renamed = table() | {"X_labels": list("abcdef")}
    refuses(make_wheel(tmp_path, pickle.dumps(renamed)), "is not laid out as expected")
    without = {key: value for key, value in table().items() if key != "side"}
    refuses(make_wheel(tmp_path, pickle.dumps(without)), "is not laid out as expected")


def test_another_file_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(GruardError, match=r"has SHA-256 .* delete it and download again"):
        read_watch(wheel)
    with pytest.raises(GruardError, match=r"none\.whl: cannot be read"):
        read_watch(tmp_path / "none.whl")
    text = tmp_path / smartwatch.WHEEL_NAME
    text.write_text("not a zip")
    refuses(text, "holds no seglearn/data/watch_dataset.npy")
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("other", "")
    refuses(text, "holds no seglearn/data/watch_dataset.npy")


def test_a_wheel_in_place_is_not_downloaded_again(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", None)  # calling it would fail
    assert fetch_wheel(wheel.parent, sha256(wheel)) == wheel
    with pytest.raises(GruardError, match="has SHA-256"):
        fetch_wheel(wheel.parent)


def test_a_download_is_pips_and_checked(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        (target / smartwatch.WHEEL_NAME).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert fetch_wheel(target, sha256(wheel)) == target / smartwatch.WHEEL_NAME
    assert commands[0][1:4] == ["-m", "pip", "download"]
    assert commands[0][-1] == "seglearn==1.2.5"


@pytest.mark.parametrize(
    "stderr",
    ["ERROR: No matching distribution found for seglearn==1.2.5\n", "No module named pip\n", ""],
)
def test_a_failed_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    reason = stderr.strip() or "pip printed no error"
    with pytest.raises(GruardError) as caught:
        fetch_wheel(tmp_path)
    assert f"({reason})" in str(caught.value)
    assert "put the wheel there by hand" in str(caught.value)


def test_the_real_wheel() -> None:
    if not REAL_WHEEL.is_file():
        pytest.skip(f"THE REAL DATA IS NOT TESTED: put {smartwatch.WHEEL_NAME} into data/")
    found = read_watch(REAL_WHEEL)
    assert Counter(item.exercise for item in found) == dict.fromkeys(
        ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"], 20
    )
    assert {item.person for item in found} == set(range(1, 11))
    assert sum(item.recording.rows for item in found) == 244_102
    assert all(np.isfinite(item.recording.values).all() for item in found)
