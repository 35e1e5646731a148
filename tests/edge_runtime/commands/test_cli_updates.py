"""Updates as an operator meets them: real bundles, real processes, a live stream, a power switch.

The run is fed line by line and answers line by line, so that the test knows what happens when.
"""

import json
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from live_run import is_answer

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.thresholds import threshold_of
from edge_runtime.updates.store import Store
from tests.apparatus.harm import edit_manifest, flip_bit, replace_member

ROOT = Path(__file__).parents[3]
PATIENCE = 90.0  # seconds; only a failing test ever waits for them
ROWS = [",".join(f"{value:.6g}" for value in row) for row in tiny_model.machine_rows(400, seed=41)]
Facts = dict[str, Any]


def gruard(*words: object) -> str:
    command = [sys.executable, "-m", "edge_runtime", *map(str, words)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class LiveRun:
    """`gruard run` from a store on a stream; records holds every answer so far."""

    def __init__(self, store: Path, log: Path, *words: str) -> None:
        self.records: list[Facts] = []
        self._log = log
        command = [sys.executable, "-m", "edge_runtime", "run", "--store", str(store)]
        command += ["--source", "-", "--deadline", "30", *words]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w")
        )
        self._send(",".join(tiny_model.CHANNELS))

    def step(self) -> Facts:
        """One sample in, one record out."""
        self._send(ROWS[len(self.records) % len(ROWS)])
        assert self.process.stdout
        assert select.select([self.process.stdout], [], [], PATIENCE)[0], self.log
        line = self.process.stdout.readline()
        assert line, self.log
        self.records.append(json.loads(line))
        return self.records[-1]

    def until(self, wanted: Callable[[Facts], bool]) -> Facts:
        """Step until a record is as wanted."""
        end = time.monotonic() + PATIENCE
        while not wanted(record := self.step()):
            assert time.monotonic() < end, self.log
        return record

    def end(self) -> list[Facts]:
        """End the stream; all records, one for each index."""
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0, self.log
        self.check()
        return self.records

    def kill(self) -> None:
        """What a power cut does to a process."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self.check()

    def check(self) -> None:
        assert [record["index"] for record in self.records] == list(range(len(self.records)))

    @property
    def log(self) -> str:
        return self._log.read_text()

    def _send(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., LiveRun]]:
    runs: list[LiveRun] = []

    def start(*words: str) -> LiveRun:
        runs.append(LiveRun(tmp_path / "store", tmp_path / f"log{len(runs)}", *words))
        return runs[-1]

    yield start
    for live in runs:
        live.process.kill()
        live.process.wait(PATIENCE)
        for pipe in (live.process.stdin, live.process.stdout):
            if pipe:
                pipe.close()


@pytest.fixture
def first(tiny_bundle: Path) -> Path:
    return tiny_bundle


@pytest.fixture
def second(linear_bundle: Path, tmp_path: Path) -> Path:
    """Version 2 of the same machine's bundle, with another model in it."""
    path = Path(shutil.copytree(linear_bundle, tmp_path / "tiny-2.gruard"))
    edit_manifest(path, lambda data: data.update(name=tiny_model.NAME, version=2))
    return path


def model_of(bundle: Path) -> str:
    return read_bundle(bundle).model_hash


def facts(store: Path) -> Facts:
    return json.loads(gruard("list", "--store", store, "--json"))


@pytest.mark.long
def test_an_update_under_load_misses_no_sample(
    first: Path, second: Path, tmp_path: Path, run: Callable[..., LiveRun]
) -> None:
    store, (old, new) = tmp_path / "store", map(model_of, (first, second))
    assert "tiny-1" in gruard("install", first, "--store", store)
    live = run("--healthy-minutes", "0")
    live.until(lambda record: record["valid"])
    assert "on trial, attempts left: 3" in gruard("install", second, "--store", store)
    switched = live.until(lambda record: record["model"] == new and is_answer(record))
    assert switched["valid"]
    live.step()  # by now it has proven itself
    found = facts(store)
    assert found["current"] == read_bundle(second).digest and found["trial"] is None
    assert found["previous"] == read_bundle(first).digest
    gruard("rollback", "--store", store)
    live.until(lambda record: record["model"] == old)
    records = live.end()
    models = [record["model"] for record in records]
    changes = [i for i in range(1, len(models)) if models[i] != models[i - 1]]
    assert len(changes) == 2 and models[0] == models[-1] == old
    # Every sample after the first warm-up had a model behind it, also while another one was
    # loading and catching up with the last samples.
    poor = [r["index"] for r in records if r["tier"] == 3 and is_answer(r)]
    assert poor == [*range(read_bundle(first).manifest.tiers.warmup)]
    assert live.log.count("the model has caught up with the last ") == 2
    assert f"sample {changes[0]}: tiny-2 answers from here on" in live.log


@pytest.mark.slow
def test_a_spoiled_update_is_rolled_back_while_the_run_goes_on(
    first: Path, second: Path, tmp_path: Path, run: Callable[..., LiveRun]
) -> None:
    store = tmp_path / "store"
    replace_member(second, "golden.npz", (first / "golden.npz").read_bytes())
    gruard("install", first, "--store", store)
    live = run()
    live.until(lambda record: record["valid"])
    gruard("install", second, "--store", store)
    live.until(lambda record: Store(store).pointers().rejected is not None)
    for _ in range(50):
        live.step()
    records = live.end()
    assert {record["model"] for record in records} == {model_of(first)}
    shown = gruard("list", "--store", store)
    assert "current" in shown and "rolled back tiny-2" in shown
    assert "golden vectors" in shown or "self-test" in shown
    assert "rolled back" in live.log and "Traceback" not in live.log


@pytest.mark.long
def test_a_trial_that_is_cut_short_three_times_is_rolled_back(
    first: Path, second: Path, tmp_path: Path, run: Callable[..., LiveRun]
) -> None:
    store, new = tmp_path / "store", model_of(second)
    gruard("install", first, "--store", store)
    gruard("install", second, "--store", store)
    for left in (2, 1, 0):
        live = run()
        assert live.step()["model"] == new
        assert facts(store)["trial"]["attempts"] == left  # counted before it was loaded
        live.kill()
    live = run()
    assert live.step()["model"] == model_of(first)
    assert "used up its attempts" in live.log
    live.end()
    found = facts(store)
    assert found["trial"] is None and "used up its attempts" in found["rejected"]["reason"]


@pytest.mark.long
def test_a_run_that_ends_in_good_order_costs_no_attempt(
    first: Path, second: Path, tmp_path: Path, run: Callable[..., LiveRun]
) -> None:
    store = tmp_path / "store"
    gruard("install", first, "--store", store)
    gruard("install", second, "--store", store)
    live = run()
    live.step()
    live.end()
    assert facts(store)["trial"]["attempts"] == 3
    live = run()
    live.step()
    live.step()  # so that the sample before is over and done with
    live.process.send_signal(signal.SIGTERM)  # systemctl stop
    assert live.process.wait(PATIENCE) == 0
    assert facts(store)["trial"]["attempts"] == 3


@pytest.mark.long
def test_thresholds_of_a_stored_bundle_lie_beside_its_slot(
    first: Path, tmp_path: Path, run: Callable[..., LiveRun]
) -> None:
    store = tmp_path / "store"
    gruard("install", first, "--store", store)
    clean = tmp_path / "clean.csv"
    rows = tiny_model.machine_rows(1200, seed=31)
    lines = [",".join(f"{value:.6g}" for value in row) for row in rows]
    clean.write_text("\n".join([",".join(tiny_model.CHANNELS), *lines]) + "\n")
    words = ("calibrate", "tiny-1", "--store", store, "--data", clean, "--json")
    made = json.loads(gruard(*words))
    slot = Store(store).slots.find("tiny-1")
    assert made["file"] == str(slot.path.with_suffix(".thresholds.json").resolve())
    assert slot.bundle and threshold_of(slot.bundle, made["kernel"]).value == made["value"]
    live = run()
    told = live.until(lambda record: record["tier"] == 1)["threshold"]
    live.end()
    assert told == pytest.approx(made["value"], rel=1e-6)
    gruard("install", first, "--store", store)  # nor does another install disturb it
    assert threshold_of(slot.bundle, made["kernel"]).value == made["value"]


@pytest.mark.long
def test_the_running_slot_is_never_removed(
    first: Path, second: Path, tmp_path: Path, run: Callable[..., LiveRun]
) -> None:
    store = tmp_path / "store"
    gruard("install", first, "--store", store)
    live = run()
    live.step()
    live.process.send_signal(signal.SIGSTOP)  # so that it does not take up what follows
    opened = Store(store)
    for version in (2, 3, 4):
        edit_manifest(second, lambda data, number=version: data.update(version=number))
        opened.install(read_bundle(second))
        opened.change(lambda pointers: pointers.proven(pointers.trial.slot))
    gruard("install", second, "--store", store)  # of the others, nothing points to 1 and 2
    assert {bundle["version"] for bundle in facts(store)["bundles"]} == {1, 3, 4}
    live.kill()
    gruard("install", second, "--store", store)
    assert {bundle["version"] for bundle in facts(store)["bundles"]} == {3, 4}


@pytest.mark.long
def test_a_store_without_a_usable_bundle_answers_and_is_mended_while_it_runs(
    tmp_path: Path, run: Callable[..., LiveRun]
) -> None:
    formats = Path(__file__).parents[2] / "data/formats/1"
    store = Path(shutil.copytree(formats / "store", tmp_path / "store"))
    opened = Store(store)
    opened.change(lambda pointers: pointers.failed(pointers.trial.slot, "for the test"))
    current = opened.slots.path(opened.pointers().current)
    good = Path(shutil.copytree(current, tmp_path / "straight-2.gruard"))
    opened.remember(read_bundle(good))
    for slot in list(opened.slots):
        (slot.path / "golden.npz").chmod(0o644)
        flip_bit(slot.path / "golden.npz", 99)
    status = tmp_path / "status.json"
    live = run("--status", str(status))
    first = live.step()
    assert (first["tier"], first["model"], first["valid"]) == (3, "", False)
    assert first["flags"] == ["FALLBACK"] and first["score"] is not None
    assert "current" in gruard("install", good, "--store", store)
    live.until(lambda record: record["valid"])
    live.end()
    models = [record["model"] for record in live.records]
    assert set(models) == {"", model_of(good)} and "Traceback" not in live.log
    assert "only the fallback answers, by the limits of straight-2" in live.log
    assert "straight-2 answers from here on" in live.log
    told = json.loads(status.read_text())["model"]
    assert (told["version"], told["hash"], told["waiting"]) == (2, models[-1], "")
