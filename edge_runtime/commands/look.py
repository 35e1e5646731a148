"""`gruard look`: is this recording fit to learn from?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from edge_runtime.commands.options import column_options

UNFIT = 1
"""Exit code of a recording with warnings."""


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@column_options
@click.option("--json", "as_json", is_flag=True, help="Print all there is as one JSON object.")
@click.option("--html", "page", metavar="FILE.html", help="Write the page with pictures, too.")
@click.option("--force", is_flag=True, help="Overwrite the page.")
def look(
    data: tuple[Path, ...], as_json: bool, page: str | None, force: bool, **columns: Any
) -> None:
    """Say whether DATA is fit to learn from: CSV or Parquet files or folders of one machine.

    Shows the channels, the sampling, the regimes, what the length allows, and the stretches that
    are unlike all the rest of the recording: a fault that nobody noticed, a repair, a calibration.
    gruard learn and python -m train fit leave them out, unless a column 'label' says 0 there.

    \b
    Exit code
      0  fit to learn from
      1  there are warnings
      2  DATA cannot be read
    Example: gruard look pump.csv --html look.html
    """
    from edge_runtime.files import output, refuse_one_file_twice
    from edge_runtime.look.facts import look_at
    from edge_runtime.look.page import page_facts, page_html, page_text
    from edge_runtime.look.recording import read_whole
    from edge_runtime.status.screen import printable

    readings = read_whole(data, **columns)
    if page is not None:
        refuse_one_file_twice([*(("DATA", str(f)) for f in readings.files), ("--html", page)])
    found = look_at(readings)
    if page is not None:
        with output(page, force) as stream:
            stream.write(page_html(found, readings))
    if as_json:
        click.echo(json.dumps(page_facts(found)))
    elif page != "-":
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        click.echo("\n".join(map(printable, page_text(found).split("\n"))))
    sys.exit(UNFIT if found.warnings else 0)
