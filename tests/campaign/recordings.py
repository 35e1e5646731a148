"""Faults of recordings: of `gruard record`, and of the readings that a run keeps."""

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edge_runtime.readings.recorder import FLUSH_EVERY
from tests.campaign.fault import Fault, Happened, expect
from tests.campaign.lab import LIMIT, ROOT, Lab, Run

START = 200
KILLS = 5
DAMAGED = 30
FULL = 10**9
PIECES = 4


def _folder(lab: Lab) -> Path:
    return Path(tempfile.mkdtemp(prefix="readings-", dir=lab.scratch)) / "kept"


Rows = dict[float, np.ndarray]
"""What was sent, by its time."""


def _readings(lab: Lab, folder: Path) -> tuple[Rows, str]:
    """Return what `gruard readings` gives, and its log."""
    done = lab.command("readings", str(folder))
    expect(done.returncode == 0, done.stderr[-200:])
    header, *lines = done.stdout.splitlines()
    expect(header == ",".join(("time", *lab.channels)), f"header {header}")
    rows = [[float(cell or "nan") for cell in line.split(",")] for line in lines]
    return {row[0]: np.array(row[1:], np.float32) for row in rows}, done.stderr


def _await_kept(lab: Lab, folder: Path, count: int) -> None:
    """Wait until `count` readings are on the disk."""
    until, kept = time.monotonic() + LIMIT, 0
    while kept < count:
        expect(time.monotonic() < until, f"{kept} readings of {count} on the disk")
        time.sleep(FLUSH_EVERY / 5)
        kept = len(_readings(lab, folder)[0]) if any(folder.glob("*.csv.gz")) else 0


def _check_kept(kept: Rows, sent: Rows) -> None:
    """Check that each reading is one that was sent; not that all are there."""
    for moment, row in kept.items():
        expect(moment in sent, f"a reading at {moment} was never sent")
        expect(np.array_equal(row, sent[moment], equal_nan=True), f"another reading at {moment}")


def _feed(lab: Lab, run: Run, rows: np.ndarray, sent: Rows) -> None:
    """Send rows, each after the one before was answered."""
    for row in rows:
        known = len(run.records)  # silence before has its gap records
        moment = known * lab.period
        run.feed(row[np.newaxis], times=[moment])
        run.await_records(known + 1)
        sent[moment] = row.astype(np.float32)


def _recorder(lab: Lab, folder: Path) -> "subprocess.Popen[str]":
    """Start `gruard record` on a pipe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_runtime", "record", "--source", "-", "--out", str(folder)],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    _send(process, [",".join(("time", *lab.channels))])
    return process


def _send(process: "subprocess.Popen[str]", lines: list[str]) -> None:
    assert process.stdin
    process.stdin.write("\n".join(lines) + "\n")
    process.stdin.flush()


def _killed(lab: Lab) -> Happened:
    folder = _folder(lab)
    sent = {i * lab.period: row.astype(np.float32) for i, row in enumerate(lab.rows)}
    lines = [lab.line(moment, row) for moment, row in zip(sent, lab.rows, strict=True)]
    for kill in range(KILLS):
        process = _recorder(lab, folder)
        _send(process, lines[kill * START : (kill + 1) * START])
        _await_kept(lab, folder, (kill + 1) * START)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    process = _recorder(lab, folder)
    _send(process, lines[KILLS * START :])
    process.communicate(timeout=LIMIT)
    kept, _ = _readings(lab, folder)
    _check_kept(kept, sent)
    expect(len(kept) == len(sent), f"{len(kept)} readings of {len(sent)}")
    return f"the same command goes on; all {len(kept):,} readings are there, each as it was sent"


def _keep(folder: Path) -> tuple[str, ...]:
    return "--keep-readings", str(folder)


def _full(lab: Lab) -> Happened:
    folder, sent = _folder(lab), Rows()
    with lab.run(*_keep(folder)) as run:
        _feed(lab, run, lab.rows[:START], sent)
        _await_kept(lab, folder, START)
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (1, FULL))
        _feed(lab, run, lab.rows[START : 2 * START], sent)
        run.await_log("readings: cannot be written")
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (FULL, FULL))
        run.await_log("readings: are written again; 0 are lost")
        code = run.end()
    kept, _ = _readings(lab, folder)
    _check_kept(kept, sent)
    expect(code == 0, f"exit code {code}")
    expect(len(kept) == 2 * START, f"{len(kept)} readings of {2 * START}")
    return "every record comes out; readings wait in memory and are written when there is room"


def _read_only(lab: Lab) -> Happened:
    folder = _folder(lab)
    folder.mkdir()
    program = (sys.executable, "-m", "edge_runtime", "run", str(lab.path), "--source", "-")
    mount = 'mount -t tmpfs -o ro none "$0" && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, str(folder), *program, *_keep(folder)],
        input=lab.csv(START), cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    count = done.stdout.count("\n")
    expect(count == START, f"{count} records of {START}: {done.stderr[-200:]}")
    expect("readings are not kept" in done.stderr, "the loss is not logged")
    expect(done.returncode == 0, f"exit code {done.returncode}")
    return "every record comes out, and the log says that readings are not kept"


def _flipped(lab: Lab) -> Happened:
    folder, sent = _folder(lab), Rows()
    with lab.run(*_keep(folder)) as run:
        for piece in range(PIECES):  # each is written apart, so damage to one leaves the others
            _feed(lab, run, lab.rows[piece * START : (piece + 1) * START], sent)
            _await_kept(lab, folder, (piece + 1) * START)
    (part,) = folder.glob("*.csv.gz")
    whole, worst = part.read_bytes(), len(sent)
    rng = random.Random(0)
    for _ in range(DAMAGED):
        place = rng.randrange(len(whole))
        flipped = whole[place] ^ 1 << rng.randrange(8)
        part.write_bytes(bytes((*whole[:place], flipped, *whole[place + 1 :])))
        kept, log = _readings(lab, folder)
        _check_kept(kept, sent)
        expect(len(kept) == len(sent) or "damaged" in log, f"byte {place}: the loss is not told")
        worst = min(worst, len(kept))
    left = f"at least {worst} of {len(sent)} are left"
    return f"{DAMAGED} flips: no reading is wrong, {left}, and the log says what is missing"


def _occupied(lab: Lab) -> Happened:
    folder = _folder(lab)
    process = _recorder(lab, folder)
    _send(process, [lab.line(0.0, lab.rows[0])])
    try:
        _await_kept(lab, folder, 1)
        with lab.run(*_keep(folder)) as run:
            _feed(lab, run, lab.rows[:START], {})
            run.await_log("another process records here")
    finally:
        process.communicate(timeout=LIMIT)
    kept, _ = _readings(lab, folder)
    expect(len(kept) == 1, f"{len(kept)} readings, one was sent")
    return "every record comes out; the log says who has the folder"


FAULTS = (
    Fault("recorder killed", f"SIGKILL to gruard record, {KILLS} times",
          "the same command goes on, nothing on the disk is lost", _killed),
    Fault("disk full, readings", "no byte more for the kept readings, later room again",
          "the run goes on, told, nothing lost", _full),
    Fault("disk read-only, readings", "kept readings on a read-only mount",
          "the run goes on, told", _read_only),
    Fault("flipped bits, readings", "one bit of a recording", "no wrong reading, the loss told",
          _flipped),
    Fault("recording in use", "another process records into the folder",
          "the run goes on, told", _occupied),
)  # fmt: skip
