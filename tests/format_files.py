"""Write one small example of each stored format: python -m tests.format_files FOLDER

Run it once whenever a format changes, into a new folder of tests/data/formats, and commit what it
wrote. test_formats.py then holds every later version to reading it, or to refusing it in one
sentence. Never run it into a folder that is there already: those files are what devices hold.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import tiny_model  # noqa: E402

from edge_runtime.bundle.reader import read_bundle  # noqa: E402
from edge_runtime.journal.journal import open_journal  # noqa: E402
from edge_runtime.journal.segments import JournalDisk  # noqa: E402
from edge_runtime.updates.store import Store  # noqa: E402
from tests.apparatus.harm import edit_manifest, replace_member  # noqa: E402

ROWS = 160
JOURNAL_BYTES = 64_000  # in 32 segments, so that the records of one run make several
READER, TAKEN = "mqtt://broker.local/plant", 30


def write_formats(folder: Path) -> None:
    """Bundles, thresholds, store, journal, status file and start marker, below a new `folder`."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        tiny_model.write_run(made / "run")
        gated = tiny_model.write_bundle(made / "run", folder)
        tiny_model.write_linear_run(made / "linear_run")
        linear = tiny_model.write_linear_bundle(made / "linear_run", folder)
        replace_member(linear, "report.html", b"<!doctype html><title>straight-1</title>\n")
        _write_thresholds(gated, made)
        _write_store(folder / "store", linear, made)
        _write_run(folder, gated, made)
        _write_journal(folder / "journal", made / "records.jsonl")
    for lock in folder.rglob("*.lock"):
        lock.unlink()


def _write_thresholds(bundle: Path, scratch: Path) -> None:
    clean = _write_rows(scratch / "clean.csv", 1200, seed=31)
    _gruard("calibrate", bundle, "--data", clean)


def _write_store(root: Path, linear: Path, scratch: Path) -> None:
    """Version 1 is the previous one, version 2 current, version 3 on trial with 2 attempts left."""
    store = Store(root)
    for version in (1, 2, 3):
        copy = Path(shutil.copytree(linear, scratch / f"straight-{version}.gruard"))
        edit_manifest(copy, lambda data, number=version: data.update(version=number))
        bundle = read_bundle(copy)
        store.install(bundle)
        if version < 3:
            store.change(lambda pointers, slot=bundle.digest: pointers.proven(slot))
    store.change(lambda pointers: pointers.attempted(pointers.trial.slot))


def _write_run(folder: Path, bundle: Path, scratch: Path) -> None:
    rows = _write_rows(scratch / "rows.csv", ROWS, seed=41)
    _gruard(
        "run", bundle, "--source", rows, "--sink", scratch / "records.jsonl", "--journal",
        scratch / "journal", "--status", folder / "status.json", "--state", folder,
    )  # fmt: skip


def _write_journal(folder: Path, records: Path) -> None:
    """The records of the run, of which READER has taken the first TAKEN."""
    journal = open_journal(folder, JOURNAL_BYTES, print, clock=lambda: 0.0, patience=5.0)
    _, cursor = journal.reader(READER)
    for line in records.read_text().splitlines():
        journal.append(f'{{"run":"6f1d0c3b5a79",{line[1:]}'.encode())
    journal.close()
    cursor.keep(TAKEN)
    assert len(list(folder.glob("*.journal"))) > 2 and JournalDisk(folder).sizes()


def _write_rows(file: Path, count: int, seed: int) -> Path:
    lines = [",".join(("time", *tiny_model.CHANNELS))]
    for index, row in enumerate(tiny_model.machine_rows(count, seed)):
        lines.append(",".join([str(index), *(f"{value:.6g}" for value in row)]))
    file.write_text("\n".join(lines) + "\n")
    return file


def _gruard(*words: object) -> None:
    command = [sys.executable, "-m", "edge_runtime", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


if __name__ == "__main__":
    write_formats(Path(sys.argv[1]))
    print(json.dumps({"written": sys.argv[1]}))
