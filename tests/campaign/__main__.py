"""The fault campaign: inject real faults into the real processes and check what each leads to.

    python -m tests.campaign BUNDLE      (make faults)

`lab` runs a supervised detector and feeds it; `tests/apparatus` holds what breaks its surroundings;
the other files hold the faults by where they strike. Every fault names what has to happen and
within which bound; the table of what happened is docs/reliability.md.
"""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.machine import machine
from benchmarks.pages import fill_page, page_option
from tests.campaign import (
    accelerator,
    bits,
    carried,
    disks,
    in_band,
    memory,
    network,
    power,
    processes,
    timing,
    updates,
)
from tests.campaign.fault import Fault, NotHeldError
from tests.campaign.lab import Lab, open_lab
from tests.campaign.random_faults import Tally, campaign, tally_text

GROUPS = {
    "Readings": in_band.FAULTS,
    "Times and text": timing.FAULTS,
    "Processes and the operating system": processes.FAULTS,
    "Disks and sinks": disks.FAULTS,
    "Accelerator": accelerator.FAULTS,
    "Updates": updates.FAULTS,
    "Network": network.FAULTS,
    "Power cuts": power.FAULTS,
    "Flipped bits in files": bits.FAULTS,
    "Flipped bits in memory": (*memory.FAULTS, *carried.FAULTS),
}


@dataclass(frozen=True)
class Row:
    """What came of one fault."""

    group: str
    fault: Fault
    held: bool
    happened: str


def strike(lab: Lab, group: str, fault: Fault) -> Row:
    """Inject one fault; whatever goes wrong is a row that does not hold."""
    try:
        return Row(group, fault, True, fault.strike(lab))
    except NotHeldError as seen:
        return Row(group, fault, False, str(seen))
    except Exception as error:
        return Row(group, fault, False, f"{type(error).__name__}: {error}")


def table(rows: list[Row]) -> str:
    """The rows as Markdown, one table for each group."""
    parts = []
    for group in dict.fromkeys(row.group for row in rows):
        lines = [
            f"### {group}",
            "",
            "| fault | injected | must | happened | |",
            "|---|---|---|---|---|",
        ]
        for row in rows:
            if row.group == group:
                cells = (row.fault.name, row.fault.injected, row.fault.must, row.happened)
                held = "held" if row.held else "**NOT HELD**"
                lines.append(f"| {' | '.join(c.replace('|', '/') for c in cells)} | {held} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def page(rows: list[Row], tally: Tally) -> str:
    """All that the campaign has to tell, as Markdown."""
    good = sum(row.held for row in rows)
    told = f"{good} of {len(rows)} held, on {machine()}."
    return "\n\n".join((table(rows), told, "### Random faults", tally_text(tally)))


def _strike_all(lab: Lab, only: str) -> Iterator[Row]:
    for group, faults in GROUPS.items():
        for fault in faults:
            if only not in fault.name:
                continue
            started = time.monotonic()
            row = strike(lab, group, fault)
            took = time.monotonic() - started
            held = "held    " if row.held else "NOT HELD"
            click.echo(f"{held} {fault.name:<32} {row.happened}  ({took:.0f} s)", err=True)
            yield row


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--only", default="", help="Faults of the table whose name has this text.")
@click.option("--random", "count", default=10_000, show_default=True, help="Random injections.")
@page_option()
def main(bundle: Path, only: str, count: int, out: Path | None) -> None:
    """Inject every fault into a supervised run of BUNDLE. Exit code 1: a row does not hold."""
    # A shell has programs in the background ignore Ctrl-C, and what they start ignores it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as scratch:
        lab = open_lab(bundle, Path(scratch))
        rows = list(_strike_all(lab, only))
        tally = campaign(lab, count)
    text = page(rows, tally)
    click.echo(text)
    if out is not None:
        fill_page(out, text)
    sys.exit(not (all(row.held for row in rows) and tally.held))


if __name__ == "__main__":
    main()
