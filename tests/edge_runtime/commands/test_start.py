"""A box that ran once runs again: whatever file of its store is damaged, something answers.

The store is that of the golden files: straight-2 is current, straight-1 previous.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_keys import sign, write_keys

from edge_runtime.commands.main import gruard
from edge_runtime.detector.fallback import Fallback
from edge_runtime.errors import DamagedError, GruardError, NotAllowedError
from edge_runtime.record import Flag, Sample
from edge_runtime.updates.choice import Admission, Start, choose, start_from
from edge_runtime.updates.pointers import Pointers
from edge_runtime.updates.store import Store
from tests.apparatus.harm import flip_bit, make_special

FORMATS = Path(__file__).parents[2] / "data/formats/1"
ROOT = Path(__file__).parents[3]
POSITIONS = 20
ROWS = "time,set_point,flow,heat\n" + "".join(f"{row},50,20,300\n" for row in range(12))
PATIENCE = 60  # seconds; only a failing test ever waits for them


@pytest.fixture(autouse=True)
def _no_test_hangs() -> Iterator[None]:
    """An open that waits ends the test; nothing here depends on how long anything takes."""
    signal.alarm(5 * PATIENCE)
    yield
    signal.alarm(0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Of an older gruard when it was copied; its current bundle is remembered by now."""
    store = Store(Path(shutil.copytree(FORMATS / "store", tmp_path / "store")))
    store.change(lambda pointers: pointers.failed(pointers.trial.slot, "for the test"))
    store.remember(current(store).bundle)
    for path in store.root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return store


def current(store: Store) -> Start:
    return choose(store, Admission(), lambda line: None)


def begun(store: Store) -> tuple[str, list[str]]:
    """The bundle that answers, or `fallback`, and the log."""
    log: list[str] = []
    start = choose(Store(store.root, log=log.append), Admission(), log.append)
    if start.bundle:
        return f"straight-{start.bundle.manifest.version}", log
    assert start.reason
    return "fallback" if start.constants else "no score", log


def rot(store: Store, *versions: int, member: str = "golden.npz") -> None:
    for slot in store.slots:
        version = json.loads((slot.path / "manifest.json").read_text())["version"]
        if version in versions:
            flip_bit(slot.path / member, 100)


# The chain.


def test_a_damaged_current_slot_starts_the_previous_one(store: Store) -> None:
    before = store.pointers()
    rot(store, 2)
    name, (line,) = begun(store)
    assert name == "straight-1" and "golden.npz: does not match" in line
    assert line.endswith("straight-1 answers instead")
    after = store.pointers()
    assert after.current == before.previous and after.previous is None
    assert after.rejected.slot == before.current and "golden.npz" in after.rejected.reason
    assert begun(store) == ("straight-1", [])


def test_without_a_previous_one_any_other_slot_is_started(store: Store) -> None:
    third = next(slot for slot in store.slots if slot.label == "straight-3")
    store.change(lambda p: Pointers(p.current, p.previous))  # nothing is said against the third
    rot(store, 1, 2)
    name, log = begun(store)
    assert name == "straight-3" and len(log) == 2
    assert store.pointers().current == third.digest


def test_what_failed_its_trial_is_not_started(store: Store) -> None:
    rot(store, 1, 2)
    assert begun(store)[0] == "fallback"


@pytest.mark.parametrize("lost", ["model", "manifest", "slots"])
def test_without_a_slot_the_remembered_fallback_answers(store: Store, lost: str) -> None:
    before = store.pointers()
    if lost == "slots":
        shutil.rmtree(store.slots.folder)
    else:
        rot(store, 1, 2, 3, member="golden.npz" if lost == "model" else "manifest.json")
    start = current(store)
    assert start.bundle is None and start.constants and start.constants.version == 2
    record = Fallback(start.constants, "").step(
        Sample(0, None, np.array([50, 20, 300], np.float32))
    )
    assert (record.tier, record.valid, record.model) == (3, False, "")
    assert record.flags == Flag.FALLBACK and record.score is not None
    assert "only the fallback answers, by the limits of straight-2" in begun(store)[1][-1]
    assert store.pointers() == before  # there is nothing better to point to


def test_the_fallback_of_an_older_store_comes_from_a_manifest_that_is_whole(store: Store) -> None:
    for file in store.root.glob("fallback*"):
        file.unlink()
    rot(store, 1, 2, 3)
    assert begun(store)[0] == "fallback"
    rot(store, 1, 2, 3, member="manifest.json")
    assert begun(store)[0] == "no score"


def test_a_bundle_for_other_samples_does_not_answer_instead(store: Store) -> None:
    facts = json.loads((store.root / "fallback.json").read_text())
    digest = facts["slot"]
    rot(store, 2)
    kept = store.remembered.fallback()
    assert kept and kept[0] == digest
    channels = facts["constants"]["channels"]
    channels[0]["name"] = "another"
    store.remembered._fallback.write(9, {"slot": digest, "constants": facts["constants"]})
    name, log = begun(store)
    assert name == "fallback" and any("watches other samples" in line for line in log)


def test_damage_that_no_run_meets_only_warns(store: Store) -> None:
    rot(store, 2, member="report.json")
    name, (line,) = begun(store)
    assert name == "straight-2" and "no run needs this file" in line
    assert store.pointers().rejected.reason == "for the test"


def test_a_disk_that_is_read_only_does_not_stop_the_start(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise GruardError("pointers.json: cannot be written (Read-only file system)")

    monkeypatch.setattr("edge_runtime.updates.disk.StoreDisk.write", refuse)
    rot(store, 2)
    name, log = begun(store)
    assert name == "straight-1" and "Read-only file system" in log[-1]


# Every file of the store, with a flipped bit at many places.


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size)


def test_something_answers_wherever_a_bit_rots(store: Store) -> None:
    third = next(slot.path for slot in store.slots if slot.label == "straight-3")
    shutil.rmtree(third)
    whole = {file: file.read_bytes() for file in files_of(store.root)}
    # Two slots of six files, three facts twice.
    assert len(whole) == 2 * 6 + 3 * 2
    rng, answered = np.random.default_rng(5), {}
    previous = store.slots.path(store.pointers().previous)
    for file, data in whole.items():
        # Nobody reads the previous slot while the current one is whole.
        for position in rng.integers(0, len(data), 2 if file.parent == previous else POSITIONS):
            flip_bit(file, int(position), int(rng.integers(8)))
            name, log = begun(store)
            assert name in ("straight-2", "straight-1"), (file, position, log)
            read = file.parent != previous and not file.name.startswith("lowest")
            assert read == any(file.name in line for line in log), (file, position, log)
            if file.parent != previous:
                answered.setdefault(file.name, set()).add(name)
            for each, bytes_before in whole.items():
                if each.parent == store.root or each == file:
                    each.write_bytes(bytes_before)
    # Only what a run needs costs the current bundle.
    needed = {"golden.npz", "manifest.json", "manifest.sha256"}
    assert {file for file, names in answered.items() if names == {"straight-1"}} == needed
    assert all(names == {"straight-2"} for file, names in answered.items() if file not in needed)


def test_something_answers_when_every_file_rots_at_once(store: Store) -> None:
    rng = np.random.default_rng(6)
    for file in files_of(store.root):
        flip_bit(file, int(rng.integers(file.stat().st_size)), int(rng.integers(8)))
    assert begun(store)[0] == "no score"


# What a person has to decide is told, and nothing runs.


def run(*words: object, stdin: str = ROWS) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edge_runtime", "run", *map(str, words), "--deadline", "30"]
    return subprocess.run(
        command, input=stdin, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE * 3,
        check=False,
    )  # fmt: skip


def asked(*words: object, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(gruard, [str(word) for word in words])


def told(result: Result) -> str:
    """The one sentence that a user sees."""
    assert result.exit_code, result.output
    error = result.exception
    return str(error) if isinstance(error, GruardError) else result.output


def test_a_slip_is_told(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = ("run", "--source", "-")
    for place in (tmp_path / "nowhere", tmp_path / "empty"):
        assert "no bundle is installed there" in told(asked(*words, "--store", place))
        assert "give the folder NAME-VERSION.gruard" in told(asked(*words, place))
    key = ("--trusted-key", tmp_path / "plant.pub")
    assert "is not signed" in told(asked(*words, *key, "--store", store.root))
    bundle = FORMATS / "straight-1.gruard"
    assert "is not signed" in told(asked(*words, *key, bundle))


@pytest.mark.parametrize("keys", ["", "  ", ":", "a.pub:"])
@pytest.mark.parametrize("command", ["run", "install", "inspect"])
def test_an_empty_list_of_trusted_keys_is_no_list_for_everybody(
    keys: str, command: str, tmp_path: Path
) -> None:
    words = [command, FORMATS / "straight-1.gruard"]
    words += ["--source", "-"] if command == "run" else []
    words += ["--store", tmp_path / "store"] if command == "install" else []
    text = told(asked(*words, GRUARD_TRUSTED_KEYS=keys))
    assert "a trusted key has no name" in text and "unset GRUARD_TRUSTED_KEYS" in text
    assert "a trusted key has no name" in told(asked(*words, "--trusted-key", ""))
    assert not (tmp_path / "store").exists()


def test_a_blank_key_file_and_a_folder_are_no_keys(tmp_path: Path) -> None:
    blank, folder = tmp_path / "blank.pub", tmp_path / "keys"
    blank.write_text(" \n")
    folder.mkdir()
    os.mkfifo(tmp_path / "fifo.pub")
    signed = Path(shutil.copytree(FORMATS / "straight-1.gruard", tmp_path / "x.gruard"))
    (signed / "manifest.sig").write_bytes(b"s" * 64)
    for key, words in (
        (blank, "is blank"),
        (folder, "is a directory"),
        (tmp_path / "fifo.pub", "is a named pipe"),
    ):
        text = told(asked("inspect", signed, "--trusted-key", key))
        assert words in text and str(key) in text


# Special files.


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device", "a directory"])
def test_special_files_of_a_store_neither_block_nor_stop(store: Store, kind: str) -> None:
    for name in ("pointers.json", "fallback.json", "lowest.json"):
        (store.root / name).unlink()
        make_special(store.root / name, kind)
    name, log = begun(store)
    assert name == "straight-2" and f"pointers.json: cannot be read (is {kind}" in log[0]
    (store.root / "pointers.lock").unlink()
    make_special(store.root / "pointers.lock", kind)
    text = told(asked("rollback", "--store", store.root))
    assert f"pointers.lock: cannot be written (is {kind}" in text and "remove it" in text


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device", "a directory"])
def test_a_special_file_in_place_of_thresholds_is_refused(tmp_path: Path, kind: str) -> None:
    bundle = Path(shutil.copytree(FORMATS / "straight-1.gruard", tmp_path / "x.gruard"))
    make_special(tmp_path / "x.thresholds.json", kind)
    text = told(asked("inspect", bundle))
    assert f"x.thresholds.json: cannot be read (is {kind}" in text and "remove it" in text


# A bundle that lies in no store.


def test_a_damaged_bundle_leaves_its_fallback(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(FORMATS / "straight-1.gruard", tmp_path / "x.gruard"))
    log: list[str] = []
    assert start_from(bundle, Admission(), log.append).bundle and log == []
    flip_bit(bundle / "golden.npz", 100)
    start = start_from(bundle, Admission(), log.append)
    assert start.bundle is None and start.constants and "golden.npz" in start.reason
    flip_bit(bundle / "manifest.json", 100)
    assert start_from(bundle, Admission(), log.append).constants is None
    assert "only the fallback answers, without score" in log[-1]


def test_a_later_bundle_is_no_damage(tmp_path: Path) -> None:
    from tests.apparatus.harm import edit_manifest

    bundle = Path(shutil.copytree(FORMATS / "straight-1.gruard", tmp_path / "x.gruard"))
    edit_manifest(bundle, lambda data: data.update(schema=99))
    with pytest.raises(GruardError, match="schema 99") as caught:
        start_from(bundle, Admission(), print)
    assert not isinstance(caught.value, DamagedError)


def test_a_signature_that_rotted_is_told_from_one_of_somebody_else(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(FORMATS / "straight-1.gruard", tmp_path / "x.gruard"))
    private, public = write_keys(tmp_path / "plant")
    _, other = write_keys(tmp_path / "stranger")
    sign(bundle, private)
    check = ["sha256sum", "--check", "--strict", "--quiet", "manifest.sha256"]
    subprocess.run(check, cwd=bundle, check=True)
    with pytest.raises(NotAllowedError, match="not a signature of this bundle"):
        start_from(bundle, Admission(trusted_keys=(other,)), print)
    flip_bit(bundle / "manifest.sig", 9)
    log: list[str] = []
    start = start_from(bundle, Admission(trusted_keys=(public,)), log.append)
    assert start.bundle is None and "manifest.sig: does not match" in start.reason
    assert start_from(bundle, Admission(), log.append).bundle  # nobody asked for a signature
    assert "manifest.sig: does not match" in log[-1] and "no run needs" in log[-1]


# The whole command.


def records(done: "subprocess.CompletedProcess[str]") -> list[dict]:
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["index"] for record in found] == [*range(12)]
    for record in found:
        assert (record["tier"], record["flags"], record["valid"]) == (3, ["FALLBACK"], False)
        assert record["model"] == ""
    return found


def test_the_fallback_answers_every_sample(store: Store, tmp_path: Path) -> None:
    rot(store, 1, 2, 3)
    status = tmp_path / "status.json"
    done = run("--store", store.root, "--source", "-", "--status", status)
    assert all(record["score"] is not None for record in records(done))
    assert "only the fallback answers, by the limits of straight-2" in done.stderr
    snapshot = json.loads(status.read_text())
    assert "model has no usable bundle: " in snapshot["model"]["waiting"]
    assert "golden.npz" in snapshot["model"]["waiting"]


@pytest.mark.parametrize("form", ["csv", "json", "file"])
def test_without_constants_the_source_names_the_channels(
    store: Store, tmp_path: Path, form: str
) -> None:
    shutil.rmtree(store.slots.folder)
    for file in store.root.glob("fallback*"):
        file.write_bytes(b"")
    header, *rows = ROWS.splitlines()
    names = header.split(",")
    objects = [dict(zip(names, map(float, row.split(",")), strict=True)) for row in rows]
    text = "\n".join(map(json.dumps, objects)) + "\n" if form == "json" else ROWS
    (tmp_path / "rows.csv").write_text(text.replace("50,", ",", 1))
    source = tmp_path / "rows.csv" if form == "file" else "-"
    done = run("--store", store.root, "--source", source, stdin=text.replace("50,", ",", 1))
    found = records(done)
    assert {record["score"] for record in found} == {None} == {r["threshold"] for r in found}
    if form != "json":
        assert [record["masked"] for record in found] == [["set_point"], *[[]] * 11]
    assert "only the fallback answers, without score" in done.stderr
