"""A long run, watched from outside: does memory grow, is a record missing or unmarked?

    python -m tests.campaign.soak BUNDLE [--minutes 10] [--rate 50]      (make soak)

The bundle's own clean rows are fed to a supervised run in real time. Once a minute a reading is
destroyed, and every ten minutes the worker is killed. Memory is the resident set of supervisor and
worker (VmRSS); its growth is the slope of a line through the second half of the run, when caches
are full.
"""

import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np

from benchmarks.pages import fill_page, machine, page_option
from benchmarks.runtime import kilobytes
from tests.campaign.fault import NotHeldError, check_promises
from tests.campaign.lab import Lab, Run, open_lab

PART = "soak"  # of docs/reliability.md
LOOK_EVERY = 5.0  # seconds
KILL_EVERY = 600.0
KEPT = 1000  # records that are checked at a time, then thrown away


@dataclass(frozen=True)
class Look:
    """Memory in MB and open files of both processes at a moment."""

    seconds: float
    supervisor: float
    worker: float
    files: int


@dataclass
class Soak:
    """The result of a soak."""

    records: int = 0
    restarts: int = 0
    looks: list[Look] = field(default_factory=list)

    def growth(self, part: str) -> float:
        """MB an hour over the second half, of `supervisor` or `worker`."""
        half = self.looks[len(self.looks) // 2 :]
        seconds = np.array([look.seconds for look in half])
        if len(half) < 3:
            return 0.0
        memory = np.array([getattr(look, part) for look in half])
        return float(3600 * np.polyfit(seconds, memory, 1)[0])


def soak(lab: Lab, minutes: float, rate: float) -> Soak:
    """Feed the lab's rows for `minutes`; NotHeldError when a promise breaks."""
    found = Soak()
    with lab.run() as run:
        began = time.monotonic()
        next_look, next_kill = began, began + KILL_EVERY
        while (now := time.monotonic()) < began + 60 * minutes:
            index = found.records + len(run.records)
            row = lab.rows[index % len(lab.rows)].copy()
            if index % int(60 * rate) == int(30 * rate):
                row[lab.victim] = np.nan
            run.send(lab.line(index * lab.period, row))
            run.await_records(index - found.records + 1)
            if now >= next_look:
                found.looks.append(_look(run, now - began))
                next_look = now + LOOK_EVERY
                click.echo(f"{now - began:6.0f} s, {index} records", err=True)
            if now >= next_kill:
                run.kill_worker()
                next_kill, found.restarts = now + KILL_EVERY, found.restarts + 1
            if len(run.records) >= KEPT:
                _forget(run, found)
            time.sleep(max(0.0, began + (index + 1) / rate - time.monotonic()))
        _forget(run, found)
    return found


def _forget(run: Run, found: Soak) -> None:
    """Check the records so far and drop them, so that this program does not grow."""
    records = [record | {"index": record["index"] - found.records} for record in run.records]
    check_promises(records)
    found.records += len(run.records)
    run.records.clear()


def _look(run: Run, seconds: float) -> Look:
    pids = [run.process.pid, run.worker]
    memory = [kilobytes(pid, "status", "VmRSS") / 1024 if pid else 0.0 for pid in pids]
    files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids if pid)  # noqa: PTH208
    return Look(seconds, memory[0], memory[1], files)


def facts(found: Soak) -> dict[str, str]:
    """Return the results by name, each with its unit."""
    first, last = found.looks[0], found.looks[-1]
    return {
        "minutes": f"{last.seconds / 60:.0f}",
        "records": f"{found.records:,}, none missing, none unmarked",
        "inference processes killed": f"{found.restarts}",
        "files open, first and last": f"{first.files} and {last.files}",
        "memory of the supervisor, first and last": f"{first.supervisor:.1f} and "
        f"{last.supervisor:.1f} MB",
        "memory of the worker, first and last": f"{first.worker:.1f} and {last.worker:.1f} MB",
        "the supervisor grows by": f"{found.growth('supervisor'):.2f} MB an hour",
        "the worker grows by": f"{found.growth('worker'):.2f} MB an hour",
    }


def table(found: Soak) -> str:
    """The facts as Markdown."""
    rows = [f"| {name} | {value} |" for name, value in facts(found).items()]
    return "\n".join(["| | |", "|---|---|", *rows, "", f"On {machine()}."])


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--minutes", default=10.0, show_default=True, help="How long.")
@click.option("--rate", default=50.0, show_default=True, help="Samples per second.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every look.")
@page_option(PART)
def main(bundle: Path, minutes: float, rate: float, as_json: bool, out: Path | None) -> None:
    """Watch a supervised run of BUNDLE for a while. Exit code 1: a promise was broken."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = soak(open_lab(bundle, Path(scratch)), minutes, rate)
        except NotHeldError as broken:
            raise click.ClickException(f"a promise was broken: {broken}") from None
    if as_json:
        looks = [asdict(look) for look in found.looks]
        click.echo(json.dumps({"machine": machine(), **facts(found), "looks": looks}))
    else:
        click.echo(table(found))
    if out is not None:
        fill_page(out, table(found), PART)


if __name__ == "__main__":
    main()
