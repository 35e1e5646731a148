"""Faults of installed bundles: one that crashes, one too old, one with a wrong threshold."""

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.thresholds import local_file
from edge_runtime.updates.pointers import ATTEMPTS
from tests.apparatus.harm import replace_member
from tests.campaign.fault import Fault, Happened, Json, expect
from tests.campaign.lab import LIMIT, Lab, Run

START = 200
FEW = 60
MANY = 10_000  # samples, enough for everything to happen
ROLLED_BACK = "rolled back"


def _newer(lab: Lab) -> Path:
    return lab.version(lab.bundle.manifest.version + 1)


def _store(lab: Lab, *bundles: Path) -> Path:
    """A new store with `bundles` installed into it, one after the other."""
    store = Path(tempfile.mkdtemp(prefix="store-", dir=lab.scratch))
    for bundle in bundles:
        _install(lab, store, bundle)
    return store


def _install(lab: Lab, store: Path, bundle: Path, *options: str) -> None:
    words = ("install", str(bundle), "--store", str(store), "--allow-failed", *options)
    done = lab.command(*words)
    expect(done.returncode == 0, f"install: {done.stderr.strip()[-200:]}")


def _install_meanwhile(run: Run, store: Path, bundle: Path) -> None:
    """Install while samples are fed, so that the source does not fall silent."""
    with ThreadPoolExecutor(1) as other:
        done = other.submit(_install, run.lab, store, bundle)
        while not done.done():
            run.feed(run.lab.rows[len(run.records) % len(run.lab.rows)][np.newaxis], pace=0.01)
        done.result()


def _list(lab: Lab, store: Path) -> Json:
    facts: Json = json.loads(lab.command("list", "--store", str(store), "--json").stdout)
    return facts


def _check_rolled_back(lab: Lab, store: Path, rejected: Path) -> None:
    facts = _list(lab, store)
    expect(facts["trial"] is None, "the trial goes on")
    expect(facts["current"] == lab.bundle.digest, "the old bundle is not current")
    slot = facts["rejected"]["slot"]
    expect(slot == read_bundle(rejected, allow_failed=True).digest, "something else was rejected")


def _feed_until(run: Run, words: str) -> None:
    """Feed samples until the log contains `words`."""
    rows = run.lab.rows
    for count in range(MANY):
        if run.said(words):
            return
        run.feed(rows[count % len(rows)][np.newaxis], pace=0.01)
    expect(False, f"the log never says {words!r}: {run.log[-3:]}")


def _does_not_load(lab: Lab) -> Happened:
    """A bundle with correct hashes, and golden vectors that its model does not reproduce."""
    bad = _newer(lab)
    spoiled = _spoiled_vectors(bad)
    replace_member(bad, "golden.npz", spoiled)
    store = _store(lab, lab.path)
    with lab.run("--allow-failed", store=store) as run:
        run.feed(lab.rows[:START])
        _install_meanwhile(run, store, bad)
        _feed_until(run, ROLLED_BACK)
        run.feed(lab.rows[:FEW])
    fallback = [r["index"] for r in run.records if r["tier"] == 3 and "WARMUP" not in r["flags"]]
    expect(not fallback, f"the fallback answers sample {fallback[:1]}")
    _check_rolled_back(lab, store, bad)
    return "rolled back by itself; the old bundle answered every sample meanwhile"


def _spoiled_vectors(bundle: Path) -> bytes:
    """The golden vectors, each half as large."""
    import io

    arrays = read_bundle(bundle, allow_failed=True).arrays("golden.npz")
    spoiled = io.BytesIO()
    np.savez(spoiled, **{name: (array / 2).astype(array.dtype) for name, array in arrays.items()})
    return spoiled.getvalue()


def _crashes(lab: Lab) -> Happened:
    """The worker dies whenever it has just loaded the bundle."""
    newer = _newer(lab)
    store = _store(lab, lab.path)
    with lab.run("--allow-failed", store=store) as run:
        run.feed(lab.rows[:START])
        ended = {run.worker}
        _install_meanwhile(run, store, newer)
        _feed_until(run, "answers from here on")
        while not run.said(ROLLED_BACK):
            worker = run.worker
            if worker and worker not in ended and run.said("model loaded") > len(ended):
                run.kill_worker()
                ended.add(worker)
            expect(len(run.records) < MANY, "the bundle is not rolled back")
            run.feed(lab.rows[:1], pace=0.01)
        _feed_until(run, f"{_label(lab)} answers from here on")
        run.feed(lab.rows[:FEW])
    kills = len(ended) - 1
    expect(0 < kills <= ATTEMPTS, f"it was killed {kills} times")
    _check_rolled_back(lab, store, newer)
    expect(run.records[-1]["tier"] == 1 or "WARMUP" in run.records[-1]["flags"], "no model answers")
    return f"rolled back by itself after {kills} crashes, the old bundle answers again"


def _label(lab: Lab) -> str:
    return f"{lab.bundle.manifest.name}-{lab.bundle.manifest.version}"


def _takes_all_along(lab: Lab) -> Happened:
    """gruard itself is killed at every start while the bundle is on trial, as by power cuts."""
    newer = _newer(lab)
    store = _store(lab, lab.path, newer)
    for left in reversed(range(ATTEMPTS)):
        with lab.run("--allow-failed", store=store) as run:
            run.feed(lab.rows[:1])
            run.process.kill()
            run.process.wait(LIMIT)
        expect(_list(lab, store)["trial"]["attempts"] == left, "an attempt was not counted")
    with lab.run("--allow-failed", store=store) as run:
        run.feed(lab.rows[:START])
    expect(run.said(ROLLED_BACK) == 1, "the log does not tell")
    _check_rolled_back(lab, store, newer)
    return f"after {ATTEMPTS} starts rolled back by itself, the old bundle answers"


def _downgraded(lab: Lab) -> Happened:
    older = lab.path
    store = _store(lab, _newer(lab))
    before = (store / "pointers.json").read_bytes()
    done = lab.command("install", str(older), "--store", str(store), "--allow-failed")
    expect(done.returncode == 2, f"exit code {done.returncode}")
    expect("--allow-downgrade" in done.stderr, done.stderr[-200:])
    expect((store / "pointers.json").read_bytes() == before, "the store has changed")
    _install(lab, store, older, "--allow-downgrade")
    return "refused, exit code 2, nothing changed; taken with --allow-downgrade"


def _wrong_threshold(lab: Lab) -> Happened:
    """The thresholds next to the bundle are those of another bundle; then the worker dies."""
    copy, other = lab.copy("watched"), _newer(lab)
    file = local_file(copy)
    text = {"schema": 1, "manifest": read_bundle(other, allow_failed=True).digest, "thresholds": {}}
    with lab.run("--allow-failed", bundle=copy) as run:
        run.feed(lab.rows[:START])
        file.write_text(json.dumps(text))
        run.kill_worker()
        run.feed(lab.rows[START:], pace=0.005)
        run.await_log("the model answers again")
    known = {record["threshold"] for record in run.records if record["tier"] == 1}
    expect(len(known) == 1, f"thresholds {sorted(known)}")
    done = lab.command("selftest", str(copy))
    expect(done.returncode == 2 and "made for another bundle" in done.stderr, done.stderr[-200:])
    return "the run keeps those of its start; the next start refuses them, and says why"


FAULTS = (
    Fault("bundle that does not load", "golden vectors of another model",
          "rolled back, no sample without a model", _does_not_load),
    Fault("crash-looping bundle", "its process dies whenever it was loaded",
          "rolled back after 3 attempts at most", _crashes),
    Fault("bundle that takes gruard along", "the supervisor is killed at each start",
          "rolled back after 3 starts", _takes_all_along),
    Fault("downgraded bundle", "an older version is installed",
          "refused without --allow-downgrade", _downgraded),
    Fault("wrong threshold", "thresholds of another bundle", "never used, and it is said why",
          _wrong_threshold),
)  # fmt: skip
