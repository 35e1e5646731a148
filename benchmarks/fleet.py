"""What a fleet costs: assets a core-hour, overhead, speed-up, lost workers, the driver's memory.

    python -m benchmarks.fleet [--assets 8] [--rows 10000] [--out docs/fleet-costs.md]

Every command runs in a process of its own. CPU seconds are those of the driver, its workers and the
processes that learn, start-up included.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.fleet_losses import losses_table
from benchmarks.pages import fill_page, machine, markdown, page_option
from fleet.simulate import write_pumps

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
IDLE = (500, 5000, 100_000)  # assets that cost nothing, for the driver's memory
LOSSES, LOSS_EVERY = 40, 20.0
"""Assets on a cluster that loses workers, and the seconds between two losses."""
SCRIPT = "measured.py"  # a file, since spawned workers import the main module again
MEASURED = """
import atexit, re, sys
from pathlib import Path

def tell():
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)

if __name__ == "__main__":
    atexit.register(tell)
    from fleet.__main__ import main
    main()
"""


@dataclass(frozen=True)
class CommandCost:
    """One command. seconds: wall clock. cpu: seconds with all its children. megabytes: its peak."""

    seconds: float
    cpu: float
    megabytes: float


@click.command()
@click.option("--assets", default=8, show_default=True, type=click.IntRange(2, 1000))
@click.option("--rows", default=10_000, show_default=True, type=click.IntRange(1000, 10**6))
@page_option()
def main(assets: int, rows: int, out: Path | None) -> None:
    """Learn a fleet of simulated pumps one by one and as a fleet, and print what that costs."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / SCRIPT).write_text(MEASURED)
        text = (
            f"{machine()}; {assets} assets of {rows:,} rows and 8 channels.\n\n"
            f"{learning_table(Path(scratch), assets, rows)}\n\n"
            f"{lossy_table(Path(scratch), rows)}\n\n{idle_table(Path(scratch))}"
        )
    if out is not None:
        fill_page(out, text)
    click.echo(text)


def learning_table(folder: Path, assets: int, rows: int) -> str:
    """The same assets with `gruard learn`, with one and two workers, and for another target."""
    write_pumps(folder / "data", assets, rows, seed=1)
    data = folder / "data" / "healthy"
    single = [
        cost([sys.executable, "-m", "edge_runtime", "learn", str(file), "--out",
              str(folder / f"{file.stem}-1.gruard")])
        for file in sorted(data.glob("*.csv"))
    ]  # fmt: skip
    alone = CommandCost(sum(c.seconds for c in single), sum(c.cpu for c in single), 0.0)
    found = {"gruard learn, one after the other": alone}
    for workers in (1, 2):
        name = f"fleet train --workers {workers}"
        found[name] = fleet(folder, "train", str(data), "--out", str(folder / f"fleet-{workers}"),
                            "--workers", str(workers))  # fmt: skip
    found["fleet calibrate --workers 1"] = fleet(
        folder, "calibrate", str(folder / "fleet-1"), "--false-alarms-per-day", "0.1",
        "--workers", "1",
    )  # fmt: skip
    lines = [
        (name, f"{c.seconds:.0f}", f"{c.cpu:.0f}", f"{3600 * assets / c.cpu:,.0f}",
         f"{c.cpu / alone.cpu - 1:+.0%}")
        for name, c in found.items()
    ]  # fmt: skip
    return markdown(("command", "s", "CPU s", "assets a core-hour", "overhead"), lines)


def lossy_table(folder: Path, rows: int) -> str:
    """The same work on a cluster that loses workers."""
    write_pumps(folder / "lossy", LOSSES, rows, seed=2)
    return losses_table(folder / "lossy" / "healthy", folder, LOSS_EVERY, ROOT, _cpu)


def idle_table(folder: Path) -> str:
    """Assets whose recording is missing: what scheduler, driver and report cost by themselves."""
    lines = []
    for count in IDLE:
        table = folder / f"idle-{count}.csv"
        table.write_text("asset,data\n" + "".join(f"a{n},none-{n}.csv\n" for n in range(count)))
        found = fleet(
            folder, "train", str(table), "--out", str(folder / f"idle-{count}"), "--workers", "2"
        )
        page = (folder / f"idle-{count}" / "report.html").stat().st_size
        lines.append((f"{count:,}", f"{found.seconds:.0f}", f"{count / found.seconds:.0f}",
                      f"{found.megabytes:.0f}", f"{page / 1e6:.1f}"))  # fmt: skip
    return markdown(
        ("assets without work", "s", "assets a second", "driver, MB", "report, MB"), lines
    )


def fleet(folder: Path, *words: str) -> CommandCost:
    """Run a fleet command; its exit code 1 means that some assets failed."""
    return cost([sys.executable, str(folder / SCRIPT), *words], codes=(0, 1))


def cost(command: list[str], codes: tuple[int, ...] = (0,)) -> CommandCost:
    """Run `command` in the checkout. Raises SystemExit when it fails."""
    before, started = _cpu(), time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    if done.returncode not in codes:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    last = done.stderr.split()[-1] if done.stderr.split() else ""
    peak = int(last) / 1024 if last.isdigit() else 0.0
    return CommandCost(time.monotonic() - started, _cpu() - before, peak)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
