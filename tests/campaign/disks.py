"""Faults of disks, and of readers of a run's output."""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.campaign.fault import Fault, Happened, expect
from tests.campaign.lab import LIMIT, ROOT, Lab

START = 200
FEW = 60


def _disk_full(lab: Lab) -> Happened:
    sink = lab.scratch / "full.jsonl"
    with lab.run("--sink", str(sink), "--sink", "-", "--force") as run:
        run.feed(lab.rows[:START])
        run.await_records(START)
        size = sink.stat().st_size
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (size, size))
        run.feed(lab.rows[START : START + FEW])
        code = run.end()
    whole = sink.read_text().endswith("}\n")
    expect(whole, "the file ends in half a record")
    expect(code == 1, f"exit code {code}")
    expect(run.said("not written") > 0, "the loss is not logged")
    return "the run goes on, the loss is counted and told, no half record, exit code 1"


def _no_sink(lab: Lab) -> Happened:
    done = subprocess.run(
        [sys.executable, "-m", "edge_runtime", "run", str(lab.path), "--source", "-",
         "--sink", "/proc/none.jsonl"],
        input=",".join(lab.channels).encode() + b"\n", capture_output=True, timeout=LIMIT,
        check=False,
    )  # fmt: skip
    text = done.stderr.decode()
    expect(done.returncode == 2 and "Traceback" not in text, text[-200:])
    return f"refused at the start: {text.strip()[:90]}"


def _reader_hangs(lab: Lab) -> Happened:
    """The reader of a FIFO stops reading."""
    fifo = lab.scratch / "fifo"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with lab.run("--sink", str(fifo), "--sink", "-", "--force") as run:
            run.feed(lab.rows[:1000])
    finally:
        os.close(reader)
    expect(len(run.records) == 1000, f"{len(run.records)} records")
    return "all others get every record; what was not read is counted at the end"


def _journal_full(lab: Lab) -> Happened:
    folder = _folder(lab) / "journal"
    with lab.run("--sink", "-", "--journal", str(folder)) as run:
        run.feed(lab.rows[:START])
        run.await_records(START)
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (1, 1))
        run.feed(lab.rows[START : 2 * START])
        run.await_log("journal: cannot write")
        code = run.end()
    kept = lab.command("journal", str(folder))
    whole = kept.stdout.count("\n")
    expect(code == 1, f"exit code {code}")
    expect(kept.returncode == 0 and 0 < whole < 2 * START, f"{whole} records in the journal")
    return f"the run goes on, the loss is told, exit code 1; {whole} whole records in the journal"


def _journal_read_only(lab: Lab) -> Happened:
    """A read-only mount, in the run's own namespace."""
    folder = _folder(lab)
    program = (sys.executable, "-m", "edge_runtime", "run", str(lab.path), "--source", "-")
    mount = 'mount -t tmpfs -o ro none "$0" && exec "$@"'
    lines = [",".join(lab.channels), *(",".join(map(str, row)) for row in lab.rows[:START])]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, str(folder), *program, "--journal", str(folder)],
        input="\n".join(lines) + "\n", cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    count = done.stdout.count("\n")
    expect(count == START, f"{count} records of {START}: {done.stderr[-200:]}")
    expect("Read-only file system" in done.stderr, "the loss is not logged")
    expect(done.returncode == 1, f"exit code {done.returncode}")
    return "the run goes on, every record comes out, the loss is told, exit code 1"


def _folder(lab: Lab) -> Path:
    return Path(tempfile.mkdtemp(prefix="disk-", dir=lab.scratch))


FAULTS = (
    Fault("disk full", "no byte more for the sink", "the run goes on, counted, no half record",
          _disk_full),
    Fault("disk full, journal", "no byte more for the journal",
          "the run goes on, told, exit code 1", _journal_full),
    Fault("disk read-only", "a journal on a read-only mount",
          "the run goes on, told, exit code 1", _journal_read_only),
    Fault("sink that cannot be", "a file where none can be made",
          "one line, exit code 2", _no_sink),
    Fault("slow sink", "nobody reads a FIFO", "the other sinks get every record",
          _reader_hangs),
)  # fmt: skip
