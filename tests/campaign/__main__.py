"""The fault campaign: inject real faults into the real processes and check what each leads to.

    python -m tests.campaign BUNDLE      (make faults)

`lab` runs a supervised detector and feeds it, `tests/apparatus` has the tools that break its
surroundings, and the other files have the faults by place. Every fault names what must happen and
within which bound; docs/reliability.md has the table of what happened.
"""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from benchmarks.pages import fill_page, machine, page_option
from tests.campaign import (
    accelerator,
    bit_rot,
    bits,
    carried,
    clock_nemesis,
    disks,
    fuzzing,
    histories,
    in_band,
    memory,
    network,
    nth_call,
    power,
    processes,
    recordings,
    timing,
    updates,
)
from tests.campaign.fault import Fault, NotHeldError, Part, Row
from tests.campaign.lab import Lab, open_lab
from tests.campaign.random_faults import Tally, campaign, tally_text

GROUPS = {
    "Readings": in_band.FAULTS,
    "Times and text": timing.FAULTS,
    "Processes and the operating system": processes.FAULTS,
    "Disks and sinks": disks.FAULTS,
    "Recordings": recordings.FAULTS,
    "Accelerator": accelerator.FAULTS,
    "Updates": updates.FAULTS,
    "Network": network.FAULTS,
    "Power cuts": power.FAULTS,
    "Flipped bits in files": bits.FAULTS,
    "Flipped bits in memory": (*memory.FAULTS, *carried.FAULTS),
}
SINGLE = "table"
"""The page's part for GROUPS and random faults; each of PARTS has one under its title."""
PARTS: tuple[Part, ...] = (
    clock_nemesis.PART,
    fuzzing.PART,
    nth_call.PART,
    histories.PART,
    bit_rot.PART,
)


def strike(lab: Lab, fault: Fault) -> Row:
    """Inject one fault; every error becomes a row that does not hold."""
    told = fault.name, fault.injected, fault.must
    try:
        return Row(*told, fault.strike(lab))
    except NotHeldError as seen:
        return Row(*told, str(seen), held=False)
    except Exception as error:
        return Row(*told, f"{type(error).__name__}: {error}", held=False)


def table(title: str, rows: Sequence[Row]) -> str:
    """Return one table of the page as Markdown, with the worst cases if the rows name them."""
    worst = ("worst",) if any(row.worst for row in rows) else ()
    header = ("fault", "injected", "must", "happened", *worst, "")
    lines = [f"### {title}", "", _line(header), "|---" * len(header) + "|"]
    for row in rows:
        cells = (row.name, row.injected, row.must, row.happened, *((row.worst,) if worst else ()))
        held = "held" if row.held else "**NOT HELD**"
        one_line = (" ".join(cell.replace("|", "/").split()) for cell in cells)
        lines.append(_line((*one_line, held)))
    return "\n".join(lines)


def told(rows: Sequence[Row]) -> str:
    """Say how many rows hold, and on which machine."""
    return f"{sum(row.held for row in rows)} of {len(rows)} held, on {machine()}."


def page(tables: Mapping[str, Sequence[Row]], tally: Tally) -> dict[str, str]:
    """Return the campaign as Markdown by part of the page, only for parts that were run."""
    single = {title: rows for title, rows in tables.items() if title in GROUPS}
    parts = {
        title: f"{table(title, rows)}\n\n{told(rows)}"
        for title, rows in tables.items()
        if title not in GROUPS
    }
    if not (single or tally.injected or tally.broken):
        return parts
    every = [row for rows in single.values() for row in rows]
    groups = [table(title, rows) for title, rows in single.items()]
    chance = ["### Random faults", tally_text(tally)]
    return {SINGLE: "\n\n".join((*groups, told(every), *chance)), **parts}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _all_rows(lab: Lab, only: str, seed: int, scale: float) -> Iterator[tuple[str, Row]]:
    """Yield every row of the campaign with the title of its table."""
    for group, faults in GROUPS.items():
        for fault in faults:
            if only in fault.name:
                yield group, strike(lab, fault)
    for part in PARTS:
        if only in part.title:
            for row in part.run(lab, seed, scale):
                yield part.title, row


def _tables(lab: Lab, only: str, seed: int, scale: float) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    started = time.monotonic()
    for title, row in _all_rows(lab, only, seed, scale):
        found.setdefault(title, []).append(row)
        took, started = time.monotonic() - started, time.monotonic()
        held = "held    " if row.held else "NOT HELD"
        worst = f"; worst: {row.worst}" if row.worst else ""
        click.echo(f"{held} {row.name:<32} {row.happened}{worst}  ({took:.0f} s)", err=True)
    return found


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--only", default="", help="Faults whose name, and parts whose title, has this text.")
@click.option("--random", "count", default=10_000, show_default=True, help="Random injections.")
@click.option("--seed", default=0, show_default=True, help="Of the random numbers of each part.")
@click.option("--scale", default=1.0, show_default=True, help="Share of each part's injections.")
@page_option(SINGLE, *(part.title for part in PARTS))
def main(bundle: Path, only: str, count: int, seed: int, scale: float, out: Path | None) -> None:
    """Inject every fault into a supervised run of BUNDLE. Exit code 1: a row does not hold.

    Parts of the page that were not run stay unchanged.
    """
    # A program that a shell starts in the background inherits that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as scratch:
        lab = open_lab(bundle, Path(scratch))
        tables = _tables(lab, only, seed, scale)
        tally = campaign(lab, count)
    for part, text in page(tables, tally).items():
        click.echo(text)
        if out is not None:
            fill_page(out, text, part)
    held = all(row.held for rows in tables.values() for row in rows)
    sys.exit(not (held and tally.held))


if __name__ == "__main__":
    main()
