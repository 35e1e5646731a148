"""What `gruard learn` costs: CPU seconds and memory of the whole command, start-up included.

Recordings are those of the simulated machine, without two of its eight channels. Every command runs
in a process of its own, once with the C core and, for short recordings, once without.

    python -m benchmarks.learn [--out docs/learn.md]
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from benchmarks.pages import fill_page, machine, markdown, page_option
from edge_runtime.learning.recording import write_recording
from train.simulate import simulate

ROOT = Path(__file__).resolve().parents[1]
ROWS = (376, 2000, 26_000, 500_000)
MOST_SLOW_ROWS = 2000  # without the C core
CHANNELS = 6
MEASURED = """
import atexit, re, resource, sys
from pathlib import Path

def tell():
    used = resource.getrusage(resource.RUSAGE_SELF)
    # The largest resident set of this program; ru_maxrss is also that of the process it began as.
    peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
    print(used.ru_utime + used.ru_stime, peak, file=sys.stderr)

atexit.register(tell)
if sys.argv.pop(1) == "python":
    sys.modules["edge_runtime.native._core"] = None
from edge_runtime.commands.main import main
main()
"""


@dataclass(frozen=True)
class LearningCost:
    """One command. seconds: of CPU, in user and system mode. megabytes: the most at one time."""

    rows: int
    core: bool
    seconds: float
    megabytes: float
    bundle_bytes: int


@click.command()
@page_option()
def main(out: Path | None) -> None:
    """Learn recordings of several lengths and print what each costs."""
    with tempfile.TemporaryDirectory() as scratch:
        text = f"{machine()}.\n\n{table(list(measured(Path(scratch), ROWS)))}"
    click.echo(text)
    if out is not None:
        fill_page(out, text)


def measured(scratch: Path, lengths: Sequence[int]) -> Iterator[LearningCost]:
    """Yield the costs of recordings of so many rows."""
    whole = simulate(max(lengths), 0)
    for rows in lengths:
        part = whole.cut(0, rows)
        names = whole.channels[:CHANNELS]
        file = scratch / f"{rows}.csv"
        write_recording(file, replace(part, channels=names, values=part.values[:, :CHANNELS]))
        for core in (True, False) if rows <= MOST_SLOW_ROWS else (True,):
            yield cost(file, rows, core, scratch / ("core" if core else "python"))


def cost(file: Path, rows: int, core: bool, folder: Path) -> LearningCost:
    """Run the command in a process of its own and return what it took."""
    bundle = folder / f"{file.stem}-1.gruard"
    words = ["core" if core else "python", "learn", str(file), "--out", str(bundle)]
    command = [sys.executable, "-c", MEASURED, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr)
    seconds, kilobytes = map(float, done.stderr.splitlines()[-1].split())
    size = sum(member.stat().st_size for member in bundle.iterdir())
    return LearningCost(rows, core, seconds, kilobytes / 1024, size)


def table(found: Sequence[LearningCost]) -> str:
    """Return a line for each command."""
    lines = [
        (
            f"{each.rows:,} × {CHANNELS}",
            "C core" if each.core else "Python",
            f"{each.seconds:.1f}",
            f"{each.megabytes:.0f}",
            f"{each.bundle_bytes / 1024:.0f}",
        )
        for each in found
    ]
    return markdown(("rows × channels", "steps by", "CPU s", "MB", "bundle, KiB"), lines)


if __name__ == "__main__":
    main()
