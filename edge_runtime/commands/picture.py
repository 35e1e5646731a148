"""`gruard picture`: the minutes around an alarm, drawn from kept readings."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.commands.options import language_option, store_option, warn
from edge_runtime.commands.owner import run_folder, state_option


@click.command()
@click.argument("alarm")
@click.option(
    "--out",
    required=True,
    metavar="FILE.svg|-",
    help="Where to; - for stdout.",
)
@click.option(
    "--readings",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Readings of gruard run --keep-readings.  [default: readings in the store]",
)
@store_option
@state_option
@language_option
@click.option("--force", is_flag=True, help="Overwrite the output file.")
def picture(
    alarm: str,
    out: str,
    readings: Path | None,
    store: Path,
    state: Path | None,
    language: str,
    force: bool,
) -> None:
    """Draw the blamed channels in the five minutes around ALARM as an SVG picture.

    ALARM is named as for gruard mark: last, its id, or its local time. The run must keep its
    readings (gruard run --keep-readings, or --learn). Red is the alarm, green what was expected.

    \b
    Exit code 0: drawn; 1: there is no such alarm; 2: a problem you can fix.
    Example: gruard picture last --readings pump/readings --out alarm.svg
    """
    from edge_runtime import owner
    from edge_runtime.alarms.log import read_alarms
    from edge_runtime.alarms.picture import picture as drawn
    from edge_runtime.alarms.picture import read_courses
    from edge_runtime.files import output, refuse_to_overwrite

    refuse_to_overwrite(out, force)
    folder = run_folder(state)
    alarms = read_alarms(folder)
    if not alarms:
        raise owner.NothingError(f"{folder}: the run remembers no alarm")
    found = owner.find_alarm(alarms, alarm)
    courses = read_courses(readings or store / "readings", found, warn)
    with output(out, force) as stream:
        stream.write(drawn(found, courses, language))
